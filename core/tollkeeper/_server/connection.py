"""One client connection: a task that handles its requests, and the wire it answers on.

What arrives is taken in while a request is handled, so a client that leaves is noticed at once and
the handler cancelled. A half-closed connection counts as left, as it does behind nginx.
"""

import logging
from collections.abc import Awaitable, Callable
from math import inf

import trio

from tollkeeper._server.channel import READ_SIZE, SocketChannel
from tollkeeper._server.delivery import ClientGone
from tollkeeper._server.heads import encode_head
from tollkeeper._server.incoming import Incoming, RequestParser
from tollkeeper._server.writer import LOOK_SECONDS, Writer
from tollkeeper.errors import ApiError, Refused, invalid_request
from tollkeeper.exchange import Exchange
from tollkeeper.settings import ServerSettings

log = logging.getLogger("tollkeeper")

MAX_PIPELINED = 65536
"""Bytes a client may send ahead of the reply it waits for; beyond them it is not read."""
LINGER_SECONDS = 2.0

Handler = Callable[[Incoming, "Connection"], Awaitable[None]]


class Connection(Writer):
    """A client, and the `Wire` of the request that is being handled."""

    def __init__(
        self,
        stream: SocketChannel | trio.abc.HalfCloseableStream,
        client: str,
        settings: ServerSettings,
        handler: Handler,
    ) -> None:
        super().__init__(stream, client, settings)
        self.exchange: Exchange | None = None
        """What is being handled, which may outlast its client."""
        self.deadline = inf
        """When this connection is closed if no request has come; set whenever it begins to idle."""
        self._handler = handler
        self._parser = RequestParser(settings.max_body)
        self._pending = b""
        self._failure: ApiError | None = None
        self._handler_task: trio.lowlevel.Task | None = None
        """Set while the handling task waits for more to arrive."""
        self._room = trio.Event()
        """Set while not too much was sent ahead."""
        self._room.set()
        self._scope = trio.CancelScope()
        self._lingering = False

    async def run(self) -> None:
        """Serve until either side is done. Whatever goes wrong stays in here."""
        try:
            if isinstance(self._stream, SocketChannel) and self._stream.listen(self._arrive):
                with self._scope:
                    await self._serve_all()
            else:
                async with trio.open_nursery() as nursery:
                    self._scope = nursery.cancel_scope
                    nursery.start_soon(self._read)
                    await self._serve_all()
                    nursery.cancel_scope.cancel()
        except Exception:
            log.exception("a connection ended by an error of its own")
        finally:
            await self._stream.aclose()

    async def _serve_all(self) -> None:
        await self._serve()
        await self._linger()

    def sweep(self, now: float) -> float:
        """Close the connection if it has idled too long; keep a silent stream alive.

        Says when to look again. It may idle, or answer with a stream, right after this look.
        """
        if self._request is not None or self._parser.requests:
            self.keep_alive()
            soon = 0.0 if self.draining else self._settings.keep_alive_timeout
            return now + min(LOOK_SECONDS, soon)
        if self.draining or now >= self.deadline:
            self._time_out()
        return min(self.deadline, now + LOOK_SECONDS)

    def _time_out(self) -> None:
        if self._parser.in_head and not self.draining:
            self._fail(_timed_out("The head of the request did not arrive in time."))
        else:
            self._scope.cancel()

    def cut_off(self) -> None:
        """End the connection now; what runs on it counts as stopped."""
        self._scope.cancel()

    # What arrives.

    async def _read(self) -> None:
        """The reading task, over a stream that cannot call."""
        while self.cut != "gone":
            await self._room.wait()
            try:
                data = await self._stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._arrive(bytes(data))

    def _arrive(self, data: bytes) -> None:
        if not data:
            self._leave()
            return
        self._take(data)
        if len(self._pending) > MAX_PIPELINED:
            self._room = trio.Event()
            if isinstance(self._stream, SocketChannel):
                self._stream.listen(None)

    def _leave(self) -> None:
        """The client has left: end what runs here, or give it some time yet."""
        self.cut = "gone"
        exchange = self.exchange
        if exchange is None or not exchange.patience:
            self._scope.cancel()
        else:
            exchange.client_left = True
            self._scope.deadline = trio.current_time() + exchange.patience

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
            self._failure = self._failure or refusal
        self._wake()

    def _fail(self, failure: ApiError) -> None:
        self._failure = self._failure or failure
        self._wake()

    def _wake(self) -> None:
        if (task := self._handler_task) is not None:
            self._handler_task = None
            trio.lowlevel.reschedule(task)

    def _take_pending(self) -> None:
        """Feed what the client sent ahead, and let it send on."""
        pending, self._pending = self._pending, b""
        if not self._room.is_set():
            self._room.set()
            if isinstance(self._stream, SocketChannel):
                self._stream.listen(self._arrive)
        if pending:
            self._feed(pending)

    async def _wait_arrival(self) -> None:
        """Until something has arrived. Whoever waits here has found that nothing has so far."""
        self._handler_task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_wait)

    def _abort_wait(self, _: object) -> trio.lowlevel.Abort:
        self._handler_task = None
        return trio.lowlevel.Abort.SUCCEEDED

    # The handling task.

    async def _serve(self) -> None:
        while (request := await self._next_request()) is not None:
            self._request = request
            await self._handler(request, self)
            if not (request.keep_alive and request.complete):
                return
            self._request = None
            if self._pending:
                self._take_pending()

    async def _next_request(self) -> Incoming | None:
        self.deadline = trio.current_time() + self._settings.keep_alive_timeout
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

    async def _linger(self) -> None:
        """End our side first and take what is still coming, so that no reset eats the reply."""
        self._lingering = True
        with trio.move_on_after(self._settings.write_timeout) as patience:
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                return
        if patience.cancelled_caught:
            return  # a client that takes nothing any more
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


def _timed_out(message: str) -> ApiError:
    return Refused(408, "request_timeout", message)
