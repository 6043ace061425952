"""The story of a call: from an exchange to its last byte, and its settlement before that."""

from typing import Protocol

import trio

from tollkeeper._server.delivery import ClientGone, Delivery, Wire
from tollkeeper._server.failures import answer_for, log_failure, unauthenticated
from tollkeeper._server.pipeline import Pipeline
from tollkeeper._server.sending import not_offered, usage_of
from tollkeeper.dialect import Dialect
from tollkeeper.errors import ApiError, Refused, model_not_found
from tollkeeper.exchange import Deployment, Exchange, Outcome, OutcomeKind


class Backstage(Protocol):
    """What dispatch needs to know of the plugin set that an exchange began with."""

    pipeline: Pipeline

    def deployments_of(self, model: str, dialect: Dialect) -> tuple[Deployment, ...] | None:
        """The deployments of a model that can serve a dialect, None for an unknown model."""

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


class _Call(Delivery):
    """One exchange being handled."""

    def __init__(self, exchange: Exchange, wire: Wire, backstage: Backstage) -> None:
        super().__init__(exchange, wire, backstage.pipeline)
        self.backstage = backstage
        self.settled = False

    async def answer(self) -> None:
        """The stages in order."""
        exchange, pipeline = self.exchange, self.pipeline
        if pipeline.has_authentication:
            principal = await pipeline.authenticate(exchange)
            if principal is None:
                raise unauthenticated(exchange)
            exchange.principal = principal
        exchange.body = await self.wire.read_body()
        self._peek()
        await pipeline.admit(exchange)
        if pipeline.has_transforms and await pipeline.transform_request(exchange):
            self._peek()
        answer = await pipeline.respond(exchange) if pipeline.has_responders else None
        if answer is None and exchange.operation.answer is not None:
            answer = exchange.operation.answer(exchange)
        if answer is not None:
            await self.deliver(answer)
            return
        await self._choose_deployments()
        reply = await pipeline.send(exchange)
        exchange.replies.append(reply)  # a wrapper's own is closed too
        await self.relay(reply)

    def _peek(self) -> None:
        exchange = self.exchange
        if (dialect := exchange.operation.dialect) is not None:
            asked = dialect.peek(exchange)
            exchange.model, exchange.stream, exchange.wants_usage = asked[:3]
            exchange.max_output, exchange.answers = asked[3:]
            exchange.candidates = self.backstage.deployments_of(exchange.model, dialect) or ()

    async def _choose_deployments(self) -> None:
        exchange = self.exchange
        exchange.deployments = await self.pipeline.route(exchange)
        if not exchange.deployments:
            raise self._unserved()
        exchange.deployment = exchange.deployments[0]

    def _unserved(self) -> Refused:
        """Why nothing can be tried: the model is unknown, or cannot do this."""
        exchange = self.exchange
        dialect = exchange.operation.dialect
        known = dialect is not None and self.backstage.deployments_of(exchange.model, dialect)
        if known is None or dialect is None:
            return model_not_found(exchange.model)
        return not_offered(exchange)

    async def fail(self, error: Exception) -> None:
        """Tell the client what went wrong, as HTTP while that is possible, in the stream after."""
        deployment = self.exchange.deployment
        secret = self.backstage.secret_of(deployment.provider) if deployment else ""
        answer = answer_for(error, secret)
        kind: OutcomeKind = "refused" if isinstance(answer, Refused) else "failed"
        log_failure(self.exchange, answer, error)
        if self.settled:
            raise ClientGone  # only writing can have failed: end the connection
        dialect = self.exchange.operation.dialect
        if self.streaming and (self.opaque or dialect is None):
            self.settle(Outcome(kind, self.status, answer))
            raise ClientGone  # a reply that is cut is all that can be shown
        try:
            if self.streaming and dialect is not None:
                await self.finish(dialect.error_event(answer), Outcome(kind, 200, answer))
                return
            head = self.head(answer.status, {"content-type": "application/json", **answer.headers})
            self.settle(Outcome(kind, answer.status, answer))
            await self.wire.send(head, self._error_body(answer))
        except ClientGone:
            return  # settled in the caller's `finally` if not here

    def _error_body(self, answer: ApiError) -> bytes:
        dialect = self.exchange.operation.dialect
        return answer.body() if dialect is None else dialect.error_body(answer)

    def settle(self, outcome: Outcome) -> None:
        """Measure each attempt and let every plugin settle; at most once."""
        if self.settled:
            return
        self.settled = True
        exchange, reader = self.exchange, self.reader
        if outcome.kind == "completed" and self.wire.cut == "gone":
            outcome = Outcome("gone", self.status if self.streaming else 0)
        exchange.outcome = outcome
        dialect = exchange.operation.dialect
        over = reader is not None and (reader.ended or reader.whole)
        if reader is not None and over and reader.usage and dialect is not None:
            last = exchange.attempts[-1]
            last.usage_data, last.usage = reader.usage, usage_of(dialect, reader.usage)
        for attempt in exchange.attempts:
            if (usage := self.pipeline.measure(exchange, attempt)) is not None:
                attempt.usage = usage
        self.pipeline.settle(exchange)

    async def close_replies(self) -> None:
        """Give every connection up, also under cancellation."""
        for reply in self.exchange.replies:
            if not reply.closed:
                with trio.CancelScope(shield=True):
                    await reply.aclose()
