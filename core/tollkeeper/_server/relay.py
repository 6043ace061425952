"""What passes between an upstream's reply and the client: events changed, held or dropped.

Same dialect on both sides, so bytes go through as they came. Events are looked at one by one only
where something in them must change, end the stream, or be tapped.
"""

import re
from dataclasses import dataclass, field

from tollkeeper._server.pipeline import Taps
from tollkeeper._server.sending import error_in
from tollkeeper._server.sse import (
    DONE,
    DONE_EVENT,
    Splitter,
    data_of,
    make_event,
    split_events,
)
from tollkeeper.errors import UpstreamError
from tollkeeper.exchange import Attempt, Event, Exchange
from tollkeeper.jsonspan import find_value, is_json, quote, replace_value

_NOTEWORTHY = (b'"error"', b"[DONE]")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"[^"]')


def rename_model(data: bytes, alias: bytes | None) -> bytes:
    """A reply's JSON with the model that the client asked for, where it asked by an alias."""
    if alias is None or find_value(data, b"model") is None:
        return data
    return replace_value(data, b"model", alias)


def alias_of(exchange: Exchange) -> bytes | None:
    """The name to put into the reply, None where the upstream goes by the same one."""
    deployment = exchange.deployment
    if deployment is None or deployment.model == exchange.model:
        return None
    return quote(exchange.model)


@dataclass(slots=True)
class StreamRelay:
    """One stream on its way. `feed` chunks; `ended` says that the terminal event has come."""

    attempt: Attempt
    alias: bytes | None
    wants_usage: bool
    taps: Taps | None
    ended: bool = False
    finished: bool = False
    """Whether a finish reason has gone by: a stream without it was cut."""
    tail: bytes = b""
    """What stands from the terminal event on, to be sent after settling."""
    failure: Exception | None = None
    """An error event, or a tap's refusal, met behind events that can still go out."""
    _splitter: Splitter = field(default_factory=Splitter)

    def feed(self, chunk: bytes) -> bytes:
        """What can go to the client now; look at `failure` and `ended` after sending it."""
        whole = self._splitter.feed(chunk)
        if not whole:
            return b""
        last = whole.rfind(b'"finish_reason"')
        if last >= 0 and _FINISH.match(whole, last):
            self.finished = True
        if self.alias is not None or self.taps is not None:
            return b"".join(self._events(whole))
        cut = quiet_part(whole)
        return whole if cut == len(whole) else whole[:cut] + b"".join(self._events(whole[cut:]))

    def _events(self, whole: bytes) -> list[bytes]:
        out: list[bytes] = []
        try:
            for raw in split_events(whole):
                data = data_of(raw)
                if data is None:
                    out.append(raw)
                elif data == DONE:
                    self.tail = self._rest_of_taps() + raw
                    self.ended = True
                    break
                else:
                    out.extend(self._event(data, raw))
        except Exception as error:
            self.failure = error
        return out

    def _event(self, data: bytes, raw: bytes) -> list[bytes]:
        if (error := error_in(data)) is not None:
            raise UpstreamError("status", "an error event", status=200, body=error)
        changed = self._without_usage(data)
        if changed is None:
            return []
        changed = rename_model(changed, self.alias)
        event = Event(changed, raw if changed is data else b"")
        return [event_bytes(e) for e in (self.taps.feed(event) if self.taps else [event])]

    def _without_usage(self, data: bytes) -> bytes | None:
        """Note the usage; where the client did not ask for it, take it or its whole event out."""
        span = find_value(data, b"usage") if b'"usage"' in data else None
        if span is None or data[span[0] : span[0] + 1] != b"{":
            return data
        self.attempt.usage_data = data[span[0] : span[1]]
        if self.wants_usage:
            return data
        choices = find_value(data, b"choices")
        if choices is None or not data[choices[0] + 1 : choices[1] - 1].strip():
            return None
        return data[: span[0]] + b"null" + data[span[1] :]

    def _rest_of_taps(self) -> bytes:
        return b"".join(map(event_bytes, self.taps.finish())) if self.taps else b""

    def close(self) -> None:
        """The upstream's clean end. Raises `UpstreamError` where the reply is not whole."""
        if self.ended:
            return
        out = self._last_event(self._splitter.rest)
        if self.failure is not None:
            raise self.failure
        if not self.ended:
            if not self.finished:
                raise UpstreamError("broken", "the stream was cut before its end")
            self.ended = True
            self.tail = self._rest_of_taps() + DONE_EVENT
        self.tail = out + self.tail

    def _last_event(self, rest: bytes) -> bytes:
        """What stands behind the last blank line: an event that only lacks its own, or a part."""
        data = data_of(rest)
        if data is None or (data != DONE and not is_json(data)):
            is_comment = data is None and rest.lstrip().startswith(b":")
            if rest.strip() and not is_comment:
                raise UpstreamError("broken", "the stream was cut in the middle of an event")
            return b""
        self.finished = self.finished or _FINISH.search(rest) is not None
        return b"".join(self._events(make_event(data)))


def quiet_part(whole: bytes) -> int:
    """How much of some whole events can go on unseen: all before one that may need a change."""
    found = [at for at in map(whole.find, _NOTEWORTHY) if at >= 0]
    # OpenAI, asked for usage, says that it is null in every event but one.
    usage = whole.find(b'"usage"')
    if usage >= 0 and (match := _USAGE.search(whole, usage)) is not None:
        found.append(match.start())
    if not found:
        return len(whole)
    boundary = whole.rfind(b"\n\n", 0, min(found))
    return boundary + 2 if boundary >= 0 else 0


def event_bytes(event: Event) -> bytes:
    """An event as it goes out: untouched where it was not changed."""
    return event.raw or make_event(event.data)
