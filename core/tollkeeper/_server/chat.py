"""The OpenAI chat dialect: how bodies of `/v1/chat/completions` are read and written."""

import re
from collections import Counter

import msgspec

from tollkeeper._server.sse import DONE_EVENT, make_event
from tollkeeper.errors import ApiError, invalid_request
from tollkeeper.exchange import Operation, Usage
from tollkeeper.jsonspan import members

MAX_TOKENS = 10**12
"""No honest usage object counts more; a larger number is not believed."""


class _Request(msgspec.Struct):
    """The part of a request that the gateway needs; the rest is checked for syntax only."""

    model: str | None = None
    messages: msgspec.Raw = msgspec.Raw(b"")
    stream: bool | None = None
    stream_options: dict[str, msgspec.Raw] | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_ACTED_ON = (b'"model"', b'"stream"', b'"stream_options"')
_ESCAPED = re.compile(rb"\\u00[5-7]")
"""An escaped ASCII letter or underscore: no encoder writes one, but it may hide a key."""

_decode_request = msgspec.json.Decoder(_Request).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def _decode(body: bytes) -> _Request:
    try:
        return _decode_request(body)
    except msgspec.ValidationError as error:
        # "Expected `str | null`, got `int` - at `$.model`"
        text, _, place = str(error).partition(" - at `$.")
        param = place.rstrip("`").partition(".")[0].partition("[")[0] or None
        raise invalid_request(f"Invalid body: {text}.", param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid_request(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise invalid_request("The body is nested too deeply.") from None


def _decode_key(key: bytes) -> str:
    try:
        return msgspec.json.decode(b'"' + key + b'"', type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise invalid_request("A key of the body is not valid JSON.") from None


def _refuse_twins(body: bytes) -> None:
    """Refuse a key that stands twice: the upstream may take the other one than we did.

    Cheap for honest bodies: the keys are only walked where one of them may stand twice.
    """
    model, stream, options = _ACTED_ON
    seen_twice = body.count(model) > 1 or body.count(stream) > 1 or body.count(options) > 1
    if not seen_twice and not _ESCAPED.search(body):
        return
    names = Counter(_decode_key(key) for key, _, _ in members(body))
    for quoted in _ACTED_ON:
        name = quoted.decode().strip('"')
        if names[name] > 1:
            raise invalid_request(f"The key '{name}' stands twice.", param=name)


class ChatDialect:
    """`/v1/chat/completions`, the one canonical form that other dialects translate from and to."""

    name = "openai.chat"

    def peek(self, body: bytes) -> tuple[str, bool, bool]:
        """Model, stream, usage wanted; raises `Refused` for a body that no upstream could take."""
        request = _decode(body)
        if not request.model:
            raise invalid_request("The request needs a model.", param="model")
        if not bytes(request.messages).startswith(b"["):
            raise invalid_request("The request needs an array of messages.", param="messages")
        _refuse_twins(body)
        usage = (request.stream_options or {}).get("include_usage")
        return request.model, bool(request.stream), usage is not None and bytes(usage) == b"true"

    def usage(self, data: bytes) -> Usage | None:
        """Tokens of a usage object; None where a number is missing, negative or absurd."""
        try:
            usage = _decode_usage(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        prompt = usage.prompt_tokens_details or _Details()
        completion = usage.completion_tokens_details or _Details()
        counts = (
            usage.prompt_tokens,
            usage.completion_tokens,
            prompt.cached_tokens or 0,
            prompt.cache_write_tokens or 0,
            completion.reasoning_tokens or 0,
        )
        if any(not 0 <= count <= MAX_TOKENS for count in counts):
            return None
        return Usage(*counts, evidence="provider")

    def error_event(self, error: ApiError) -> bytes:
        """An error event, and the `[DONE]` that ends the stream."""
        return make_event(error.body()) + DONE_EVENT


CHAT = Operation(
    name="chat",
    method="POST",
    path="/v1/chat/completions",
    dialect=ChatDialect(),
    summary="Create a chat completion. Streams server-sent events when `stream` is true.",
)
