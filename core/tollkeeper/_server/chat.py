"""The OpenAI chat dialect: how bodies of `/v1/chat/completions` are read and written."""

import msgspec

from tollkeeper.chunks import ChunkReader
from tollkeeper.dialect import Asked, Dialect, StreamReader, bound_of
from tollkeeper.errors import ApiError, invalid_request
from tollkeeper.exchange import Exchange, Operation
from tollkeeper.jsongate import Once, check_shape, decode_request
from tollkeeper.shapes import (
    BOOLEAN,
    COUNT,
    INTEGER,
    NAME,
    NULL,
    OBJECT,
    STRING,
    Shape,
    array,
    nullable,
    obj,
    one_of,
)
from tollkeeper.sse import DONE_EVENT, make_event

_ONCE = Once("model", "stream", "stream_options", "max_completion_tokens", "max_tokens", "n")
"""What is typed, and may stand once: what bounds the cost of a request too."""


class _Request(msgspec.Struct):
    """The part of a request that the gateway needs; the rest is checked for syntax only."""

    model: str | None = None
    messages: msgspec.Raw = msgspec.Raw(b"")
    stream: bool | None = None
    stream_options: dict[str, msgspec.Raw] | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n: int | None = None


_REQUEST = msgspec.json.Decoder(_Request)


class ChatDialect(Dialect):
    """`/v1/chat/completions`, the one canonical form that other dialects translate from and to."""

    name = "chat"
    bound = "max_completion_tokens"

    def peek(self, exchange: Exchange) -> Asked:
        """Model, stream, usage wanted; raises `Refused` for a body that no upstream could take."""
        body = exchange.body
        request = decode_request(body, _REQUEST)
        if not request.model:
            raise invalid_request("The request needs a model.", param="model")
        if not bytes(request.messages).startswith(b"["):
            raise invalid_request("The request needs an array of messages.", param="messages")
        check_shape(body)
        _ONCE.check(body)
        usage = (request.stream_options or {}).get("include_usage")
        wants_usage = usage is not None and bytes(usage) == b"true"
        bound = bound_of(request.max_completion_tokens, request.max_tokens)
        return Asked(
            request.model, bool(request.stream), wants_usage, bound, max(1, request.n or 1)
        )

    def reader(self, alias: bytes | None, *, wants_usage: bool = True) -> StreamReader:
        """What reads one stream of chunks."""
        return ChunkReader(alias, wants_usage=wants_usage)

    def error_event(self, error: ApiError) -> bytes:
        """An error event, and the `[DONE]` that ends the stream."""
        return make_event(error.body()) + DONE_EVENT


CHAT_DIALECT = ChatDialect()
CHAT = Operation(
    name="chat",
    method="POST",
    path="/v1/chat/completions",
    dialect=CHAT_DIALECT,
    shape=Shape(
        request=obj(
            "model messages",
            model=NAME,
            messages=array(
                obj("role", role=STRING, content={"anyOf": [STRING, array(OBJECT), NULL]})
            ),
            stream=nullable(BOOLEAN),
            stream_options=nullable(obj("", include_usage=nullable(BOOLEAN))),
            max_completion_tokens=nullable(INTEGER),
            max_tokens=nullable(INTEGER),
            n=nullable(INTEGER),
            temperature=nullable({"type": "number"}),
            top_p=nullable({"type": "number"}),
            stop=nullable({"anyOf": [STRING, array(STRING)]}),
            tools=array(OBJECT),
        ),
        reply=obj(
            "id object model choices",
            id=STRING,
            object=one_of("chat.completion"),
            created=INTEGER,
            model=STRING,
            choices=array(
                obj(
                    "index message",
                    index=INTEGER,
                    message=obj("role", role=STRING, content=nullable(STRING)),
                    finish_reason=nullable(STRING),
                )
            ),
            usage=obj("", prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT),
        ),
        streams=True,
    ),
    summary="Create a chat completion. Streams server-sent events when `stream` is true.",
)
