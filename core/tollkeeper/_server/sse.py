"""Server-sent events as bytes: cut at blank lines, never decoded, never rebuilt unless changed."""

import re
from collections.abc import Iterator

from tollkeeper.errors import UpstreamError

MAX_EVENT = 1024**2
"""A single event larger than this breaks the stream."""

DONE = b"[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"

_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END = re.compile(rb"\r\n|\n|\r")


def make_event(data: bytes) -> bytes:
    """An event that carries `data`, each of its lines behind a `data:` of its own."""
    return b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


def split_events(batch: bytes) -> Iterator[bytes]:
    """The whole events in `batch`, each with the blank line that ends it."""
    start = 0
    for boundary in _BOUNDARY.finditer(batch):
        if boundary.end() > start:
            yield batch[start : boundary.end()]
            start = boundary.end()
    if start < len(batch):
        yield batch[start:]


def data_of(event: bytes) -> bytes | None:
    """What an event's `data:` lines carry, None for a comment or an event without data."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = [
        line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None


class Splitter:
    """Cuts a stream of chunks so that only whole events leave it."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """What has come of an event that is not over."""
        return self._rest

    def feed(self, chunk: bytes) -> bytes:
        """All events that are now whole, as they came; `b""` while there is none."""
        data = self._rest + chunk if self._rest else chunk
        end = self._last_boundary(data)
        self._rest = data[end:]
        if len(self._rest) > MAX_EVENT:
            raise UpstreamError("broken", f"an event is larger than {MAX_EVENT} bytes")
        return data[:end]

    @staticmethod
    def _last_boundary(data: bytes) -> int:
        if b"\r" not in data:
            return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
        # A CR at the very end may be half of a CRLF: it belongs to what comes next.
        usable = data[:-1] if data.endswith(b"\r") else data
        end = 0
        for boundary in _BOUNDARY.finditer(usable):
            end = boundary.end()
        return end
