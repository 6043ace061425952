"""Changing a request body where it must change, byte for byte the same elsewhere."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tollkeeper import find_value, replace_value
from tollkeeper.jsongate import read_object

_INCLUDE_USAGE = b'{"include_usage":true}'
FOREIGN = frozenset(
    {"cache_control", "extra_content", "reasoning_content", "thinking", "thinking_blocks"}
)
"""Fields that chat carries from one dialect to another and OpenAI does not know."""


def with_usage_option(body: bytes) -> bytes:
    """`body` with `stream_options.include_usage` true, its other stream options kept."""
    span = find_value(body, b"stream_options")
    options = body[span[0] : span[1]] if span else b""
    if not options.startswith(b"{"):
        return replace_value(body, b"stream_options", _INCLUDE_USAGE)
    return replace_value(body, b"stream_options", replace_value(options, b"include_usage", b"true"))


def without_idle_stream_options(body: bytes) -> bytes:
    """`body` without stream options where no stream is asked for: vLLM refuses them there."""
    stream = find_value(body, b"stream")
    if stream is not None and body[stream[0] : stream[1]] == b"true":
        return body
    return _edited(body, _drop_stream_options) if b'"stream_options"' in body else body


def _drop_stream_options(document: dict[str, Any]) -> None:
    document.pop("stream_options", None)


def with_max_tokens(body: bytes) -> bytes:
    """`body` with its bound under the older name, where the newer one is ignored or refused."""
    return _edited(body, _rename_bound) if b'"max_completion_tokens"' in body else body


_LAST = re.compile(rb"\s*:\s*\d+\s*}\s*")


def with_older_name(body: bytes) -> bytes:
    """The same for a bound that the gateway set, which stands last: every other byte is kept."""
    head, _, tail = body.rpartition(b'"max_completion_tokens"')
    if _LAST.fullmatch(tail) and b'"max_tokens"' not in head:
        return head + b'"max_tokens"' + tail
    return with_max_tokens(body)


def _rename_bound(document: dict[str, Any]) -> None:
    bound = document.pop("max_completion_tokens", None)
    if bound is not None:
        document["max_tokens"] = bound


def for_mistral(body: bytes) -> bytes:
    """`body` as Mistral takes it, which refuses what it does not know.

    No stream options (usage always comes), no names but tools', plain text as text, `any` for
    `required`, and its own word for a seed.
    """
    return _edited(body, _mistral) if any(word in body for word in _MISTRAL_WORDS) else body


_MISTRAL_WORDS = (b'"stream_options"', b'"name"', b'"text"', b'"required"', b'"seed"')


def _mistral(document: dict[str, Any]) -> None:
    document.pop("stream_options", None)
    if document.get("tool_choice") == "required":
        document["tool_choice"] = "any"
    if (seed := document.pop("seed", None)) is not None:
        document["random_seed"] = seed
    for message in _objects(document.get("messages")):
        if message.get("role") != "tool":
            message.pop("name", None)
        parts = message.get("content")
        if isinstance(parts, list) and all(map(_is_text, parts)):
            message["content"] = "".join(str(part.get("text") or "") for part in parts)


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text"


def without_foreign(body: bytes, keeps: frozenset[str]) -> tuple[bytes, list[str]]:
    """A translated request without the fields that the service does not know, and their names."""
    unknown = FOREIGN - keeps
    if not any(b'"%b"' % name.encode() in body for name in unknown):
        return body, []
    document = msgspec.json.decode(body)
    found: set[str] = set()
    places = [*_objects(document.get("messages")), *_objects(document.get("tools"))]
    for place in [document, *places]:
        for inner in [place, *_objects(place.get("content")), *_objects(place.get("tool_calls"))]:
            for name in unknown & inner.keys():
                found.add(name)
                del inner[name]
    return (msgspec.json.encode(document), sorted(found)) if found else (body, [])


def _objects(values: object) -> Iterable[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _edited(body: bytes, edit: Callable[[dict[str, Any]], None]) -> bytes:
    document = read_object(body)
    edit(document)
    return msgspec.json.encode(document)
