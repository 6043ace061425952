"""Chunks on their way: what may go unseen, and the alias put into many at once."""

import json

import pytest

from tollkeeper.chunks import ChunkReader
from tollkeeper.sse import DONE_EVENT, data_of, split_events
from tollkeeper.testing import chunk, usage_chunk

FINISH = chunk(None, finish="stop")


def one_by_one(reader: ChunkReader, events: bytes) -> bytes:
    out = b""
    for raw in split_events(events):
        changed = reader.event(data_of(raw) or b"")
        out += b"" if changed is None else b"data: " + changed + b"\n\n"
    return out


def test_chunks_that_begin_alike_are_renamed_at_once_and_the_same_as_one_by_one() -> None:
    events = b"".join(chunk(f"word{n} data: x") for n in range(60)) + FINISH
    reader = ChunkReader(b'"alias"')
    assert reader.skim(events) == len(events)
    assert reader.pass_on(events) == one_by_one(ChunkReader(b'"alias"'), events)
    assert reader.pass_on(events).count(b'"model": "alias"') == 61
    assert reader.whole


@pytest.mark.parametrize(
    "odd",
    [
        b": comment\n\n",
        chunk("x", model="another"),
        chunk("x").replace(b"data: ", b"data:"),
        chunk("x").replace(b"data: ", b"event: message\ndata: "),
        chunk("x").replace(b"\n\n", b"\r\n\r\n"),
        b"data: {}\n\n",
    ],
)
def test_chunks_that_do_not_are_left_to_be_seen_one_by_one(odd: bytes) -> None:
    assert ChunkReader(b'"alias"').skim(chunk("a") + odd + chunk("b")) == 0
    assert ChunkReader().skim(chunk("a") + odd + chunk("b")) > 0


def test_without_an_alias_all_before_the_usage_and_the_end_goes_unseen() -> None:
    reader = ChunkReader(wants_usage=False)
    quiet = chunk("a") + FINISH
    assert reader.skim(quiet + usage_chunk() + DONE_EVENT) == len(quiet)
    assert reader.pass_on(quiet) == quiet
    assert reader.event(data_of(usage_chunk()) or b"") is None
    assert json.loads(reader.usage)["prompt_tokens"] == 3
    assert not reader.ended
    assert reader.event(b"[DONE]") == b"[DONE]"
    assert reader.ended


def test_a_stream_without_a_finish_reason_is_not_whole() -> None:
    reader = ChunkReader()
    assert reader.skim(chunk("a")) == len(chunk("a"))
    assert not reader.whole
