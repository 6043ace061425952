"""The OpenAI chat dialect: how bodies of `/v1/chat/completions` are read and written."""

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
        if body.count(b'"model"') > 1:
            names = [key for key, _, _ in members(body)]
            if names.count(b"model") > 1:
                raise invalid_request("The key 'model' stands twice.", param="model")
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
