"""Streams of chunks, as chat and the older completions have them."""

import re

from tollkeeper.dialect import StreamReader, event_start
from tollkeeper.jsonspan import find_value
from tollkeeper.sse import DONE, DONE_EVENT

_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"[^"]')


class ChunkReader(StreamReader):
    """A stream of chunks. Its `[DONE]` may be missing once a finish reason has gone by."""

    noteworthy: tuple[bytes, ...] = (b'"error"', b"[DONE]")
    ending = DONE_EVENT
    frame_events = 2

    def __init__(self, alias: bytes | None = None, *, wants_usage: bool = True) -> None:
        super().__init__(alias, wants_usage=wants_usage)
        self._finished = False
        self._prefix = self._renamed_prefix = b""

    def skim(self, events: bytes) -> int:
        """All before an error, the end, or a usage that is told; of chunks that begin alike."""
        self._note_finish(events)
        quiet = super().skim(events)
        # OpenAI, asked for usage, says that it is null in every event but one.
        usage = events.find(b'"usage"')
        if usage >= 0 and (told := _USAGE.search(events, usage)) is not None:
            quiet = min(quiet, event_start(events, told.start()))
        return quiet if self.alias is None or self._are_alike(events[:quiet]) else 0

    def _are_alike(self, events: bytes) -> bool:
        """Whether each begins as the last renamed one did, so that all can be renamed at once."""
        count = events.count(b"\n\n")
        if events.count(b"\n") != 2 * count:
            return False  # an event of several lines
        if not self._prefix:
            start = events.find(b"data: ") + len(b"data: ")
            self._renamed(events[start : events.find(b"\n", start)])
        alike = events.count(b"data: " + self._prefix)
        return bool(self._prefix) and alike == count

    def pass_on(self, events: bytes) -> bytes:
        """Unseen chunks, under the alias."""
        if self.alias is None:
            return events
        return events.replace(b"data: " + self._prefix, b"data: " + self._renamed_prefix)

    def _note_finish(self, events: bytes) -> None:
        last = events.rfind(b'"finish_reason"')
        if last >= 0 and _FINISH.match(events, last):
            self._finished = True

    def event(self, data: bytes) -> bytes | None:
        """Note finish and usage; show the alias, and usage only where it was asked for."""
        if data == DONE:
            self.ended = True
            return data
        self._note_finish(data)
        changed = self._without_usage(data) if _USAGE.search(data) else data
        return changed if changed is None or self.alias is None else self._renamed(changed)

    def _renamed(self, data: bytes) -> bytes:
        """The chunk under the alias. Most begin as the one before did, up to behind the model."""
        if self._prefix and data.startswith(self._prefix):
            return self._renamed_prefix + data[len(self._prefix) :]
        span = find_value(data, b"model")
        if span is None or self.alias is None:
            return data
        self._prefix, self._renamed_prefix = data[: span[1]], data[: span[0]] + self.alias
        return self._renamed_prefix + data[span[1] :]

    def _without_usage(self, data: bytes) -> bytes | None:
        """Note the usage; where the client did not ask for it, take it or its whole event out."""
        span = find_value(data, b"usage")
        if span is None or data[span[0] : span[0] + 1] != b"{":
            return data
        self.usage = data[span[0] : span[1]]
        if self.wants_usage:
            return data
        choices = find_value(data, b"choices")
        if choices is None or not data[choices[0] + 1 : choices[1] - 1].strip():
            return None
        return data[: span[0]] + b"null" + data[span[1] :]

    @property
    def whole(self) -> bool:
        """A stream without a finish reason was cut."""
        return self._finished
