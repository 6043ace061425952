"""From floats to base64, byte for byte the same elsewhere."""

import re
import struct
from base64 import b64encode

import msgspec

from tollkeeper import find_value

# A quote behind a backslash begins no key.
_FLOATS = re.compile(rb'((?<!\\)"embedding"\s*:\s*)(\[[^\]"{}]*\])')


def wants_base64(request: bytes) -> bool:
    """Whether the client asked for `encoding_format` base64, as SDKs do on their own."""
    span = find_value(request, b"encoding_format") if b'"encoding_format"' in request else None
    return span is not None and request[span[0] : span[1]] == b'"base64"'


def as_base64(reply: bytes) -> bytes:
    """A reply whose vectors are base64 of little-endian 32-bit floats; others stay as they are."""
    return _FLOATS.sub(_encode, reply)


def _encode(found: re.Match[bytes]) -> bytes:
    try:
        floats = msgspec.json.decode(found[2], type=list[float])
        packed = struct.pack(f"<{len(floats)}f", *floats)
    except (msgspec.DecodeError, OverflowError):
        return found[0]  # what is no vector of such floats is for the client to judge
    return found[1] + b'"' + b64encode(packed) + b'"'
