"""TLS over a socket channel, by an SSLObject between two buffers."""

import contextlib
import ssl
from collections.abc import Callable

import trio

from tollkeeper._server.channel import READ_SIZE, SocketChannel


class TlsChannel:
    """The same methods as a plain channel, over one."""

    def __init__(self, channel: SocketChannel, context: ssl.SSLContext, host: str) -> None:
        self._channel = channel
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._listener: Callable[[bytes], None] | None = None

    @property
    def blocked(self) -> bool:
        """Whether the kernel takes no more until the other side reads."""
        return self._channel.blocked

    @property
    def broken(self) -> bool:
        """Whether what a listener heard ended by an error of the connection below."""
        return self._channel.broken

    @property
    def sent(self) -> int:
        """Bytes that the kernel has taken, TLS's own included."""
        return self._channel.sent

    async def do_handshake(self) -> None:
        """Agree on keys. Raises `ssl.SSLError` or trio's errors for a connection that breaks."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                await self._flush()
                return

    @property
    def is_quiet(self) -> bool:
        """Whether nothing but TLS's own messages can be read."""
        if self._channel.is_quiet:
            return True
        try:
            # Session tickets come behind the handshake; anything else is unasked for.
            data = self._channel._raw.recv(READ_SIZE)
            self._incoming.write(data)
            self._tls.read(1)
        except ssl.SSLWantReadError:
            return bool(data)
        except (OSError, ssl.SSLError):
            return False
        return False

    def listen(self, listener: Callable[[bytes], None] | None) -> bool:
        """Call `listener` with what arrives, decrypted; None pauses. As for a plain channel."""
        self._listener = listener
        return self._channel.listen(None if listener is None else self._decrypt)

    def _decrypt(self, data: bytes) -> None:
        listener = self._listener
        if listener is None:
            return
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        parts, ended = [], not data
        try:
            while part := self._tls.read(READ_SIZE):
                parts.append(part)
            ended = True
        except ssl.SSLWantReadError:
            self._post_own()
        except ssl.SSLError:
            ended = True
        if parts:
            listener(b"".join(parts))
        if ended:
            listener(b"")

    def _post_own(self) -> None:
        """Write what TLS itself has to say."""
        if self._outgoing.pending:
            with contextlib.suppress(trio.BrokenResourceError):
                self._channel.post(self._outgoing.read())

    def post(self, data: bytes) -> None:
        """Write, at the latest at the end of this pass."""
        self._tls.write(data)
        self._channel.post(self._outgoing.read())

    async def send_all(self, data: bytes) -> None:
        """Write everything."""
        self._tls.write(data)
        await self._flush()

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        """Wait for bytes; `b""` at the end, also at one without TLS's farewell."""
        while True:
            try:
                return self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise trio.BrokenResourceError(str(error)) from None

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._channel.send_all(self._outgoing.read())

    async def _fill(self) -> bool:
        data = await self._channel.receive_some(READ_SIZE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)

    def shut_down(self) -> None:
        """End both directions."""
        self._channel.shut_down()

    async def aclose(self) -> None:
        """Close, without TLS's farewell: a reply's end is known from HTTP."""
        self._channel.close()
