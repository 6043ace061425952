"""The dialect of Anthropic's Messages API: how its bodies are read and written.

Source: Anthropic's Messages API and its table of errors. A client of any version is served: what
version 2026-10-21 refuses is left to the provider.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from tollkeeper import (
    ApiError,
    Asked,
    Dialect,
    Exchange,
    StreamReader,
    Translation,
    Usage,
    bound_of,
    invalid_request,
)
from tollkeeper.jsongate import Once, check_shape, decode_request
from tollkeeper_messages.reply import BAD_JSON
from tollkeeper_messages.request import chat_body
from tollkeeper_messages.stream import MessagesReader, MessagesTranslation

_ONCE = Once("model", "stream", "max_tokens")

_ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

MAX_TOKENS = 10**12
"""No honest usage counts more; a larger number is not believed."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]


class _Request(msgspec.Struct):
    model: str | None = None
    messages: msgspec.Raw = msgspec.Raw(b"")
    stream: bool | None = None
    max_tokens: int | None = None


_REQUEST = msgspec.json.Decoder(_Request)


class _OutputDetails(msgspec.Struct):
    thinking_tokens: _Count | None = None


class _Tokens(msgspec.Struct):
    input_tokens: _Count
    output_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    output_tokens_details: _OutputDetails | None = None


class _Kind(msgspec.Struct):
    type: str = ""


_decode_tokens = msgspec.json.Decoder(_Tokens).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode


class MessagesDialect(Dialect):
    """`/v1/messages`, with chat for providers that do not speak it."""

    name = "messages"
    bound = "max_tokens"
    chat_names: ClassVar[Mapping[str, str]] = {
        "max_completion_tokens": "max_tokens",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "reasoning_effort": "thinking",
        "response_format": "output_config.format",
        "stop": "stop_sequences",
        "user": "metadata.user_id",
    }

    def peek(self, exchange: Exchange) -> Asked:
        """Model and stream; raises `Refused` for a body that no upstream could take."""
        body = exchange.body
        request = decode_request(body, _REQUEST)
        if not request.model:
            raise invalid_request("The request needs a model.", param="model")
        if not bytes(request.messages).startswith(b"["):
            raise invalid_request("The request needs an array of messages.", param="messages")
        check_shape(body)
        _ONCE.check(body)
        bound = bound_of(request.max_tokens)
        return Asked(request.model, bool(request.stream), max_output=bound)

    def usage(self, data: bytes) -> Usage | None:
        """The tokens in a usage object, where `input_tokens` leaves out what a cache holds.

        None also where all is 0: a message that was a chat says so where its upstream told nothing.
        """
        try:
            told = _decode_tokens(data)
        except BAD_JSON:
            return None
        read, written = told.cache_read_input_tokens or 0, told.cache_creation_input_tokens or 0
        details = told.output_tokens_details or _OutputDetails()
        spent, made = told.input_tokens + read + written, told.output_tokens or 0
        if not spent and not made:
            return None
        return Usage(
            input_tokens=spent,
            output_tokens=made,
            cache_read_tokens=read,
            cache_write_tokens=written,
            reasoning_tokens=details.thinking_tokens or 0,
        )

    def reader(self, alias: bytes | None, *, wants_usage: bool = True) -> StreamReader:
        """What reads one stream of Anthropic's events."""
        return MessagesReader(alias, wants_usage=wants_usage)

    def encode_event(self, data: bytes) -> bytes:
        """An event under the name that its data gives as its type."""
        kind = _kind_of(data)
        name = b"event: %b\n" % kind.encode() if kind.isidentifier() else b""
        return name + super().encode_event(data)

    def error_body(self, error: ApiError) -> bytes:
        """The error in Anthropic's shape."""
        told: dict[str, object] = {"type": error_type(error.status), "message": error.message}
        if error.detail_code is not None:
            told["details"] = {"error_code": error.detail_code}
        return msgspec.json.encode({"type": "error", "error": told})

    def error_event(self, error: ApiError) -> bytes:
        """An error inside a stream; nothing comes behind it."""
        return self.encode_event(self.error_body(error))

    def to_chat(self, exchange: Exchange) -> tuple[bytes, Translation] | None:
        """The chat request that asks for the same. Raises `Refused` for what chat lacks."""
        return chat_body(exchange.body), MessagesTranslation()


class CountDialect(MessagesDialect):
    """`/v1/messages/count_tokens`, which only a provider of this dialect can answer."""

    def peek(self, exchange: Exchange) -> Asked:
        """The model; a count never streams."""
        return super().peek(exchange)._replace(stream=False)

    def to_chat(self, exchange: Exchange) -> tuple[bytes, Translation] | None:
        """Nothing: chat counts no tokens."""
        return None


def _kind_of(data: bytes) -> str:
    try:
        return _decode_kind(data).type
    except BAD_JSON:
        return ""


def error_type(status: int) -> str:
    """Anthropic's word for an error with this status."""
    return _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
