"""The operations that clients call, and the dialect of their bodies.

Source: OpenAI's Responses API.
"""

import re
from collections.abc import Mapping
from typing import ClassVar

import msgspec

from tollkeeper import (
    Answer,
    ApiError,
    Asked,
    Clock,
    Dialect,
    Exchange,
    Operation,
    StreamReader,
    Translation,
    bound_of,
    find_value,
    invalid_request,
    replace_value,
)
from tollkeeper.canonical import JsonObject
from tollkeeper.jsongate import Once, check_shape, decode_request
from tollkeeper_responses import shapes
from tollkeeper_responses.models import Kept
from tollkeeper_responses.reply import BAD_JSON, Frame
from tollkeeper_responses.request import read_request
from tollkeeper_responses.stream import ResponsesTranslation

PATH = "/v1/responses"
RETRIEVE = Operation(
    name="responses.retrieve",
    method="GET",
    path=PATH + "/{id}",
    shape=shapes.RETRIEVE,
    summary="Read a kept response, or with /input_items behind its id what it answers.",
)
DELETE = Operation(
    name="responses.delete",
    method="DELETE",
    path=PATH + "/{id}",
    shape=shapes.DELETE,
    summary="Delete a kept response.",
)

_ONCE = Once("model", "input", "stream", "store", "previous_response_id", "max_output_tokens")
_FINAL = frozenset({b'"response.completed"', b'"response.failed"', b'"response.incomplete"'})
"""Types of the events that end a stream, as JSON."""
_TYPE = re.compile(rb'"([a-z_.]+)"')


def create_operation(clock: Clock, *, keeps: bool) -> Operation:
    """The operation that makes responses; `keeps` is whether they are kept here."""
    return Operation(
        name="responses",
        method="POST",
        path=PATH,
        dialect=ResponsesDialect(clock, keeps=keeps),
        shape=shapes.CREATE,
        summary="Create a response. Streams server-sent events when `stream` is true.",
    )


class _Request(msgspec.Struct):
    """The part of a request that the gateway needs; the rest is checked for syntax only."""

    model: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")
    stream: bool | None = None
    max_output_tokens: int | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: msgspec.Raw = msgspec.Raw(b"null")
    prompt: msgspec.Raw = msgspec.Raw(b"null")


_REQUEST = msgspec.json.Decoder(_Request)


class _Failure(msgspec.Struct):
    type: str = ""
    message: str = ""
    code: str | None = None
    param: str | None = None


_decode_failure = msgspec.json.Decoder(_Failure).decode


class ResponsesDialect(Dialect):
    """`/v1/responses`."""

    name = "responses"
    bound = "max_output_tokens"
    chat_names: ClassVar[Mapping[str, str]] = {
        "logprobs": "top_logprobs",
        "max_completion_tokens": "max_output_tokens",
        "messages": "input",
        "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
        "verbosity": "text.verbosity",
    }
    max_event = 32 * 1024**2  # the last event repeats the whole response, images included

    def __init__(self, clock: Clock, *, keeps: bool) -> None:
        self._clock = clock
        self._keeps = keeps

    def peek(self, exchange: Exchange) -> Asked:
        """Model and stream. An input may only lack where something else stands in for it."""
        body = exchange.body
        request = decode_request(body, _REQUEST)
        if not request.model:
            raise invalid_request("The request needs a model.", param="model")
        stand_ins = (bytes(request.conversation), bytes(request.prompt))
        is_given = bytes(request.input)[:1] in (b'"', b"[")
        if not is_given and not request.previous_response_id and set(stand_ins) == {b"null"}:
            raise invalid_request("The request needs an input, text or array.", param="input")
        check_shape(body)
        _ONCE.check(body)
        bound = bound_of(request.max_output_tokens)
        return Asked(request.model, bool(request.stream), max_output=bound)

    def error_in(self, data: bytes) -> bytes | None:
        """An error in place of a response, or the event of one; a failed response is none."""
        if b'"error"' not in data:
            return None
        if _member(data, b"type") == b'"error"' and find_value(data, b"error") is None:
            return _as_envelope(data)
        if _member(data, b"object") == b'"response"':
            return None
        return super().error_in(data)

    def reader(self, alias: bytes | None, *, wants_usage: bool = True) -> StreamReader:
        """What reads one stream of events."""
        return ResponsesReader(alias, wants_usage=wants_usage)

    def encode_event(self, data: bytes) -> bytes:
        """An event under its type's name, which clients go by."""
        kind = _TYPE.fullmatch(_member(data, b"type"))
        event = super().encode_event(data)
        return event if kind is None else b"event: %b\n%b" % (kind[1], event)

    def error_event(self, error: ApiError) -> bytes:
        """The event that ends a stream. Its number is 0: what was sent before is not known here."""
        told = {"code": error.code, "message": error.message, "param": error.param}
        # Flat is what OpenAI documents; SDKs raise for what stands under `error`.
        whole = {
            "type": "error",
            **told,
            "sequence_number": 0,
            "error": {"type": error.type, **told},
        }
        return self.encode_event(msgspec.json.encode(whole))

    def to_chat(self, exchange: Exchange) -> tuple[bytes, Translation]:
        """The chat request that asks for the same. Raises `Refused` for what chat cannot say."""
        chat, echo = read_request(exchange.body, keeps=self._keeps)
        frame = Frame(int(self._clock.time()), exchange.model, echo)
        return chat, ResponsesTranslation(frame)


def _member(data: bytes, key: bytes) -> bytes:
    """The JSON of a top-level member, `b""` without it."""
    span = find_value(data, key)
    return b"" if span is None else data[span[0] : span[1]]


def _as_envelope(data: bytes) -> bytes:
    """The error that a flat event tells, in OpenAI's usual shape."""
    try:
        told = _decode_failure(data)
    except BAD_JSON:
        told = _Failure()
    error = {"message": told.message, "type": told.code, "param": told.param, "code": told.code}
    return msgspec.json.encode({"error": error})


class ResponsesReader(StreamReader):
    """A native stream. It is over with its last response; without one it was cut."""

    frame_events = 12
    noteworthy = (b'"response"', b'"error"')

    def event(self, data: bytes) -> bytes | None:
        """Note the end and the usage; show the alias."""
        span = find_value(data, b"response")
        if span is None:
            return data
        start, end = span
        response = data[start:end]
        if _member(data, b"type") in _FINAL:
            self.ended = True
            usage = _member(response, b"usage")
            self.usage = usage if usage.startswith(b"{") else b""
        if self.alias is None or find_value(response, b"model") is None:
            return data
        return data[:start] + replace_value(response, b"model", self.alias) + data[end:]

    @property
    def whole(self) -> bool:
        """Only the last event makes it so."""
        return False


def response_in(data: bytes) -> tuple[int, int] | None:
    """Where the response stands in a whole reply or an event, `data[start:end]`."""
    if b'"response"' not in data:
        return None
    span = find_value(data, b"response")
    if span is None and (kind := find_value(data, b"object")) is not None:
        span = (0, len(data)) if data[kind[0] : kind[1]] == b'"response"' else None
    return span if span is not None and data[span[0] : span[0] + 1] == b"{" else None


def deleted(response_id: str) -> Answer:
    """The answer to who deleted a response."""
    told = {"id": response_id, "object": "response", "deleted": True}
    return Answer(msgspec.json.encode(told))


def input_page(kept: Kept) -> Answer:
    """What a response answers, the newest first, as one page. Items get the ids they lack."""
    listed = [_listed(item, kept.id, n) for n, item in enumerate(_decode_items(kept.input))]
    listed.reverse()
    ids = [item["id"] for item in listed] or [""]
    page = {"object": "list", "data": listed, "first_id": ids[0], "last_id": ids[-1]}
    return Answer(msgspec.json.encode({**page, "has_more": False}))


_decode_items = msgspec.json.Decoder(list[JsonObject]).decode
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


def _listed(item: JsonObject, response_id: str, number: int) -> JsonObject:
    """An item with all that the page of items promises of it."""
    kind = item.get("type") or "message"
    own_id = f"{_PREFIXES.get(kind, 'item')}_{response_id.removeprefix('resp_')}_{number}"
    told: JsonObject = {"type": kind, "status": "completed", **item, "id": item.get("id") or own_id}
    if kind == "reasoning":
        told.pop("status" if "status" not in item else "", None)
    if kind == "message":
        told["content"] = _parts(item.get("content"), item.get("role"))
    return told


def _parts(content: object, role: object) -> object:
    if isinstance(content, str):
        is_said = role == "assistant"
        part: JsonObject = {"type": "output_text", "annotations": [], "logprobs": []}
        return [{**(part if is_said else {"type": "input_text"}), "text": content}]
    if not isinstance(content, list):
        return content
    return [{**_DEFAULTS.get(part.get("type"), {}), **part} for part in content]


_DEFAULTS: dict[object, JsonObject] = {
    "input_image": {"detail": "auto"},
    "output_text": {"annotations": [], "logprobs": []},
}
