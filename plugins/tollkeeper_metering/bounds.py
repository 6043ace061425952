"""What a request can cost at most: a bound on its input tokens. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

OVERHEAD = 16
"""Input tokens beyond a request's own bytes, for what a provider frames it with."""
MANY_PARTS = 10_000
"""Objects beyond which each may be a picture: looking through them all would take too long."""
_BYTES_PER_TOKEN = 16
"""Of media: no picture, recording or document counts more tokens than this for its size."""
_WORDS = ("image", "audio", "video", "file", "document", "screenshot")
"""What the types of parts are called that stand for more, or less, than their own bytes."""
_MARKS = tuple(word.encode() for word in _WORDS)
_BINARY = ("image/", "audio/", "video/", "application/pdf")
"""Kinds of media that are no text in another guise."""


def input_bound(body: bytes, headers: Mapping[str, str], media_tokens: int) -> int:
    """Input tokens that a request has at most: a byte of text is a token at most.

    Whatever may stand for media counts `media_tokens` at least. What their own bytes count less
    than text is given only where providers look for media: anywhere else they are text.
    """
    if headers.get("content-type", "").startswith("multipart/"):
        return max(media_tokens, len(body) // _BYTES_PER_TOKEN)
    bound = len(body) + OVERHEAD
    if b"\\u00" not in body and not _may_hold_media(body):
        return bound
    objects = body.count(b"{")
    if objects > MANY_PARTS:
        return bound + objects * media_tokens
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return bound + objects * media_tokens
    bound += _count_media(document) * media_tokens
    for size in map(_size, _places(document)):
        bound += max(0, size // _BYTES_PER_TOKEN - media_tokens) - size
    return bound


def _may_hold_media(body: bytes) -> bool:
    """Whether any object can say that it is media, which needs a type to say it in."""
    return b'"type"' in body and any(mark in body for mark in _MARKS)


def _count_media(value: object) -> int:
    """How many objects say that they are media, wherever they stand."""
    if isinstance(value, dict):
        return _is_media(value) + sum(map(_count_media, value.values()))
    return sum(map(_count_media, value)) if isinstance(value, list) else 0


def _is_media(part: Mapping[str, object]) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and any(word in kind for word in _WORDS)


def _places(document: object) -> Iterator[dict[str, Any]]:
    """The parts of messages that providers take for media."""
    told = document if isinstance(document, dict) else {}
    for message in [*_objects(told.get("messages")), *_objects(told.get("input"))]:
        for part in _objects(message.get("content")):
            inner = _objects(part.get("content"))  # what a tool found
            yield from filter(_is_media, [part, *inner])


def _size(part: dict[str, Any]) -> int:
    """Bytes of a part that are media and no text."""
    return sum(map(_payload, [part, *[v for v in part.values() if isinstance(v, dict)]]))


def _payload(place: dict[str, Any]) -> int:
    """Bytes of the one value in here that is media and no text."""
    for key in ("url", "image_url", "file_data"):
        if _text(place, key).startswith(tuple(f"data:{kind}" for kind in _BINARY)):
            return len(_text(place, key))
    is_sound = isinstance(place.get("format"), str) and place.keys() <= {"data", "format"}
    if is_sound or _text(place, "media_type").startswith(_BINARY):
        return len(_text(place, "data"))
    return 0


def _text(place: dict[str, Any], key: str) -> str:
    value = place.get(key)
    return value if isinstance(value, str) else ""


def _objects(value: object) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []
