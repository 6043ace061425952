"""The story of a call: from an exchange to its last byte, and its settlement before that.

Knows neither sockets nor Quart: a `Wire` is how it reads the body and writes the reply.
"""

import contextlib
import logging
from typing import Protocol

import trio

from tollkeeper._server.failures import answer_for, log_failure, unauthenticated
from tollkeeper._server.pipeline import Pipeline, Taps
from tollkeeper._server.relay import StreamRelay, alias_of, rename_model
from tollkeeper._server.sending import is_stream
from tollkeeper.errors import (
    ApiError,
    Refused,
    UpstreamError,
    model_not_found,
)
from tollkeeper.exchange import (
    Answer,
    Attempt,
    Deployment,
    Dialect,
    Event,
    Exchange,
    Head,
    Outcome,
    OutcomeKind,
    Reply,
    Usage,
)

log = logging.getLogger("tollkeeper")

END_SECONDS = 0.1
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class ClientGone(Exception):
    """The client left, or takes nothing any more."""


class Wire(Protocol):
    """The client's side of one exchange. Writing methods raise `ClientGone`."""

    cut: OutcomeKind
    """Why the exchange was cancelled, where it was: `gone` or `stopped`."""

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


class Backstage(Protocol):
    """What dispatch needs to know of the plugin set that an exchange began with."""

    pipeline: Pipeline

    def deployments_of(self, model: str) -> tuple[Deployment, ...]:
        """The configured deployments of a model, none for an unknown one."""

    def secret_of(self, provider: str) -> str:
        """Our credential there, to blot it out of echoed errors; empty without one."""


async def handle(exchange: Exchange, wire: Wire, backstage: Backstage) -> None:
    """Run one exchange through every stage. Settles it exactly once, whatever happens."""
    call = _Call(exchange, wire, backstage)
    try:
        await call.answer()
    except ClientGone:
        call.settle(Outcome("gone", call.status))
    except Exception as error:
        await call.fail(error)
    finally:
        # Here after a cancellation, or when the client left while it was told of an error.
        call.settle(Outcome(wire.cut, call.status))
        await call.close_replies()


class _Call:
    """One exchange being handled."""

    def __init__(self, exchange: Exchange, wire: Wire, backstage: Backstage) -> None:
        self.exchange = exchange
        self.wire = wire
        self.backstage = backstage
        self.pipeline = backstage.pipeline
        self.status = 0
        self.streaming = False
        self.settled = False

    async def answer(self) -> None:
        """The stages in order."""
        exchange, pipeline = self.exchange, self.pipeline
        if pipeline.has_authentication:
            principal = await pipeline.authenticate(exchange)
            if principal is None:
                raise unauthenticated(exchange)
            exchange.principal = principal
        await self._read()
        await pipeline.admit(exchange)
        if await pipeline.transform_request(exchange):
            self._peek()
        answer = await pipeline.respond(exchange)
        if answer is None and exchange.operation.answer is not None:
            answer = exchange.operation.answer(exchange)
        if answer is not None:
            await self._answer_here(answer)
            return
        await self._choose_deployments()
        reply = await pipeline.send(exchange)
        exchange.replies.append(reply)  # a wrapper's own is closed too
        await self._relay(reply)

    async def _read(self) -> None:
        exchange = self.exchange
        exchange.body = await self.wire.read_body()
        self._peek()

    def _peek(self) -> None:
        exchange = self.exchange
        if (dialect := exchange.operation.dialect) is not None:
            exchange.model, exchange.stream, exchange.wants_usage = dialect.peek(exchange.body)
            exchange.candidates = self.backstage.deployments_of(exchange.model)

    async def _choose_deployments(self) -> None:
        exchange = self.exchange
        exchange.deployments = await self.pipeline.route(exchange)
        if not exchange.deployments:
            raise model_not_found(exchange.model)
        exchange.deployment = exchange.deployments[0]

    async def _answer_here(self, answer: Answer) -> None:
        body = self._tapped(answer.body)
        head = self._head(answer.status, {"content-type": answer.content_type})
        self.settle(Outcome("completed", answer.status))
        await self.wire.send(head, body)

    async def _relay(self, reply: Reply) -> None:
        if is_stream(reply):
            await self._relay_stream(reply)
            return
        body = self._tapped(rename_model(await reply.read(), alias_of(self.exchange)))
        head = self._head(200, {"content-type": "application/json"})
        self.settle(Outcome("completed", 200))
        await self.wire.send(head, body)

    def _taps(self) -> Taps | None:
        return self.pipeline.taps(self.exchange) if self.pipeline.has_taps else None

    def _tapped(self, body: bytes) -> bytes:
        if (taps := self._taps()) is None:
            return body
        events = [*taps.feed(Event(body, body)), *taps.finish()]
        return b"".join(event.data for event in events)

    async def _relay_stream(self, reply: Reply) -> None:
        exchange = self.exchange
        relay = StreamRelay(
            attempt=exchange.attempts[-1] if exchange.attempts else _no_attempt(exchange),
            alias=alias_of(exchange),
            wants_usage=exchange.wants_usage,
            taps=self._taps(),
        )
        while not relay.ended:
            chunk = await reply.chunk()
            data = relay.feed(chunk) if chunk else b""
            if not chunk:
                relay.close()
            if data:
                await self._write(data)
            if relay.failure is not None:
                raise relay.failure
        await self._finish(relay.tail, Outcome("completed", 200))
        await read_to_end(reply)

    async def _write(self, data: bytes) -> None:
        if self.streaming:
            await self.wire.write(data)
        else:
            head = self._head(200, dict(STREAM_HEADERS))
            self.streaming = True
            await self.wire.begin(head, data)

    async def _finish(self, tail: bytes, outcome: Outcome) -> None:
        """Settle, then send what tells the client that the stream is over."""
        if not self.streaming:
            await self._write(b"")
        self.settle(outcome)
        await self.wire.end(tail)

    def _head(self, status: int, headers: dict[str, str]) -> Head:
        self.status = status
        head = Head(status, headers)
        head.headers["x-request-id"] = self.exchange.id
        self.pipeline.reply(self.exchange, head)
        return head

    async def fail(self, error: Exception) -> None:
        """Tell the client what went wrong, as HTTP while that is possible, in the stream after."""
        answer = self._as_answer(error)
        kind: OutcomeKind = "refused" if isinstance(answer, Refused) else "failed"
        log_failure(self.exchange, answer, error)
        if self.settled:
            raise ClientGone  # only writing can have failed: end the connection
        try:
            if self.streaming:
                dialect = self.exchange.operation.dialect
                tail = dialect.error_event(answer) if dialect else b""
                await self._finish(tail, Outcome(kind, 200, answer))
                return
            headers = {"content-type": "application/json", **answer.headers}
            head = self._head(answer.status, headers)
            self.settle(Outcome(kind, answer.status, answer))
            await self.wire.send(head, answer.body())
        except ClientGone:
            return  # settled in the caller's `finally` if not here

    def _as_answer(self, error: Exception) -> ApiError:
        deployment = self.exchange.deployment
        return answer_for(
            error, self.backstage.secret_of(deployment.provider) if deployment else ""
        )

    def settle(self, outcome: Outcome) -> None:
        """Measure each attempt and let every plugin settle; at most once."""
        if self.settled:
            return
        self.settled = True
        exchange = self.exchange
        exchange.outcome = outcome
        for attempt in exchange.attempts:
            usage = self.pipeline.measure(exchange, attempt)
            dialect = exchange.operation.dialect
            if usage is None and dialect is not None and attempt.usage_data:
                usage = self._usage_of(dialect, attempt.usage_data)
            attempt.usage = usage
        self.pipeline.settle(exchange)

    def _usage_of(self, dialect: Dialect, data: bytes) -> Usage | None:
        try:
            return dialect.usage(data)
        except Exception:
            log.exception("the dialect %s crashed on a usage object", dialect.name)
            return None

    async def close_replies(self) -> None:
        """Give every connection up, also under cancellation."""
        for reply in self.exchange.replies:
            if not reply.closed:
                with trio.CancelScope(shield=True):
                    await reply.aclose()


def _no_attempt(exchange: Exchange) -> Attempt:
    """What takes the usage of a reply that a `wrap_send` made without an upstream."""
    return Attempt(exchange.deployments[0], 0, 0.0)


async def read_to_end(reply: Reply) -> None:
    """Give the upstream a moment to end its reply too, so that its connection can be kept."""
    if not reply.closed:
        with trio.move_on_after(END_SECONDS), contextlib.suppress(UpstreamError):
            await reply.chunk()
