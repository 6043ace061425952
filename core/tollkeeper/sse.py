"""Server-sent events as bytes: cut at blank lines, never decoded, never rebuilt unless changed."""

import re
from collections.abc import Iterator

from tollkeeper.errors import UpstreamError

MAX_EVENT = 4 * 1024**2
"""A single event larger than this breaks the stream, unless a dialect allows larger ones."""

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


def data_in(batch: bytes) -> Iterator[bytes]:
    """What each of some whole events carries; comments and events without data are left out."""
    if b"\r" in batch:
        yield from filter(None, map(data_of, split_events(batch)))
        return
    for event in batch.split(b"\n\n"):
        start = event.find(b"data: ")
        before = event[:start] if start >= 0 and event.find(b"\n", start) < 0 else b"data:"
        if not before or (before.endswith(b"\n") and b"data:" not in before):
            if len(event) > start + 6:  # one line of data behind whole lines, as all write it
                yield event[start + 6 :]
        elif data := data_of(event):
            yield data


class Splitter:
    """Cuts a stream of chunks so that only whole events leave it."""

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def rest(self) -> bytes:
        """What has come of an event that is not over."""
        return b"".join(self._parts)

    def feed(self, chunk: bytes) -> bytes:
        """All events that are now whole, as they came; `b""` while there is none."""
        if self._parts and not self._may_end(chunk):
            return self._keep(chunk)
        data = b"".join([*self._parts, chunk]) if self._parts else chunk
        end = self._last_boundary(data)
        self._parts, self._size = [], 0
        if end < len(data):
            self._keep(data[end:])
        return data[:end]

    def _may_end(self, chunk: bytes) -> bool:
        """Whether an event may end in this chunk: a large one is not searched again and again."""
        seam = self._parts[-1][-3:] + chunk[:3]
        return b"\n\n" in chunk or b"\r" in chunk or b"\n\n" in seam or b"\r" in seam

    def _keep(self, part: bytes) -> bytes:
        self._parts.append(part)
        self._size += len(part)
        if self._size > self._max_event:
            raise UpstreamError("broken", f"an event is larger than {self._max_event} bytes")
        return b""

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
