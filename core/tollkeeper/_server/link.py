"""One HTTP/1.1 connection to an upstream: a request out, a reply in, one after the other."""

import contextlib
from collections.abc import Callable
from math import inf

import httptools
import outcome
import trio

from tollkeeper._server.channel import READ_SIZE, SocketChannel
from tollkeeper._server.tls import TlsChannel
from tollkeeper.errors import UpstreamError

MAX_HEAD = 65536
SEND_AHEAD = 65536
"""Request bytes that are written before the reply is looked for; sockets buffer about as much."""
READ_AHEAD = 262144
"""Body bytes that may wait to be taken before the upstream is made to wait."""

Sink = Callable[[bytes], bool]
"""Takes a part of a body; whether it takes the next one too. Does not wait."""
Stream = SocketChannel | TlsChannel | trio.abc.Stream


class Link:
    """A connection. `request`, then `chunk` until `b""`; idle and reusable after that.

    Over a channel that listens, what arrives is parsed as it comes, and whoever waits is woken
    once there is something to act on. Over any other stream the one who waits reads.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.deadline = inf
        """When whoever waits here is to be woken with a timeout; kept by the pool's sweep."""
        self.expired = False
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._sent_before = 0
        self._failure = ""
        self._ended = False
        """Whether the other side ended the connection."""
        self._waiter: trio.lowlevel.Task | None = None
        self._sink: Sink | None = None
        """Takes what arrives in place of whoever waits."""
        self._begin()
        self._done = True  # nothing was asked: whatever comes now is surplus
        self._channel = stream if isinstance(stream, SocketChannel | TlsChannel) else None
        if self._channel is not None and not self._channel.listen(self._arrive):
            self._channel = None

    def _begin(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._paused = False
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
        self._waiting_bytes += len(body)

    def on_message_begin(self) -> None:
        """A second final reply to one request means that the connection is out of step."""
        if self._done:
            raise ValueError("a second reply")  # or it would be taken for a part of the first

    def on_message_complete(self) -> None:
        """The body is whole."""
        if self._head_done and not self._done:
            self._done = True
            self._keep_alive = bool(self._parser.should_keep_alive())

    # Called by the channel.

    def _arrive(self, data: bytes) -> None:
        """Take what has come, `b""` for the end, and wake whoever can go on."""
        if not data:
            self._ended = True
            if self._channel is not None and self._channel.broken and not self._done:
                self._failure = "the connection broke"
        elif self._done:
            self._surplus = True
        else:
            self._parse(data)
        if self._sink is not None:
            self._hand_over(self._sink)
        elif self._waiter is not None and (self._head_done or self._failure or self._ended):
            waiter, self._waiter = self._waiter, None
            trio.lowlevel.reschedule(waiter)
        if self._waiting_bytes > READ_AHEAD and self._channel is not None:
            self._paused = True
            self._channel.listen(None)

    def _hand_over(self, sink: Sink) -> None:
        """Give the sink what has come; wake whoever waits once it takes no more, or at the end."""
        try:
            takes = not self._parts or sink(self.chunk_now())
        except Exception as error:  # noqa: BLE001 -- raised in the task that waits
            self._end_turn(outcome.Error(error))
        else:
            if not takes or self._done or self._ended or self._failure:
                self._end_turn(outcome.Value(takes))

    def _end_turn(self, result: outcome.Outcome[bool]) -> None:
        """The sink's turn is over: wake whoever waits with the result."""
        waiter, self._waiter, self._sink = self._waiter, None, None
        if waiter is not None:
            trio.lowlevel.reschedule(waiter, result)

    def _parse(self, data: bytes) -> None:
        if not self._head_done:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._done:
                self._surplus = True  # the reply itself is whole
            else:
                self._failure = f"the reply is not HTTP: {error}"
        if self._head_size > MAX_HEAD and not self._head_done:
            self._failure = "the head of the reply is too large"

    # Called by the owner.

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the reply is whole, and both sides stay."""
        return (
            self._done
            and self._written
            and not (self._ended or self._failure)
            and (self._channel is None or not self._channel.blocked)
            and self._keep_alive
            and not self._surplus
            and not self._parts
            and ("content-length" in self.headers or "chunked" in self._transfer_encoding)
        )

    @property
    def is_whole(self) -> bool:
        """Whether all of a body is here that was not larger than one read or a few."""
        return self._done and self._waiting_bytes <= READ_AHEAD

    @property
    def _transfer_encoding(self) -> str:
        return self.headers.get("transfer-encoding", "").lower()

    def is_alive(self) -> bool:
        """Whether the idle connection is still quiet."""
        quiet = getattr(self._stream, "is_quiet", False)
        return bool(quiet) and not (self._ended or self._surplus or self._failure)

    @property
    def is_untouched(self) -> bool:
        """Whether not a byte of the last request went out: another connection may take it."""
        return getattr(self._stream, "sent", None) == self._sent_before

    def expire(self) -> None:
        """Wake whoever waits for this connection: its deadline has passed."""
        self.expired = True
        self._stream.shut_down()  # type: ignore[union-attr] # the pool's links are on channels

    async def request(self, data: bytes) -> None:
        """Write a request and read up to the end of the reply's head."""
        self._begin()
        self._sent_before = getattr(self._stream, "sent", -1)
        if (channel := self._channel) is not None:
            try:
                channel.post(data)
                self._written = True
            except trio.BrokenResourceError:
                pass  # a connection that breaks here may still hold a reply: reading tells
            if not (self._head_done or self._ended or self._failure):
                self._waiter = trio.lowlevel.current_task()  # as `_wait` does, a call less deep
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            if self.expired or self._failure or not self._head_done:
                await self._read_head()
        elif len(data) <= SEND_AHEAD:
            await self._write(data)
            await self._read_head()
        else:
            await self._write_and_read(data)

    async def _write_and_read(self, data: bytes) -> None:
        """A server may refuse before it has read everything: read while still writing."""
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
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(data)
            self._written = True

    async def _read_head(self) -> None:
        self._raise_failure()
        while not self._head_done:
            if self._ended and not self.expired and not self._failure:
                raise UpstreamError("broken", "the upstream closed the connection without a reply")
            await self._wait()

    async def _wait(self) -> None:
        """Until there is more to act on. Raises `UpstreamError` for what ends the reply."""
        if not (self._ended or self._failure):
            if self._channel is not None:
                self._waiter = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            else:
                self._arrive(await self._receive())
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self.expired:
            raise UpstreamError("timeout", "the upstream did not answer in time")
        if self._failure:
            raise UpstreamError("broken", self._failure)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._waiter = self._sink = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_SIZE))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._failure = f"the connection broke: {error}"
            return b""

    def chunk_now(self) -> bytes:
        """All body bytes that have arrived; `b""` where one has to wait, or at the end."""
        parts = self._parts
        if not parts:
            return b""
        self._parts, self._waiting_bytes = [], 0
        if self._paused and self._channel is not None:
            self._paused = False
            self._channel.listen(self._arrive)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunk(self) -> bytes:
        """All body bytes that have arrived, at least one; `b""` at the clean end."""
        while not self._parts and not self._done:
            if self._ended and not self.expired and not self._failure:
                if "content-length" in self.headers or "chunked" in self._transfer_encoding:
                    raise UpstreamError("broken", "the upstream closed in the middle of its reply")
                return b""  # a body that only the end of the connection delimits
            await self._wait()
        return self.chunk_now()

    async def pour(self, sink: Sink) -> None:
        """Hand `sink` what `chunk` gives, the `b""` at the end included, until it takes no more.

        Over a channel that listens it is called as things arrive, without a task that wakes for
        it. What it raises is raised here.
        """
        while sink(part := await self.chunk()) and part:
            if self._channel is not None and not await self._pour_on(sink):
                return

    async def _pour_on(self, sink: Sink) -> bool:
        """Until the sink takes no more, which is False, or there is an end to act on."""
        if self._done or self._ended or self._failure:
            return True
        self._sink, self._waiter = sink, trio.lowlevel.current_task()
        return bool(await trio.lowlevel.wait_task_rescheduled(self._abort))

    async def aclose(self) -> None:
        """Close at once; what goes wrong no longer matters."""
        await self._stream.aclose()
