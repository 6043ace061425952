"""One client connection: a task that reads and a task that handles, and the wire between them.

The reader goes on reading while a request is handled, so a client that leaves is noticed at once
and the handler cancelled. A half-closed connection counts as left, as it does behind nginx.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from tollkeeper._server.channel import READ_SIZE, SocketChannel
from tollkeeper._server.dispatch import ClientGone
from tollkeeper._server.heads import encode_head
from tollkeeper._server.incoming import Incoming, RequestParser
from tollkeeper.errors import ApiError, Refused, invalid_request
from tollkeeper.exchange import Head, OutcomeKind, new_request_id
from tollkeeper.settings import ServerSettings

log = logging.getLogger("tollkeeper")

MAX_PIPELINED = 65536
"""Bytes a client may send ahead of the reply it waits for; beyond them it is not read."""
WRITE_SIZE = 262144
LINGER_SECONDS = 2.0

Handler = Callable[[Incoming, "Connection"], Awaitable[None]]


class Connection:
    """A client, and the `Wire` of the request that is being handled."""

    def __init__(
        self,
        stream: SocketChannel | trio.abc.HalfCloseableStream,
        client: str,
        settings: ServerSettings,
        handler: Handler,
    ) -> None:
        self.cut: OutcomeKind = "stopped"
        self.draining = False
        self.deadline = trio.current_time() + settings.keep_alive_timeout
        """When the idle sweep closes this connection; infinite while a request is handled."""
        self.client = client
        self._stream = stream
        self._settings = settings
        self._handler = handler
        self._parser = RequestParser(settings.max_body)
        self._pending = b""
        self._failure: ApiError | None = None
        self._request: Incoming | None = None
        self._arrival = trio.Event()
        self._drained = trio.Event()
        self._scope = trio.CancelScope()
        self._lingering = False

    async def run(self) -> None:
        """Serve until either side is done. Whatever goes wrong stays in here."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._read)
                await self._serve()
                await self._linger()
                nursery.cancel_scope.cancel()
        except Exception:
            log.exception("a connection ended by an error of its own")
        finally:
            await self._stream.aclose()

    def sweep(self, now: float) -> None:
        """Close the connection if it has idled too long, or the gateway is going down."""
        busy = self._request is not None or self._parser.requests
        if busy or not (self.draining or now >= self.deadline):
            return
        if self._parser.in_head and not self.draining:
            self._fail(_timed_out("The head of the request did not arrive in time."))
        else:
            self._scope.cancel()

    def cut_off(self) -> None:
        """End the connection now; what runs on it counts as stopped."""
        self._scope.cancel()

    # The reading task.

    async def _read(self) -> None:
        while True:
            try:
                data = await self._stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                self.cut = "gone"
                self._scope.cancel()
                return
            self._take(bytes(data))
            if len(self._pending) > MAX_PIPELINED:
                await self._wait_until_read()

    def _take(self, data: bytes) -> None:
        if self._lingering or self._failure is not None:
            return
        if self._request is not None and self._request.complete:
            self._pending += data
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except Refused as refusal:
            self._fail(refusal)
        self._arrival.set()

    def _fail(self, failure: ApiError) -> None:
        self._failure = self._failure or failure
        self._arrival.set()

    async def _wait_until_read(self) -> None:
        while len(self._pending) > MAX_PIPELINED:
            self._drained = trio.Event()
            await self._drained.wait()

    async def _wait_arrival(self) -> None:
        await self._arrival.wait()
        self._arrival = trio.Event()

    # The handling task.

    async def _serve(self) -> None:
        while (request := await self._next_request()) is not None:
            self._request, self.deadline = request, float("inf")
            await self._handler(request, self)
            if not (request.keep_alive and request.complete):
                return
            self._request = None
            self.deadline = trio.current_time() + self._settings.keep_alive_timeout
            pending, self._pending = self._pending, b""
            self._drained.set()
            if pending:
                self._feed(pending)

    async def _next_request(self) -> Incoming | None:
        while not self._parser.requests:
            if self._failure is not None:
                await self._send_failure(self._failure)
                return None
            await self._wait_arrival()
        return self._parser.requests.popleft()

    async def _send_failure(self, failure: ApiError) -> None:
        """Answer what never became a request, and take no other."""
        head, body = self._error_reply(failure)
        framing = {"content-length": str(len(body)), "connection": "close"}
        try:
            await self._send(encode_head(head.status, {**head.headers, **framing}) + body)
        except ClientGone:
            return

    def _error_reply(self, error: ApiError) -> tuple[Head, bytes]:
        request_id = new_request_id()
        log.info("%s %s -> %d: %s", request_id, self.client, error.status, error.message)
        headers = {"content-type": "application/json", "x-request-id": request_id}
        return Head(error.status, {**headers, **error.headers}), error.body()

    async def _linger(self) -> None:
        """End our side first and take what is still coming, so that no reset eats the reply."""
        self._lingering = True
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            return
        unread = self._request is not None and not self._request.complete
        if unread or self._failure is not None:
            with trio.move_on_after(LINGER_SECONDS):
                await trio.sleep_forever()  # the reader ends it when the client closes

    # The wire of the request that is handled.

    async def read_body(self) -> bytes:
        """The whole request body; 413 and 408 for one too large or too slow."""
        request = self._current()
        if "content-encoding" in request.headers:
            raise invalid_request("Compressed request bodies are not accepted.", status=415)
        length = request.headers.get("content-length", "0")
        if int(length) > self._settings.max_body:
            raise self._too_large()
        if request.expects_continue and not request.complete:
            await self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not request.complete:
            with trio.move_on_after(self._settings.body_timeout):
                await self._wait_body(request)
        if request.body_size > self._settings.max_body:
            raise self._too_large()
        if not request.complete:
            raise _timed_out("The body of the request did not arrive in time.")
        return request.chunks[0] if len(request.chunks) == 1 else b"".join(request.chunks)

    async def _wait_body(self, request: Incoming) -> None:
        """Until the body is whole, or known to be too large; raises where it is malformed."""
        while not request.complete and request.body_size <= self._settings.max_body:
            if self._failure is not None:
                raise self._failure
            await self._wait_arrival()

    def _too_large(self) -> ApiError:
        limit = self._settings.max_body
        return Refused(413, "request_too_large", f"The body is larger than {limit} bytes.")

    def _current(self) -> Incoming:
        if self._request is None:
            raise RuntimeError("no request is being handled")
        return self._request

    def _prepare(self, head: Head, framing: dict[str, str]) -> bytes:
        request = self._current()
        if self.draining or not request.complete:
            request.keep_alive = False
        headers = {**head.headers, **framing}
        if not request.keep_alive:
            headers["connection"] = "close"
        elif request.version == "1.0":
            headers["connection"] = "keep-alive"
        return encode_head(head.status, headers)

    async def send(self, head: Head, body: bytes) -> None:
        """A whole reply, in one write."""
        bodyless = head.status in (204, 304)
        data = self._prepare(head, {} if bodyless else {"content-length": str(len(body))})
        await self._send(data if bodyless or self._current().method == "HEAD" else data + body)

    async def send_error(self, error: ApiError) -> None:
        """An error that belongs to no exchange."""
        await self.send(*self._error_reply(error))

    async def begin(self, head: Head, data: bytes) -> None:
        """The head of a stream with its first bytes, in one write."""
        if self._current().version == "1.0":
            self._current().keep_alive = False
            await self._send(self._prepare(head, {}) + data)
        else:
            framing = {"transfer-encoding": "chunked"}
            await self._send(self._prepare(head, framing) + self._frame(data))

    async def write(self, data: bytes) -> None:
        """More of the stream."""
        await self._send(self._frame(data))

    async def end(self, data: bytes) -> None:
        """The last bytes of the stream with its terminator, in one write."""
        last = b"" if self._current().version == "1.0" else b"0\r\n\r\n"
        await self._send(self._frame(data) + last)

    def _frame(self, data: bytes) -> bytes:
        if not data or self._current().version == "1.0":
            return data
        return b"%x\r\n%b\r\n" % (len(data), data)

    async def _send(self, data: bytes) -> None:
        try:
            if isinstance(self._stream, SocketChannel) and len(data) <= WRITE_SIZE:
                sent = self._stream.send_now(data)
                if sent == len(data):
                    return
                data = data[sent:]
            await self._send_slowly(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ClientGone from None

    async def _send_slowly(self, data: bytes) -> None:
        """Write to a client that does not take everything at once, for as long as it takes some."""
        for start in range(0, len(data), WRITE_SIZE):
            with trio.move_on_after(self._settings.write_timeout) as patience:
                await self._stream.send_all(data[start : start + WRITE_SIZE])
            if patience.cancelled_caught:
                raise ClientGone


def _timed_out(message: str) -> ApiError:
    return Refused(408, "request_timeout", message)
