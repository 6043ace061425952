"""How the bodies of an operation are read and written: one class per dialect, with plain defaults.

A dialect is pure: bytes in, bytes out. What passes between two sides of the same dialect keeps its
bytes; a dialect that differs from what a provider speaks is turned into chat, the canonical form,
and the reply back, by `to_chat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import msgspec

from tollkeeper.errors import ApiError, invalid_request
from tollkeeper.exchange import Usage
from tollkeeper.jsongate import Once, check_shape, decode_request
from tollkeeper.jsonspan import find_value, quote, replace_value
from tollkeeper.sse import MAX_EVENT, make_event

if TYPE_CHECKING:
    from tollkeeper.exchange import Exchange
    from tollkeeper.translation import Translation


class Asked(NamedTuple):
    """What the gateway must know of a request before it goes on."""

    model: str
    """The name the client asked for."""
    stream: bool = False
    """Whether it asked for a stream."""
    wants_usage: bool = True
    """Whether it wants to see the usage of its stream."""
    max_output: int | None = None
    """Output tokens that it binds each answer to."""
    answers: int = 1
    """How many answers it asks for."""


def bound_of(*told: int | None) -> int | None:
    """The largest of the bounds that a request tells; 0 and less bind nothing."""
    return max([bound for bound in told if bound is not None and bound > 0], default=None)


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, msgspec.Raw] | None = None
    max_tokens: int | None = None
    n: int | None = None


_REQUEST = msgspec.json.Decoder(_Request)
_ONCE = Once("model", "stream", "stream_options", "max_tokens", "n")


class StreamReader:
    """One stream of a dialect as it passes: what must be seen, changed or left out of it.

    Events in which nothing of `noteworthy` stands go on unseen, as bytes. The reader is given the
    others, and all of them while something taps the stream.
    """

    noteworthy: tuple[bytes, ...] = (b'"error"',)
    frame_events = 6
    """How many events of a stream may hold no token: those that open, close and describe it."""
    ending = b""
    """What is sent for a stream that is `whole` where its last event is missing."""

    def __init__(self, alias: bytes | None = None, *, wants_usage: bool = True) -> None:
        self.alias = alias
        """The model's name to show, as JSON; None where the upstream's own is right."""
        self.wants_usage = wants_usage
        self.ended = False
        """Whether the event that ends a stream of this dialect has been seen."""
        self.usage = b""
        """The provider's usage as one JSON object, once it is whole."""

    def skim(self, events: bytes) -> int:
        """How many bytes of some whole events can go on unseen."""
        found = [at for at in map(events.find, self.noteworthy) if at >= 0]
        return event_start(events, min(found)) if found else len(events)

    def pass_on(self, events: bytes) -> bytes:
        """Events that go on unseen, as they go out."""
        return events

    def event(self, data: bytes) -> bytes | None:
        """What becomes of an event's data: the same, changed, or None where it is left out.

        The event that sets `ended` is held until the exchange has settled.
        """
        return data

    @property
    def whole(self) -> bool:
        """Whether nothing is missing if the upstream ends here, although `ended` is not set."""
        return True


def event_start(events: bytes, position: int) -> int:
    """Where the event begins in which `position` stands; 0 where lines do not end in LF alone."""
    boundary = events.rfind(b"\n\n", 0, position)
    return boundary + 2 if boundary >= 0 else 0


_Count = int | None


class _Details(msgspec.Struct):
    cached_tokens: _Count = None
    cache_write_tokens: _Count = None
    reasoning_tokens: _Count = None


class _Tokens(msgspec.Struct):
    """Usage as OpenAI's interfaces write it, under its older names and its newer ones."""

    total_tokens: _Count = None
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    input_tokens: _Count = None
    output_tokens: _Count = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


MAX_TOKENS = 10**9
"""No honest usage object counts more; a larger number is not believed."""
_decode_tokens = msgspec.json.Decoder(_Tokens).decode


def read_usage(data: bytes) -> Usage | None:
    """OpenAI's usage object; None where the input is missing or a number negative or absurd."""
    try:
        told = _decode_tokens(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    spent = told.prompt_tokens if told.input_tokens is None else told.input_tokens
    spent = told.total_tokens if spent is None else spent
    made = told.completion_tokens if told.output_tokens is None else told.output_tokens
    into = told.prompt_tokens_details or told.input_tokens_details or _NONE
    out = told.completion_tokens_details or told.output_tokens_details or _NONE
    return checked_usage(
        spent,
        made or 0,
        into.cached_tokens or 0,
        into.cache_write_tokens or 0,
        out.reasoning_tokens or 0,
    )


_NONE = _Details()


def checked_usage(
    spent: int | None, made: int, cached: int = 0, written: int = 0, reasoned: int = 0
) -> Usage | None:
    """Usage told by a provider: input, output, cache read, cache write, reasoning."""
    counts = (-1 if spent is None else spent, made, cached, written, reasoned)
    if min(counts) < 0 or max(counts) > MAX_TOKENS:
        return None
    return Usage(*counts, evidence="provider")


class Dialect:
    """JSON in, JSON or server-sent events out, usage under the key "usage". Override the rest."""

    name = "json"
    """How providers know it: `chat`, `messages`, `embeddings` and so on."""
    default_model = ""
    """What a request without a model is for; empty where it is refused."""
    has_output = True
    """Whether replies hold output tokens."""
    bound = ""
    """The field of a request that bounds the output tokens of an answer; empty without one."""
    usage_on_request = False
    """Whether a stream tells its usage only where `stream_options.include_usage` is true."""
    chat_names: ClassVar[Mapping[str, str]] = {}
    """Parameters of chat, with the names that this dialect has for them where they differ."""
    max_event = MAX_EVENT
    """Bytes that a single event of a stream may have."""
    json_only = True
    """Whether a reply that is neither JSON nor a stream is a broken one."""

    def peek(self, exchange: Exchange) -> Asked:
        """Model and stream of the body; raises `Refused` where no upstream could take it."""
        request = decode_request(exchange.body, _REQUEST)
        check_shape(exchange.body)
        _ONCE.check(exchange.body)
        model = request.model or self.default_model
        if not model:
            raise invalid_request("The request needs a model.", param="model")
        usage = (request.stream_options or {}).get("include_usage")
        shown = not self.usage_on_request or (usage is not None and bytes(usage) == b"true")
        bound = bound_of(request.max_tokens)
        return Asked(model, bool(request.stream), shown, bound, max(1, request.n or 1))

    def with_model(self, exchange: Exchange, body: bytes, model: str) -> bytes:
        """The request under the name that the upstream knows."""
        return replace_value(body, b"model", quote(model))

    def with_bound(self, body: bytes, tokens: int) -> bytes:
        """The request with its output bound to so many tokens; as it is without such a field."""
        if not self.bound:
            return body
        if b"\\u00" in body:  # an escape may hide a field of this name
            body = msgspec.json.encode(msgspec.json.decode(body))
        return replace_value(body, self.bound.encode(), b"%d" % tokens)

    def content_type(self, exchange: Exchange) -> str:
        """Of the request body."""
        return "application/json"

    def render(self, exchange: Exchange, body: bytes) -> bytes:
        """A whole reply as the client asked for it."""
        return body

    def rename(self, body: bytes, alias: bytes) -> bytes:
        """A whole reply under the name that the client asked for."""
        return body if find_value(body, b"model") is None else replace_value(body, b"model", alias)

    def usage(self, data: bytes) -> Usage | None:
        """The tokens in a usage object, None where it cannot be trusted."""
        return read_usage(data)

    def error_in(self, data: bytes) -> bytes | None:
        """The error that a reply or an event carries instead of what was asked for."""
        if b'"error"' not in data:
            return None
        span = find_value(data, b"error")
        return None if span is None or data[span[0] : span[1]] == b"null" else data

    def reader(self, alias: bytes | None, *, wants_usage: bool = True) -> StreamReader:
        """What reads one stream of this dialect."""
        return StreamReader(alias, wants_usage=wants_usage)

    def encode_event(self, data: bytes) -> bytes:
        """An event that carries `data`."""
        return make_event(data)

    def error_body(self, error: ApiError) -> bytes:
        """The body of an error reply."""
        return error.body()

    def error_event(self, error: ApiError) -> bytes:
        """An error inside a running stream, with what ends the stream in this dialect."""
        return make_event(error.body())

    def to_chat(self, exchange: Exchange) -> tuple[bytes, Translation] | None:
        """`exchange.body` as a chat request, and what turns chat's reply back; None if impossible.

        Raises `Refused` that names what chat cannot express.
        """
        return None
