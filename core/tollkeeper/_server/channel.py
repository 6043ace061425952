"""Bytes over a socket, with as few passes through the scheduler as can be.

The same methods as a trio stream, so that a memory stream can stand in. Two differences make the
path of a call short: a write that the kernel takes at once is no checkpoint, and a read waits until
there is something instead of trying first.
"""

import socket
import ssl

import trio

READ_SIZE = 65536


class SocketChannel:
    """A connected trio socket. Owns it."""

    def __init__(self, owner: trio.socket.SocketType) -> None:
        self._owner = owner
        # A second handle on the same descriptor: trio's own methods cost a wrapper each.
        self._raw = socket.socket(fileno=owner.fileno())
        self.sent = 0
        """Bytes that the kernel has taken."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing can be read: on an idle connection anything means closed or broken."""
        return not self._owner.is_readable()

    async def send_all(self, data: bytes) -> None:
        """Write everything. No checkpoint where the kernel takes it at once."""
        sent = self.send_now(data)
        if sent == len(data):
            return
        with memoryview(data) as view:
            while sent < len(view):
                await self._wait(trio.lowlevel.wait_writable)
                sent += self.send_now(view[sent:])

    def send_now(self, data: bytes | memoryview) -> int:
        """Write what the kernel takes at once, and say how much that was."""
        try:
            count = self._raw.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from None
        self.sent += count
        return count

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        """Wait for bytes; `b""` at the end."""
        while True:
            await self._wait(trio.lowlevel.wait_readable)
            try:
                return self._raw.recv(max_bytes)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from None

    async def _wait(self, until: object) -> None:
        try:
            await until(self._raw)  # type: ignore[operator] # one of trio's two waits
        except (OSError, ValueError) as error:
            raise trio.ClosedResourceError(str(error)) from None

    def shut_down(self) -> None:
        """End both directions: whoever waits in here sees the end of the connection."""
        try:
            self._raw.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    async def send_eof(self) -> None:
        """End our direction."""
        try:
            self._raw.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def aclose(self) -> None:
        """Close, without waiting for anything."""
        self.close()

    def close(self) -> None:
        """Close. Safe to call twice."""
        if self._raw.fileno() != -1:
            self._raw.detach()
            self._owner.close()


class TlsChannel:
    """TLS over a socket channel, by an SSLObject between two buffers."""

    def __init__(self, channel: SocketChannel, context: ssl.SSLContext, host: str) -> None:
        self._channel = channel
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

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
