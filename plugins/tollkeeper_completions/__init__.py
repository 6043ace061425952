"""The older completions interface: `POST /v1/completions`, passed on as it is."""

import msgspec

from tollkeeper import (
    ApiError,
    Asked,
    ChunkReader,
    Dialect,
    Exchange,
    Gateway,
    Operation,
    PluginSettings,
    StreamReader,
    hookimpl,
)
from tollkeeper.jsongate import decode_request
from tollkeeper.shapes import (
    BOOLEAN,
    INTEGER,
    NAME,
    OBJECT,
    STRING,
    Shape,
    array,
    nullable,
    obj,
    one_of,
)


class _Request(msgspec.Struct):
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    best_of: int | None = None


_REQUEST = msgspec.json.Decoder(_Request)


class CompletionsDialect(Dialect):
    """Chunks like chat's, with text in place of messages."""

    name = "completions"
    bound = "max_tokens"
    usage_on_request = True

    def peek(self, exchange: Exchange) -> Asked:
        """Model and stream; as many answers as are made, also those that are not sent back."""
        asked = super().peek(exchange)
        told = decode_request(exchange.body, _REQUEST)
        each = max(asked.answers, told.best_of or 1)
        return asked._replace(answers=each * _prompts(bytes(told.prompt)))

    def reader(self, alias: bytes | None, *, wants_usage: bool = True) -> StreamReader:
        """What reads one stream of chunks."""
        return ChunkReader(alias, wants_usage=wants_usage)

    def error_event(self, error: ApiError) -> bytes:
        """An error event, and the `[DONE]` that ends the stream."""
        return super().error_event(error) + ChunkReader.ending


def _prompts(prompt: bytes) -> int:
    """How many texts are to be completed: one, a list of them, or lists of tokens."""
    if not prompt.startswith(b"["):
        return 1
    parts = msgspec.json.decode(prompt)
    return max(1, len(parts)) if parts and not isinstance(parts[0], int) else 1


COMPLETIONS = Operation(
    name="completions",
    method="POST",
    path="/v1/completions",
    dialect=CompletionsDialect(),
    shape=Shape(
        request=obj(
            "model prompt",
            model=NAME,
            prompt={"anyOf": [STRING, array({})]},
            max_tokens=nullable(INTEGER),
            n=nullable(INTEGER),
            best_of=nullable(INTEGER),
            stream=nullable(BOOLEAN),
            stream_options=nullable(OBJECT),
        ),
        reply=obj(
            "id object choices",
            id=STRING,
            object=one_of("text_completion"),
            created=INTEGER,
            model=STRING,
            choices=array(obj("text", text=STRING, index=INTEGER)),
            usage=OBJECT,
        ),
        streams=True,
    ),
    summary="Complete a text. Streams server-sent events when `stream` is true.",
)


class Completions:
    """Guard: it carries the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the operation."""
        gateway.add_operation(COMPLETIONS)
