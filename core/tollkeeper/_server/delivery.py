"""The reply on its way to the client: its head, what passes, and the end only once all is settled.

Knows neither sockets nor Quart: a `Wire` is how it reads the body and writes the reply.
"""

import contextlib
from collections.abc import Callable
from typing import Protocol

import trio

from tollkeeper._server.pipeline import Pipeline, Taps
from tollkeeper._server.relay import StreamRelay, alias_of
from tollkeeper._server.sending import is_json, is_stream
from tollkeeper.dialect import Dialect, StreamReader
from tollkeeper.errors import UpstreamError
from tollkeeper.exchange import (
    Answer,
    Event,
    Exchange,
    Head,
    Outcome,
    OutcomeKind,
    Reply,
)

END_SECONDS = 0.1
MAX_DROPPED = 1000
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
COMPLETED = Outcome("completed", 200)


class ClientGone(Exception):
    """The client left, or takes nothing any more."""


class Wire(Protocol):
    """The client's side of one exchange. Writing methods raise `ClientGone`."""

    cut: OutcomeKind
    """`gone` once the client has left; what a cancellation means then, and otherwise."""

    async def read_body(self) -> bytes:
        """The whole request body; raises `Refused` with 400, 408 or 413."""

    async def send(self, head: Head, body: bytes) -> None:
        """A whole reply, in one write."""

    async def begin(self, head: Head, data: bytes) -> None:
        """The head of a stream with its first bytes, in one write."""

    async def write(self, data: bytes) -> None:
        """More of the stream."""

    async def end(self, data: bytes) -> None:
        """The last bytes of the stream with what ends it, in one write."""


class Delivery:
    """One exchange's reply, without its settlement: whoever handles the exchange adds that.

    A base and no part of the handler, for two objects that know each other would be a cycle, left
    to the garbage collector with every call.
    """

    def __init__(self, exchange: Exchange, wire: Wire, pipeline: Pipeline) -> None:
        self.exchange = exchange
        self.wire = wire
        self.pipeline = pipeline
        self.status = 0
        """What the client was told; 0 before that."""
        self.streaming = False
        self.opaque = False
        """Whether what streams has no place for an error inside it."""
        self.reader: StreamReader | None = None
        self._write_now: Callable[[bytes], bytes | None] | None = getattr(wire, "write_now", None)
        """Writes more of the stream as far as it can without waiting: what `write` has to."""

    def settle(self, outcome: Outcome) -> None:
        """Called before the client can know that the reply is over."""
        raise NotImplementedError

    def head(self, status: int, headers: dict[str, str]) -> Head:
        """The head of the reply, with what plugins add."""
        exchange = self.exchange
        self.status = status
        head = Head(status, headers)
        headers["x-request-id"] = exchange.id
        if exchange.attempts and (dropped := exchange.attempts[-1].dropped):
            headers["x-tollkeeper-dropped"] = _printable(", ".join(dropped))
        self.pipeline.reply(exchange, head)
        return head

    async def deliver(self, answer: Answer) -> None:
        """A reply that was made here."""
        body = self._tapped(answer.body)
        head = self.head(answer.status, {"content-type": answer.content_type})
        self.settle(Outcome("completed", answer.status))
        await self.wire.send(head, body)

    async def relay(self, reply: Reply) -> None:
        """An upstream's reply."""
        dialect = self.exchange.operation.dialect
        if dialect is None:
            raise RuntimeError("an operation without a dialect has no upstream")
        if (whole := getattr(reply, "whole", None)) is not None:
            await self._relay_body(whole, dialect)
        elif is_stream(reply):
            await self._relay_stream(reply, dialect)
        elif dialect.json_only or is_json(reply):
            await self._relay_body(await reply.read(), dialect)
        else:
            await self._relay_opaque(reply)

    async def _relay_body(self, body: bytes, dialect: Dialect) -> None:
        alias = alias_of(self.exchange)
        body = dialect.render(self.exchange, body if alias is None else dialect.rename(body, alias))
        body = self._tapped(body)
        head = self.head(200, {"content-type": "application/json"})
        self.settle(COMPLETED)
        await self.wire.send(head, body)

    def _taps(self) -> Taps | None:
        return self.pipeline.taps(self.exchange) if self.pipeline.has_taps else None

    def _tapped(self, body: bytes) -> bytes:
        if (taps := self._taps()) is None:
            return body
        events = [*taps.feed(Event(body, body)), *taps.finish()]
        return b"".join(event.data for event in events)

    async def _relay_stream(self, reply: Reply, dialect: Dialect) -> None:
        exchange = self.exchange
        self.reader = dialect.reader(alias_of(exchange), wants_usage=exchange.wants_usage)
        relay = StreamRelay(dialect, self.reader, self._taps(), exchange.answers)
        try:
            while not relay.ended:
                if (data := await self._next(reply, relay)) is not None:
                    await self._write(data, STREAM_HEADERS)
                if relay.failure is not None:
                    raise relay.failure
        except ClientGone:
            await self._drain(reply, relay)
            raise
        await self.finish(relay.tail, COMPLETED)
        await read_to_end(reply)

    async def _next(self, reply: Reply, relay: StreamRelay) -> bytes | None:
        """What the client gets next and is to be waited for; what it takes at once is written.

        A stream that is under way is pushed through where both sides can. This task sleeps then:
        to wake one of thousands of tasks costs more than what is done with an event.
        """
        write_now, pour = self._write_now, getattr(reply, "pour", None)
        if not self.streaming or write_now is None or pour is None:
            return self._feed(relay, await reply.chunk()) or None
        rest: bytes | None = None

        def sink(chunk: bytes) -> bool:
            nonlocal rest
            data = self._feed(relay, chunk)
            rest = write_now(data) if data else None
            return rest is None and not relay.ended and relay.failure is None

        await pour(sink)
        return rest

    def _feed(self, relay: StreamRelay, chunk: bytes) -> bytes:
        """What the client gets of a part of the stream, `b""` for its end."""
        data = relay.feed(chunk) if chunk else relay.close()
        attempt = self.exchange.attempts[-1]
        attempt.answered, attempt.seen_tokens = True, relay.seen_tokens
        return data

    async def _drain(self, reply: Reply, relay: StreamRelay) -> None:
        """Read on for the usage that stands at the end, as long as that is worth it."""
        exchange, attempt = self.exchange, self.exchange.attempts[-1]
        exchange.client_left = True
        most = attempt.drain_tokens
        until = None if most is None else attempt.seen_tokens + most
        with trio.move_on_after(exchange.patience):
            while not relay.ended and (until is None or attempt.seen_tokens <= until):
                self._feed(relay, await reply.chunk())
                if relay.failure is not None:
                    raise relay.failure

    async def _relay_opaque(self, reply: Reply) -> None:
        """What is neither JSON nor events, such as sound: part by part, as it comes."""
        self.opaque = True
        headers = {"content-type": reply.headers.get("content-type", "application/octet-stream")}
        while chunk := await reply.chunk():
            self.exchange.attempts[-1].answered = True
            await self._write(chunk, headers)
        if not self.streaming:
            await self._write(b"", headers)
        await self.finish(b"", COMPLETED)

    async def _write(self, data: bytes, headers: dict[str, str]) -> None:
        if self.streaming:
            await self.wire.write(data)
        else:
            head = self.head(200, dict(headers))
            self.streaming = True
            await self.wire.begin(head, data)

    async def finish(self, tail: bytes, outcome: Outcome) -> None:
        """Settle, then send what tells the client that the stream is over."""
        if not self.streaming:
            await self._write(b"", STREAM_HEADERS)
        self.settle(outcome)
        await self.wire.end(tail)


def _printable(text: str) -> str:
    """Names that a client may have made up, fit for a header."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:MAX_DROPPED])


async def read_to_end(reply: Reply) -> None:
    """Give the upstream a moment to end its reply too, so that its connection can be kept."""
    if not reply.closed:
        with trio.move_on_after(END_SECONDS), contextlib.suppress(UpstreamError):
            await reply.chunk()
