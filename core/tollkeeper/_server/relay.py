"""What passes between an upstream's reply and the client: events changed, held or dropped.

Same dialect on both sides, so bytes go through as they came. Events are looked at one by one only
where something in them must change, end the stream, or be tapped: the dialect's reader says which.
"""

from dataclasses import dataclass, field

from tollkeeper._server.pipeline import Taps
from tollkeeper.dialect import Dialect, StreamReader
from tollkeeper.errors import UpstreamError
from tollkeeper.exchange import Event, Exchange
from tollkeeper.jsonspan import is_json, quote
from tollkeeper.seen import count_events
from tollkeeper.sse import DONE, Splitter, data_of, make_event, split_events


def alias_of(exchange: Exchange) -> bytes | None:
    """The name to put into the reply, None where the upstream goes by the same one."""
    deployment = exchange.deployment
    if deployment is None or deployment.model == exchange.model:
        return None
    return quote(exchange.model)


@dataclass(slots=True)
class StreamRelay:
    """One stream on its way. `feed` chunks; `ended` says that its last event has come."""

    dialect: Dialect
    reader: StreamReader
    taps: Taps | None
    answers: int = 1
    """How many answers the stream is of."""
    ended: bool = False
    """Whether nothing comes any more but the tail."""
    tail: bytes = b""
    """What stands from the terminal event on, to be sent after settling."""
    events: int = 0
    """How many events with data have come."""
    failure: Exception | None = None
    """An error event, or a tap's refusal, met behind events that can still go out."""
    _splitter: Splitter = field(init=False)

    def __post_init__(self) -> None:
        self._splitter = Splitter(self.dialect.max_event)

    @property
    def seen_tokens(self) -> int:
        """Output tokens that have certainly come: one in each event that is no mere frame."""
        return max(0, self.events - self.reader.frame_events * self.answers)

    def feed(self, chunk: bytes) -> bytes:
        """What can go to the client now; look at `failure` and `ended` after sending it."""
        whole = self._splitter.feed(chunk)
        if not whole:
            return b""
        self.events += count_events(whole)
        quiet = self.reader.skim(whole)
        if self.taps is not None:
            quiet = 0
        elif quiet == len(whole):
            return self.reader.pass_on(whole)
        return self.reader.pass_on(whole[:quiet]) + b"".join(self._events(whole[quiet:]))

    def _events(self, whole: bytes) -> list[bytes]:
        out: list[bytes] = []
        try:
            for raw in split_events(whole):
                data = data_of(raw)
                if data is None:
                    out.append(raw)
                    continue
                passed = self._event(data, raw)
                if self.reader.ended:
                    self.tail, self.ended = b"".join(passed), True
                    break
                out += passed
        except Exception as error:
            self.failure = error
        return out

    def _event(self, data: bytes, raw: bytes) -> list[bytes]:
        if (error := self.dialect.error_in(data)) is not None:
            raise UpstreamError("status", "an error event", status=200, body=error)
        changed = self.reader.event(data)
        if self.taps is None:
            if changed is None:
                return []
            return [raw if changed is data else self.dialect.encode_event(changed)]
        event = None if changed is None else Event(changed, raw if changed is data else b"")
        passed = [] if event is None or data == DONE else self.taps.feed(event)
        if self.reader.ended:
            passed += self.taps.finish()
            if data == DONE and event is not None:
                passed.append(event)
        return [self._bytes_of(event) for event in passed]

    def _bytes_of(self, event: Event) -> bytes:
        """An event as it goes out: untouched where it was not changed."""
        return event.raw or self.dialect.encode_event(event.data)

    def close(self) -> bytes:
        """The upstream's clean end: what stands before the tail. Raises where something lacks."""
        out = self._last_event(self._splitter.rest)
        if self.failure is not None:
            raise self.failure
        if not self.ended:
            if not self.reader.whole:
                raise UpstreamError("broken", "the stream was cut before its end")
            self.ended = True
            held = self.taps.finish() if self.taps else []
            self.tail = b"".join(map(self._bytes_of, held)) + self.reader.ending
        return out

    def _last_event(self, rest: bytes) -> bytes:
        """What stands behind the last blank line: an event that only lacks its own, or a part."""
        data = data_of(rest)
        if data is None or (data != DONE and not is_json(data)):
            is_comment = data is None and rest.lstrip().startswith(b":")
            if rest.strip() and not is_comment:
                raise UpstreamError("broken", "the stream was cut in the middle of an event")
            return b""
        self.reader.skim(make_event(data))
        lines = rest.rstrip(b"\r\n") + b"\n\n"
        return b"".join(self._events(lines))
