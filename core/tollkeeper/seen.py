"""What is seen of a reply or a request, to count by where the provider's own usage never comes.

Counts stay below the truth: nobody is charged for more than was seen.
"""

import msgspec

BYTES_PER_TOKEN = 6
"""Of text: few tokens are longer."""
LARGE = 1024**2
"""Bytes of a body beyond which it is not parsed for a count."""
_TEXTS = frozenset(
    {"arguments", "content", "input", "output_text", "prompt", "reasoning_content", "text"}
)


def count_events(events: bytes) -> int:
    """How many of some whole events of a stream carry data."""
    lines = events.count(b"\ndata:") + events.startswith(b"data:")
    blocks = events.count(b"\n\n") or events.count(b"\r\n\r\n") or lines
    return min(lines, blocks)  # data may have several lines, and a block none


def count_text(body: bytes) -> int:
    """Tokens in the text of a JSON body; 0 for what is large or no JSON."""
    if len(body) > LARGE:
        return 0
    try:
        return _text_bytes(msgspec.json.decode(body)) // BYTES_PER_TOKEN
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0


def _text_bytes(value: object, key: str = "") -> int:
    if isinstance(value, str):
        return len(value.encode()) if key in _TEXTS else 0
    if isinstance(value, dict):
        return sum(_text_bytes(inner, str(name)) for name, inner in value.items())
    return sum(_text_bytes(inner, key) for inner in value) if isinstance(value, list) else 0
