"""A reply seen through a translation, and what to do with what the other side cannot."""

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import Refused, UpstreamError
from tollkeeper.testing import ScriptedReply
from tollkeeper.translation import Unsupported, broken, translate_reply

SSE = {"content-type": "text/event-stream"}


class Shout:
    """Events in capitals; "!" is an error, and a stream ends with "end"."""

    def __init__(self) -> None:
        self.last = b""

    def body(self, data: bytes) -> bytes:
        return data.upper()

    def event(self, data: bytes) -> bytes:
        self.last = data
        if data == b"!":
            raise UpstreamError("status", "an error event", status=500)
        return data.upper() + b"\n\n"

    def end(self) -> bytes:
        if self.last != b"end":
            raise broken("the stream was cut")
        return b"over\n\n"


def scripted(*parts: bytes, status: int = 200) -> ScriptedReply:
    return ScriptedReply(status, SSE, deque(parts))


async def read_all(*parts: bytes) -> tuple[bytes, UpstreamError | None]:
    reply, out = translate_reply(scripted(*parts), Shout()), b""
    try:
        while part := await reply.chunk():
            out += part
    except UpstreamError as error:
        return out, error
    return out, None


async def test_a_whole_body_is_translated() -> None:
    assert await translate_reply(scripted(b"ab", b"c"), Shout()).read() == b"ABC"


async def test_an_error_status_keeps_its_body_for_the_core() -> None:
    reply = scripted(b"oh", status=400)
    assert translate_reply(reply, Shout()) is reply


@settings(deadline=None)
@given(st.lists(st.integers(0, 60)))
async def test_a_stream_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    stream = b": hi\n\ndata: a\n\ndata: b\r\n\r\nevent: x\ndata: c\n\ndata: end\n\n"
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    parts = [stream[a:b] for a, b in pairwise(edges) if a < b]
    assert await read_all(*parts) == (b"A\n\nB\n\nC\n\nEND\n\nover\n\n", None)


async def test_a_last_event_that_lacks_its_blank_line_is_translated_too() -> None:
    assert await read_all(b"data: a\n\ndata: end") == (b"A\n\nEND\n\nover\n\n", None)


async def test_events_before_an_error_in_the_same_read_are_not_lost() -> None:
    for parts in ([b"data: a\n\ndata: !\n\ndata: b\n\n"], [b"data: a\n\ndata: !"]):
        out, error = await read_all(*parts)
        assert out == b"A\n\n"
        assert error is not None
        assert error.status == 500


async def test_a_stream_that_is_cut_fails_after_what_came() -> None:
    _, error = await read_all(b"data: a\n\n")
    assert error is not None
    assert error.fault == "broken"


def test_what_cannot_be_honoured_is_refused_by_name() -> None:
    unsupported = Unsupported("Toy", drop=False)
    with pytest.raises(Refused, match="seed") as caught:
        unsupported.refuse("seed")
    assert caught.value.param == "seed"
    assert unsupported.dropped == []


def test_what_the_operator_lets_drop_is_listed_once() -> None:
    unsupported = Unsupported("Toy", drop=True)
    unsupported.refuse("seed")
    unsupported.ignore("user")
    unsupported.refuse("seed")
    assert unsupported.dropped == ["seed", "user"]
