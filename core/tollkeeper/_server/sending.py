"""The innermost `send`: one attempt at one deployment, judged before anyone sees its reply.

Whatever is wrong with a reply shows here, while another attempt can still be made: an error
status, a 200 that carries an error, a body that is not JSON, a stream that ends or fails before its
first event.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from tollkeeper._server.chat import CHAT, CHAT_DIALECT
from tollkeeper._server.link import Sink
from tollkeeper._server.mapping import read_error
from tollkeeper.dialect import Dialect
from tollkeeper.errors import ApiError, Refused, UpstreamError, invalid_request
from tollkeeper.exchange import Attempt, Exchange, Reply, Usage
from tollkeeper.provider import Clock, Provider
from tollkeeper.seen import count_text
from tollkeeper.sse import DONE, Splitter, data_of, split_events
from tollkeeper.translation import Translation, translate_reply

if TYPE_CHECKING:
    from tollkeeper._server.pipeline import Pipeline

log = logging.getLogger("tollkeeper")


class _Envelope(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")


_STATUS_OF = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "server_is_overloaded": 503,
    "overloaded_error": 529,
    "timeout": 504,
    "context_length_exceeded": 400,
    "content_filter": 400,
}
CHAT_ONLY = frozenset({"chat"})
_decode_envelope = msgspec.json.Decoder(_Envelope).decode


class Sender:
    """Makes attempts. Its `pipeline` is set once, right after the pipeline is built around it."""

    pipeline: "Pipeline"

    def __init__(
        self,
        providers: Mapping[str, Provider],
        clock: Clock,
        patience: Mapping[str, float] | None = None,
        healthy: dict[str, bool] | None = None,
    ) -> None:
        self._providers = providers
        self._clock = clock
        self._patience = patience or {}
        """Of each provider: seconds that a reply is read on once its client has left."""
        self._healthy = {} if healthy is None else healthy
        self._native: dict[tuple[str, str], bool] = {}

    def speaks(self, provider: str, dialect: Dialect) -> bool:
        """Whether a provider takes this dialect as it is. One that does not say takes chat."""
        key = (provider, dialect.name)
        if (native := self._native.get(key)) is None:
            speaks = getattr(self._providers.get(provider), "speaks", CHAT_ONLY.__contains__)
            native = self._native[key] = bool(speaks(dialect.name))
        return native

    def serves(self, provider: str, dialect: Dialect) -> bool:
        """Whether a provider takes this dialect as it is or turned into chat."""
        if self.speaks(provider, dialect):
            return True
        translates = type(dialect).to_chat is not Dialect.to_chat
        return translates and self.speaks(provider, CHAT_DIALECT)

    async def send(self, exchange: Exchange) -> Reply:
        """Try `exchange.deployment`. Raises `UpstreamError` unless the reply is usable."""
        deployment, dialect = exchange.deployment, exchange.operation.dialect
        if deployment is None or dialect is None:
            raise RuntimeError("send was called before a deployment was chosen")
        if exchange.client_left:
            raise _nobody_waits()
        number = len(exchange.attempts) + 1
        attempt = Attempt(
            deployment,
            number,
            self._clock.monotonic(),
            operation=exchange.operation,
            body=exchange.body,
        )
        exchange.attempts.append(attempt)
        try:
            reply = await self._try(exchange, attempt, dialect)
        except (UpstreamError, ApiError) as error:
            attempt.error = error
            if isinstance(error, UpstreamError):
                # What a provider says of a request says that it is there.
                self._healthy[deployment.provider] = 0 < error.status < 500 and not error.is_ours
            _clarify(error, dialect)
            raise
        self._healthy[deployment.provider] = True
        return reply

    async def _try(self, exchange: Exchange, attempt: Attempt, dialect: Dialect) -> Reply:
        provider, translation = attempt.deployment.provider, None
        if not self.speaks(provider, dialect):
            translation = _turn_into_chat(exchange, attempt, dialect)
        if self.pipeline.has_attempts:
            await self.pipeline.attempt(exchange, attempt)
            if exchange.client_left:
                raise _nobody_waits()
        exchange.patience = self._patience.get(provider, 0.0)
        reply = await self._providers[provider].send(exchange, attempt)
        if translation is not None:
            reply = translate_reply(reply, translation)
        exchange.replies.append(reply)
        attempt.status = reply.status
        judged = _judged_at_once(reply, attempt, dialect)
        return await _judged(reply, attempt, dialect) if judged is None else judged


def _nobody_waits() -> Refused:
    """What ends an exchange whose client has left before a further try is sent."""
    return invalid_request("The client left.", status=499)


def _clarify(error: UpstreamError | ApiError, dialect: Dialect) -> None:
    """Give an error inside a 200 its status, and a parameter the client's own name for it."""
    if isinstance(error, UpstreamError):
        if error.fault == "status" and error.status < 400:
            error.status = _status_within(error.body)
    elif error.param is not None and (own := dialect.chat_names.get(error.param)) is not None:
        error.message = error.message.replace(f"'{error.param}'", f"'{own}'")
        error.param = own


def not_offered(exchange: Exchange) -> Refused:
    """The refusal where no provider of a model can do what is asked."""
    message = f"The model '{exchange.model}' does not offer {exchange.operation.path}."
    return invalid_request(message, param="model")


def _turn_into_chat(exchange: Exchange, attempt: Attempt, dialect: Dialect) -> Translation:
    turned = dialect.to_chat(exchange)
    if turned is None:
        raise not_offered(exchange)
    attempt.operation = CHAT
    attempt.body, translation = turned
    return translation


def _judged_at_once(reply: Reply, attempt: Attempt, dialect: Dialect) -> Reply | None:
    """The reply where all of it is here already, as it is with most that are whole."""
    read_now = getattr(reply, "read_now", None)
    if read_now is None or reply.status != 200 or is_stream(reply):
        return None
    if not dialect.json_only and not is_json(reply):
        return None
    body = read_now()
    return None if body is None else _whole_body(reply, body, attempt, dialect)


async def _judged(reply: Reply, attempt: Attempt, dialect: Dialect) -> Reply:
    if reply.status >= 400:
        raise _bad_status(reply, await _error_body(reply))
    if reply.status != 200:
        raise UpstreamError("broken", f"the upstream answered with status {reply.status}")
    if is_stream(reply):
        return await _begun_stream(reply, dialect)
    if dialect.json_only or is_json(reply):
        return _whole_body(reply, await reply.read(), attempt, dialect)
    return reply


async def _error_body(reply: Reply) -> bytes:
    """The body of an error, as far as it comes: the status says most of it."""
    try:
        return await reply.read()
    except UpstreamError:
        return b""


def is_stream(reply: Reply) -> bool:
    """Whether a reply streams, by what it says of itself."""
    return reply.headers.get("content-type", "").lower().startswith("text/event-stream")


def is_json(reply: Reply) -> bool:
    """Whether a reply is JSON, by what it says of itself."""
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _bad_status(reply: Reply, body: bytes, status: int = 0) -> UpstreamError:
    status = status or reply.status
    message = f"the upstream answered with status {status}"
    return UpstreamError("status", message, status=status, headers=reply.headers, body=body)


def _whole_body(reply: Reply, body: bytes, attempt: Attempt, dialect: Dialect) -> Reply:
    try:
        envelope = _decode_envelope(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamError("broken", f"the reply is not a JSON object: {error}") from None
    if dialect.error_in(body) is not None:
        raise _bad_status(reply, body, _status_within(body))
    if (usage := bytes(envelope.usage)) != b"null":
        attempt.usage_data = usage
        attempt.usage = usage_of(dialect, usage)
    attempt.answered = True
    if attempt.usage is None:
        attempt.seen_tokens = count_text(body)
    return BegunReply(reply, body, body)


def usage_of(dialect: Dialect, data: bytes) -> Usage | None:
    """The tokens in a provider's usage, None where a dialect does not believe or cannot read it."""
    try:
        return dialect.usage(data)
    except Exception:
        log.exception("the dialect %s crashed on a usage object", dialect.name)
        return None


def _status_within(body: bytes) -> int:
    """The status that an error object sent with a 200 names; 200 when it names none."""
    error = read_error(body)
    for key in ("status", "code", "type"):
        value = error.get(key)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
        if isinstance(value, str) and value in _STATUS_OF:
            return _STATUS_OF[value]
    return 200


async def _begun_stream(reply: Reply, dialect: Dialect) -> Reply:
    """The reply once its first event with data is here and is no error."""
    splitter, head = Splitter(dialect.max_event), b""
    while chunk := await reply.chunk():
        head += chunk
        for event in split_events(splitter.feed(chunk)):
            data = data_of(event)
            if data is None:
                continue
            if (error := dialect.error_in(data)) is not None:
                raise _bad_status(reply, error, _status_within(error))
            if data != DONE:
                return BegunReply(reply, head)
    raise UpstreamError("broken", "the stream ended before its first event")


class BegunReply:
    """A reply of which some body was read ahead."""

    def __init__(self, reply: Reply, ahead: bytes, whole: bytes | None = None) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.whole = whole
        """The whole body of a reply that is JSON; None for any other."""
        self._reply = reply
        self._ahead = ahead

    @property
    def closed(self) -> bool:
        """Whether nothing is left to give up."""
        return self._reply.closed

    async def chunk(self) -> bytes:
        """What was read ahead, then the rest."""
        ahead, self._ahead = self._ahead, b""
        return ahead if ahead or self.whole is not None else await self._reply.chunk()

    @property
    def pour(self) -> Callable[[Sink], Awaitable[None]] | None:
        """The reply's own way to push what comes, if it has one and nothing stands before that."""
        return None if self._ahead else getattr(self._reply, "pour", None)

    async def read(self) -> bytes:
        """The whole body."""
        ahead, self._ahead = self._ahead, b""
        return ahead if self.whole is not None else ahead + await self._reply.read()

    async def aclose(self) -> None:
        """Give the connection up."""
        await self._reply.aclose()
