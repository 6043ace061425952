"""Finding and replacing values in JSON without parsing it into objects.

A pass-through body keeps every byte but those that must change. These functions work on text that
a JSON parser has already found to be one valid object.
"""

import re
from collections.abc import Iterator

import msgspec

# Possessive, so that a long string leaves no trail to go back on.
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY = re.compile(rb"[\s,{]*(" + _TEXT + rb")\s*:\s*", re.DOTALL)
_STRING = re.compile(_TEXT, re.DOTALL)
_SCALAR = re.compile(rb"[^\s,}\]]+")
_NESTED = re.compile(_TEXT + rb"|[{}\[\]]", re.DOTALL)


def members(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each top-level member as (key, start, end), where `data[start:end]` is its value.

    Keys come as they are written, without their quotes and with escapes left alone.
    """
    position = 0
    while (key := _KEY.match(data, position)) is not None:
        start = key.end()
        position = _value_end(data, start)
        yield key.group(1)[1:-1], start, position
        while data[position : position + 1].isspace():
            position += 1


def _value_end(data: bytes, start: int) -> int:
    """Where the JSON value that begins at `start` ends."""
    first = data[start : start + 1]
    if first not in (b"{", b"["):
        whole = (_STRING if first == b'"' else _SCALAR).match(data, start)
        return whole.end() if whole else len(data)
    depth = 0
    for token in _NESTED.finditer(data, start):
        text = token.group()
        depth += (text in b"{[") - (text in b"}]")
        if depth == 0:
            return token.end()
    return len(data)


def find_value(data: bytes, key: bytes) -> tuple[int, int] | None:
    """Where the value of the top-level `key` stands, `data[start:end]`; None without one."""
    if key not in data:
        return None
    for name, start, end in members(data):
        if name == key:
            return start, end
    return None


def replace_value(data: bytes, key: bytes, value: bytes) -> bytes:
    """`data` with the value of the top-level `key` replaced, or with the key added at the end.

    A key that stands twice is replaced twice, so that every reader finds the same.
    """
    parts, position = [], 0
    if key in data:
        for name, start, end in members(data):
            if name == key:
                parts += [data[position:start], value]
                position = end
    if parts:
        return b"".join([*parts, data[position:]])
    end = data.rindex(b"}")
    head = data[:end].rstrip()
    comma = b"" if head.endswith(b"{") else b","
    return head + comma + b'"' + key + b'":' + value + data[end:]


def quote(text: str) -> bytes:
    """`text` as a JSON string."""
    return msgspec.json.encode(text)


def is_json(data: bytes) -> bool:
    """Whether `data` is one JSON value."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
