"""One HTTP/1.1 connection to an upstream: a request out, a reply in, one after the other."""

import contextlib
from collections import deque
from math import inf

import httptools
import trio

from tollkeeper._server.channel import READ_SIZE, SocketChannel, TlsChannel
from tollkeeper.errors import UpstreamError

MAX_HEAD = 65536
SEND_AHEAD = 65536
"""Request bytes that are written before the reply is looked for; sockets buffer about as much."""


Stream = SocketChannel | TlsChannel | trio.abc.Stream


class Link:
    """A connection. `request`, then `chunk` until `b""`; idle and reusable after that."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.deadline = inf
        """When whoever waits here is to be woken with a timeout; kept by the pool's sweep."""
        self.expired = False
        self._parser = httptools.HttpResponseParser(self)
        self._sent_before = 0
        self._begin()
        self.idle_since = 0.0

    def _begin(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._parts: deque[bytes] = deque()
        self._head_done = False
        self._done = False
        self._keep_alive = False
        self._surplus = False
        self._head_size = 0
        self._written = False

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; of repeated ones all values, as HTTP joins them."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """The head is whole, unless it was an interim reply."""
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self._head_done = True
        else:
            self.headers.clear()

    def on_body(self, body: bytes) -> None:
        """Bytes of the body."""
        self._parts.append(body)

    def on_message_begin(self) -> None:
        """A second final reply to one request means that the connection is out of step."""
        self._surplus = self._surplus or self._done

    def on_message_complete(self) -> None:
        """The body is whole."""
        if self._head_done and not self._done:
            self._done = True
            self._keep_alive = bool(self._parser.should_keep_alive())

    # Called by the owner.

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the reply is whole, and both sides stay."""
        return (
            self._done
            and self._written
            and self._keep_alive
            and not self._surplus
            and not self._parts
            and ("content-length" in self.headers or "chunked" in self._transfer_encoding)
        )

    @property
    def _transfer_encoding(self) -> str:
        return self.headers.get("transfer-encoding", "").lower()

    def is_alive(self) -> bool:
        """Whether the idle connection is still quiet."""
        return bool(getattr(self._stream, "is_quiet", False))

    @property
    def is_untouched(self) -> bool:
        """Whether not a byte of the last request went out: another connection may take it."""
        return getattr(self._stream, "sent", -1) == self._sent_before

    def expire(self) -> None:
        """Wake whoever waits for this connection: its deadline has passed."""
        self.expired = True
        self._stream.shut_down()  # type: ignore[union-attr] # the pool's links are on channels

    async def request(self, data: bytes) -> None:
        """Write a request and read up to the end of the reply's head."""
        self._begin()
        self._sent_before = getattr(self._stream, "sent", 0)
        if len(data) <= SEND_AHEAD:
            await self._write(data)
            await self._read_head()
            return
        # A server may refuse before it has read everything: read while still writing.
        failure: UpstreamError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, data)
            try:
                await self._read_head()
            except UpstreamError as error:
                failure = error  # raised in here it would come out in a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _write(self, data: bytes) -> None:
        """Write; a connection that breaks here may still hold a reply, so reading tells."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(data)
            self._written = True

    async def _read_head(self) -> None:
        while not self._head_done:
            if not await self._fill():
                raise UpstreamError("broken", "the upstream closed the connection without a reply")

    async def _fill(self) -> bool:
        """Read and parse once; False at the end of the connection."""
        try:
            data = bytes(await self._stream.receive_some(READ_SIZE))
            if not self._head_done:
                self._head_size += len(data)
            if data:
                self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise UpstreamError("broken", f"the reply is not HTTP: {error}") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self.expired:
                raise UpstreamError("timeout", "the upstream did not answer in time") from None
            raise UpstreamError("broken", f"the connection broke: {error}") from error
        if self.expired:
            raise UpstreamError("timeout", "the upstream did not answer in time")
        if self._head_size > MAX_HEAD and not self._head_done:
            raise UpstreamError("broken", "the head of the reply is too large")
        return bool(data)

    async def chunk(self) -> bytes:
        """All body bytes that have arrived, at least one; `b""` at the clean end."""
        while not self._parts and not self._done:
            if not await self._fill():
                if "content-length" in self.headers or "chunked" in self._transfer_encoding:
                    raise UpstreamError("broken", "the upstream closed in the middle of its reply")
                return b""  # a body that only the end of the connection delimits
        parts, self._parts = self._parts, deque()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def aclose(self) -> None:
        """Close at once; what goes wrong no longer matters."""
        await self._stream.aclose()
