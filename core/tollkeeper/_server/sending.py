"""The innermost `send`: one attempt at one deployment, judged before anyone sees its reply.

Whatever is wrong with a reply shows here, while another attempt can still be made: an error
status, a 200 that carries an error, a body that is not JSON, a stream that ends or fails before its
first event.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tollkeeper._server.mapping import read_error
from tollkeeper._server.sse import DONE, Splitter, data_of, split_events
from tollkeeper.errors import ApiError, UpstreamError
from tollkeeper.exchange import Attempt, Exchange, Reply
from tollkeeper.gateway import Clock, Provider
from tollkeeper.jsonspan import find_value

if TYPE_CHECKING:
    from tollkeeper._server.pipeline import Pipeline


class _Envelope(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw(b"null")
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
_decode_envelope = msgspec.json.Decoder(_Envelope).decode


class Sender:
    """Makes attempts. Its `pipeline` is set once, right after the pipeline is built around it."""

    pipeline: "Pipeline"

    def __init__(self, providers: Mapping[str, Provider], clock: Clock) -> None:
        self._providers = providers
        self._clock = clock

    async def send(self, exchange: Exchange) -> Reply:
        """Try `exchange.deployment`. Raises `UpstreamError` unless the reply is usable."""
        deployment = exchange.deployment
        if deployment is None:
            raise RuntimeError("send was called before a deployment was chosen")
        number = len(exchange.attempts) + 1
        attempt = Attempt(deployment, number, self._clock.monotonic())
        exchange.attempts.append(attempt)
        try:
            await self.pipeline.attempt(exchange, attempt)
            reply = await self._providers[deployment.provider].send(exchange, attempt)
            exchange.replies.append(reply)
            attempt.status = reply.status
            return await _judged(reply, attempt)
        except (UpstreamError, ApiError) as error:
            attempt.error = error
            raise


async def _judged(reply: Reply, attempt: Attempt) -> Reply:
    if reply.status >= 400:
        raise _bad_status(reply, await _error_body(reply))
    if reply.status != 200:
        raise UpstreamError("broken", f"the upstream answered with status {reply.status}")
    if is_stream(reply):
        return await _begun_stream(reply)
    return await _whole_body(reply, attempt)


async def _error_body(reply: Reply) -> bytes:
    """The body of an error, as far as it comes: the status says most of it."""
    try:
        return await reply.read()
    except UpstreamError:
        return b""


def is_stream(reply: Reply) -> bool:
    """Whether a reply streams, by what it says of itself."""
    return reply.headers.get("content-type", "").lower().startswith("text/event-stream")


def _bad_status(reply: Reply, body: bytes, status: int = 0) -> UpstreamError:
    status = status or reply.status
    message = f"the upstream answered with status {status}"
    return UpstreamError("status", message, status=status, headers=reply.headers, body=body)


async def _whole_body(reply: Reply, attempt: Attempt) -> Reply:
    body = await reply.read()
    try:
        envelope = _decode_envelope(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamError("broken", f"the reply is not a JSON object: {error}") from None
    if bytes(envelope.error) != b"null":
        raise _bad_status(reply, body, _status_within(body))
    if (usage := bytes(envelope.usage)) != b"null":
        attempt.usage_data = usage
    return BegunReply(reply, body)


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


async def _begun_stream(reply: Reply) -> Reply:
    """The reply once its first event with data is here and is no error."""
    splitter, head = Splitter(), b""
    while chunk := await reply.chunk():
        head += chunk
        for event in split_events(splitter.feed(chunk)):
            data = data_of(event)
            if data is None:
                continue
            if (error := error_in(data)) is not None:
                raise _bad_status(reply, error, _status_within(error))
            if data != DONE:
                return BegunReply(reply, head)
    raise UpstreamError("broken", "the stream ended before its first event")


def error_in(data: bytes) -> bytes | None:
    """The event data itself where it carries a top-level error."""
    if b'"error"' not in data:
        return None
    span = find_value(data, b"error")
    return None if span is None or data[span[0] : span[1]] == b"null" else data


class BegunReply:
    """A reply of which some body was read ahead."""

    def __init__(self, reply: Reply, ahead: bytes) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply
        self._ahead = ahead

    @property
    def closed(self) -> bool:
        """Whether nothing is left to give up."""
        return self._reply.closed

    async def chunk(self) -> bytes:
        """What was read ahead, then the rest."""
        ahead, self._ahead = self._ahead, b""
        return ahead or await self._reply.chunk()

    async def read(self) -> bytes:
        """The whole body."""
        ahead, self._ahead = self._ahead, b""
        return ahead + await self._reply.read()

    async def aclose(self) -> None:
        """Give the connection up."""
        await self._reply.aclose()
