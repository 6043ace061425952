"""Events cut at blank lines, wherever the chunks of the stream happen to end."""

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import UpstreamError
from tollkeeper.sse import (
    DONE,
    DONE_EVENT,
    MAX_EVENT,
    Splitter,
    data_in,
    data_of,
    make_event,
    split_events,
)

LINE_ENDS = [b"\n", b"\r\n", b"\r"]

# Streams with `\n` for each line end, and the data of their events.
STREAMS: list[tuple[bytes, list[bytes]]] = [
    (b"data: a\n\ndata: b\n\ndata: [DONE]\n\n", [b"a", b"b", b"[DONE]"]),
    (b": ping\n\ndata: a\n\n: ping\n\n", [b"a"]),
    (b"event: message\nid: 1\ndata: a\n\nretry: 9\n\ndata: b\n\n", [b"a", b"b"]),
    (b"data: a\n\n\n\ndata: b\n\n\ndata: c\n\n", [b"a", b"b", b"c"]),
    (b"data: one\ndata: two\n\n", [b"one\ntwo"]),
    (b"data:a\n\ndata:  b\n\ndata:\n\n", [b"a", b" b", b""]),
    ("data: é\u2028\u0085\U0001f600\n\n".encode(), ["é\u2028\u0085\U0001f600".encode()]),
]
streams = pytest.mark.parametrize(("stream", "wanted"), STREAMS)
line_ends = pytest.mark.parametrize("end", LINE_ENDS, ids=["LF", "CRLF", "CR"])


def every_data(whole: bytes) -> list[bytes]:
    return [data for event in split_events(whole) if (data := data_of(event)) is not None]


def check(batches: list[bytes], rest: bytes, stream: bytes, wanted: list[bytes]) -> None:
    """All bytes and all events left; of a stream with lone CRs the last may wait for its end."""
    assert b"".join(batches) + rest == stream
    assert rest == b"" or (stream.endswith(b"\r") and len(list(split_events(rest))) == 1)
    assert [data for batch in [*batches, rest] for data in every_data(batch)] == wanted


@streams
@line_ends
def test_wherever_a_stream_is_cut_in_two_the_same_events_leave(
    stream: bytes, wanted: list[bytes], end: bytes
) -> None:
    stream = stream.replace(b"\n", end)
    for cut in range(len(stream) + 1):
        splitter = Splitter()
        batches = [splitter.feed(stream[:cut]), splitter.feed(stream[cut:])]
        check(batches, splitter.rest, stream, wanted)


@streams
@line_ends
def test_a_stream_that_comes_byte_by_byte_gives_the_same_events(
    stream: bytes, wanted: list[bytes], end: bytes
) -> None:
    stream = stream.replace(b"\n", end)
    splitter = Splitter()
    batches = [splitter.feed(stream[i : i + 1]) for i in range(len(stream))]
    check(batches, splitter.rest, stream, wanted)


@settings(deadline=None)
@given(st.data())
def test_no_event_leaves_in_two_parts(data: st.DataObject) -> None:
    ends = st.sampled_from(LINE_ENDS)
    lines = st.lists(st.sampled_from([b": c", b"data: x", b"data:y", b"id: 1"]), max_size=3)
    stream = b"".join(
        b"".join(line + data.draw(ends) for line in event) + data.draw(ends)
        for event in data.draw(st.lists(lines, max_size=5))
    )
    splitter, batches, rest = Splitter(), [], stream
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        batches.append(splitter.feed(rest[:size]))
        rest = rest[size:]
    assert b"".join(batches) + splitter.rest == stream
    whole = Splitter()
    everything = every_data(whole.feed(stream)) + every_data(whole.rest)
    assert [d for b in [*batches, splitter.rest] for d in every_data(b)] == everything


@pytest.mark.parametrize(("first", "second"), [*product(LINE_ENDS, LINE_ENDS)])
def test_data_holds_no_part_of_a_line_end_however_lines_end(first: bytes, second: bytes) -> None:
    if (first, second) != (b"\r", b"\n"):  # together one line end
        assert data_of(b"data: x" + first + second) == b"x"
    assert data_of(b"data: x" + first + b"data: y" + second + b"\n") == b"x\ny"


@pytest.mark.parametrize(
    "event", [b": c\n\n", b"\n\n", b"id: 1\n\n", b"event: ping\n\n", b"database: x\n\n"]
)
def test_an_event_without_data_has_none(event: bytes) -> None:
    assert data_of(event) is None


def test_events_of_a_batch_are_given_with_the_blank_line_that_ends_each() -> None:
    batch = b": c\n\ndata: a\r\n\r\ndata: b\n\n"
    assert list(split_events(batch)) == [b": c\n\n", b"data: a\r\n\r\n", b"data: b\n\n"]
    assert list(split_events(b"")) == []


def test_what_has_come_of_an_event_is_kept_until_the_rest_has() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: a\n\ndata: b\n") == b"data: a\n\n"
    assert splitter.rest == b"data: b\n"
    assert splitter.feed(b"\n") == b"data: b\n\n"
    assert splitter.rest == b""


def test_an_event_that_does_not_end_breaks_the_stream_at_its_limit() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: " + b"x" * (MAX_EVENT - 6)) == b""
    with pytest.raises(UpstreamError) as caught:
        splitter.feed(b"x")
    assert caught.value.fault == "broken"


def test_many_events_together_may_be_larger_than_one() -> None:
    batch = (b"data: " + b"x" * 1000 + b"\n\n") * (MAX_EVENT // 1000)
    assert len(batch) > MAX_EVENT
    assert Splitter().feed(batch) == batch


@settings(deadline=None)
@given(st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_a_made_event_carries_its_data(value: object) -> None:
    data = json.dumps(value, ensure_ascii=False).encode()
    event = make_event(data)
    assert list(split_events(event)) == [event]
    assert data_of(event) == data


def test_the_event_that_ends_a_stream_is_the_one_that_clients_wait_for() -> None:
    assert DONE_EVENT == b"data: [DONE]\n\n" == make_event(DONE)


LINES = [b"data: a", b"data:b", b"event: data: x", b"event: e", b": c data: y", b"data", b"data: "]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*LINES, b"", b"id: 1"])),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_the_data_in_a_batch_is_that_of_its_events(lines: list[bytes], end: bytes) -> None:
    batch = end.join([*lines, b"", b""])
    expected = [data for data in map(data_of, split_events(batch)) if data]
    assert list(data_in(batch)) == expected
