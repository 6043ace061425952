"""Replies on their way out: heads, frames, and a client that stops reading."""

import contextlib
import logging

import trio

from tollkeeper._server.channel import SocketChannel
from tollkeeper._server.delivery import ClientGone
from tollkeeper._server.heads import encode_head
from tollkeeper._server.incoming import Incoming
from tollkeeper.errors import ApiError
from tollkeeper.exchange import Head, OutcomeKind, new_request_id
from tollkeeper.settings import ServerSettings

log = logging.getLogger("tollkeeper")

WRITE_SIZE = 262144
KEEP_ALIVE = b": keepalive\n\n"
LOOK_SECONDS = 7.0
"""How often a stream is looked at, at the latest half a second later.

One in which nothing was written between two looks says that it is alive. So no client waits for
more than 15 seconds, and an event costs no look at the clock.
"""


class Writer:
    """Writes the replies of one connection, one after the other."""

    def __init__(
        self,
        stream: SocketChannel | trio.abc.HalfCloseableStream,
        client: str,
        settings: ServerSettings,
    ) -> None:
        self.draining = False
        """Whether the gateway is going down: this connection takes no further request."""
        self.cut: OutcomeKind = "stopped"
        """`gone` once the client has left."""
        self.client = client
        self._stream = stream
        self._settings = settings
        self._request: Incoming | None = None
        self._is_events = False
        """Whether a stream of events is being written."""
        self._has_written = False
        """Whether anything of it was written since the last look."""
        self._is_slow = False
        """Whether a write is under way that takes several steps, and must not be torn apart."""

    def _current(self) -> Incoming:
        if self._request is None:
            raise RuntimeError("no request is being handled")
        return self._request

    def _prepare(self, head: Head, framing: dict[str, str]) -> bytes:
        request = self._current()
        if self.draining or not request.complete:
            request.keep_alive = False
        headers = head.headers
        headers.update(framing)
        if not request.keep_alive:
            headers["connection"] = "close"
        elif request.version == "1.0":
            headers["connection"] = "keep-alive"
        return encode_head(head.status, headers)

    async def send(self, head: Head, body: bytes) -> None:
        """A whole reply, in one write."""
        bodyless = head.status in (204, 304)
        data = self._prepare(head, {} if bodyless else {"content-length": str(len(body))})
        if not bodyless and self._current().method != "HEAD":
            data += body
        if (rest := self._post(data)) is not None:
            await self._send_slowly(rest)

    def _error_reply(self, error: ApiError) -> tuple[Head, bytes]:
        request_id = new_request_id()
        log.info("%s %s -> %d: %s", request_id, self.client, error.status, error.message)
        headers = {"content-type": "application/json", "x-request-id": request_id}
        return Head(error.status, {**headers, **error.headers}), error.body()

    async def send_error(self, error: ApiError) -> None:
        """An error that belongs to no exchange."""
        await self.send(*self._error_reply(error))

    async def begin(self, head: Head, data: bytes) -> None:
        """The head of a stream with its first bytes, in one write."""
        if head.headers.get("content-type", "").startswith("text/event-stream"):
            self._is_events = self._has_written = True
        if self._current().version == "1.0":
            self._current().keep_alive = False
            await self._send(self._prepare(head, {}) + data)
        else:
            framing = {"transfer-encoding": "chunked"}
            await self._send(self._prepare(head, framing) + self._frame(data))

    async def write(self, data: bytes) -> None:
        """More of the stream."""
        self._has_written = True
        await self._send(self._frame(data))

    def write_now(self, data: bytes) -> bytes | None:
        """More of the stream without waiting; what is left to `write`, if anything.

        `b""` where the client has to be waited for before there is more to write.
        """
        stream, frame = self._stream, self._frame(data)
        if not isinstance(stream, SocketChannel) or stream.blocked or len(frame) > WRITE_SIZE:
            return data
        self._has_written = True
        return self._post(frame)

    async def end(self, data: bytes) -> None:
        """The last bytes of the stream with its terminator, in one write."""
        self._is_events = False
        last = b"" if self._current().version == "1.0" else b"0\r\n\r\n"
        await self._send(self._frame(data) + last)

    def _frame(self, data: bytes) -> bytes:
        if not data or self._current().version == "1.0":
            return data
        return b"%x\r\n%b\r\n" % (len(data), data)

    def keep_alive(self) -> None:
        """Write a comment into a stream that was silent since the last call.

        Streams are written in whole events, so that a comment can stand between any two writes.
        """
        has_written, self._has_written = self._has_written, False
        stream = self._stream
        if has_written or not self._is_events:
            return
        if not isinstance(stream, SocketChannel) or stream.blocked or self._is_slow:
            return
        self._has_written = True
        with contextlib.suppress(trio.BrokenResourceError):
            stream.post(self._frame(KEEP_ALIVE))

    async def _send(self, data: bytes) -> None:
        if (rest := self._post(data)) is not None:
            await self._send_slowly(rest)

    def _post(self, data: bytes) -> bytes | None:
        """Have data written without waiting for it; what has to be waited for, if anything."""
        stream = self._stream
        if self.cut == "gone":
            raise ClientGone
        if not isinstance(stream, SocketChannel) or len(data) > WRITE_SIZE:
            return data
        try:
            stream.post(data)
        except trio.BrokenResourceError:
            raise ClientGone from None
        return b"" if stream.blocked else None

    async def _send_slowly(self, data: bytes) -> None:
        """Write to a client that does not take everything at once, for as long as it takes some."""
        self._is_slow = True
        try:
            for start in range(0, max(1, len(data)), WRITE_SIZE):
                with trio.move_on_after(self._settings.write_timeout) as patience:
                    await self._stream.send_all(data[start : start + WRITE_SIZE])
                if patience.cancelled_caught:
                    raise ClientGone
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ClientGone from None
        finally:
            self._is_slow = False
