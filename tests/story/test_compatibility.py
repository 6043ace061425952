"""The matrix: each dialect of clients x each provider x plain or stream x each feature."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from compatibility import gemini
from compatibility.answers import AGAIN, ANSWERS, TEXT, Answer, dropped, expected, measured
from compatibility.cells import NATIVE, Cell, cells, pairs
from compatibility.clients import READERS, Got
from compatibility.faults import (
    BROKEN,
    FAULTS,
    REPORTED,
    TERMINAL,
    TOLD_WITHIN,
    WITHIN,
    Told,
    check_error,
    check_error_within,
)
from compatibility.requests import ALIAS, PATHS, Json, going_on, odd, request
from compatibility.upstreams import SECRET, Native, http_stream, native_of
from harness import RawUpstream, Received, Served, http_reply, raw_upstream, serve

from tollkeeper.exchange import Exchange
from tollkeeper.testing import Answered

CELLS = list(cells())
SERVED = [cell for cell in CELLS if not cell.refused]
REFUSED = [cell for cell in CELLS if cell.refused]
PAIRS = pairs()
GO_ON = ("tools", "parallel tools", "reasoning")


@dataclass(slots=True)
class Between:
    """A client of one dialect, and an upstream that speaks its provider's own."""

    served: Served
    upstream: RawUpstream
    dialect: str

    async def ask(self, body: bytes) -> Answered:
        headers = {"authorization": "Bearer of-the-client", "x-api-key": "of-the-client"}
        headers["content-length"] = str(len(body))
        head = self.served.head("POST", PATHS[self.dialect], headers)
        with trio.fail_after(5):
            return await self.served.ask(head + body)

    @property
    def settled(self) -> Exchange:
        return self.served.settled[-1]


@asynccontextmanager
async def between(
    dialect: str, native: Native, *replies: bytes, closes: bool = False, alias: str = ALIAS
) -> AsyncIterator[Between]:
    waiting = list(replies)

    async def script(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(waiting.pop(0))
        if closes:
            await stream.aclose()

    async with raw_upstream(script) as upstream:
        async with serve(native.toml(upstream, alias)) as served:
            yield Between(served, upstream, dialect)


def holds(found: object, wanted: object, place: str = "$") -> None:
    """Objects hold at least what is wanted, lists item by item, all else is equal."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict), place
        for key, value in wanted.items():
            assert key in found, f"{place}.{key} is missing in {found}"
            holds(found[key], value, f"{place}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list), place
        assert len(found) == len(wanted), f"{place} has {len(found)} items: {found}"
        for index, value in enumerate(wanted):
            holds(found[index], value, f"{place}[{index}]")
    else:
        assert found == wanted, f"{place}: {found!r} is not {wanted!r}"


def on_the_wire(cell: Cell, native: Native, answer: Answer) -> tuple[bytes, bytes]:
    """An upstream's reply: its body, and all of it."""
    if not cell.streamed:
        body = odd(native.data.reply(answer))
        return body, http_reply(body)
    frames = native.frames(answer, odd)
    return b"".join(frames), http_stream(frames)


def check_head(cell: Cell, native: Native, received: Received) -> None:
    path = native.stream_path if cell.streamed else native.path
    assert received.head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
    name, value = native.credential
    assert received.header(name) == value
    assert b"of-the-client" not in received.head


def check_body(cell: Cell, native: Native, sent: bytes, received: Received) -> None:
    if cell.native:
        assert received.body == as_sent_on(cell, native, sent)
        return
    body = received.json()
    holds(body, native.data.WANTED.get(cell.feature, {}))
    if cell.provider != "gemini":  # there both stand in the path
        assert (body["model"], body.get("stream", False)) == (native.model, cell.streamed)
    if native.name == "openai_chat" and cell.streamed:
        assert body["stream_options"]["include_usage"] is True


def as_sent_on(cell: Cell, native: Native, sent: bytes) -> bytes:
    """A request of the same dialect: under the upstream's name, and asked for its usage."""
    body = sent.replace(f'"model" : "{ALIAS}"'.encode(), f'"model" : "{native.model}"'.encode())
    if cell.streamed and cell.dialect == "chat" and b"include_usage" not in body:
        body = body[:-1] + b',"stream_options":{"include_usage":true}}'
    return body


def as_passed_on(cell: Cell, native: Native, whole: bytes) -> bytes:
    """A reply of the same dialect: under the client's name, and without usage not asked for."""
    if cell.streamed and cell.dialect == "chat" and cell.feature != "usage":
        events = whole.split(b"\n\n")
        whole = b"\n\n".join(e for e in events if b'"choices" : []' not in e)
    snapshot = native.data.SNAPSHOT
    return whole.replace(f'"model" : "{snapshot}"'.encode(), f'"model" : "{ALIAS}"'.encode())


@pytest.mark.parametrize("cell", SERVED, ids=str)
async def test_a_cell_carries_its_feature_both_ways(cell: Cell) -> None:
    native = native_of(cell.dialect, cell.provider)
    answer = ANSWERS[cell.feature]
    body, wire = on_the_wire(cell, native, answer)
    _, next_wire = on_the_wire(cell, native, AGAIN)
    asked = request(cell)
    sent = odd(asked) if cell.native else json.dumps(asked).encode()
    async with between(cell.dialect, native, wire, next_wire) as both:
        reply = await both.ask(sent)
        assert reply.status == 200, reply.body
        (received,) = both.upstream.requests
        check_head(cell, native, received)
        check_body(cell, native, sent, received)
        assert reply.headers.get("x-tollkeeper-dropped", "") == dropped(cell)
        if cell.native:
            assert reply.body == as_passed_on(cell, native, body)
        got = READERS[cell.dialect, cell.streamed](reply)
        assert got.answer == expected(cell, answer)
        (attempt,) = both.settled.attempts
        assert attempt.usage == measured(cell, answer)
        if cell.feature in GO_ON:
            await check_going_on(cell, both, asked, got)


async def check_going_on(cell: Cell, both: Between, asked: Json, got: Got) -> None:
    """What the client got goes back with more, and reaches the upstream as it was."""
    native = native_of(cell.dialect, cell.provider)
    wanted = wanted_again(cell, native)
    reply = await both.ask(json.dumps(going_on(cell, asked, got.turn, got.call_ids)).encode())
    assert reply.status == 200, reply.body
    turns = both.upstream.requests[-1].json()[native.turns]
    holds(turns[-len(wanted) :], wanted)
    second = READERS[cell.dialect, cell.streamed](reply)
    assert second.answer == expected(cell, AGAIN)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("dialect", "provider"), sorted(NATIVE))
async def test_nothing_at_all_is_changed_where_nothing_must_be(
    dialect: str, provider: str, streamed: bool
) -> None:
    cell, native = Cell(dialect, provider, streamed, "usage"), native_of(dialect, provider)
    sent = odd({**request(cell), "model": native.model})
    body, wire = on_the_wire(cell, native, ANSWERS["usage"])
    if streamed:
        body = b": kept\r\n\r\n" + body.replace(b"\n", b"\r\n")
        wire = http_stream([body])
    async with between(dialect, native, wire, alias=native.model) as both:
        reply = await both.ask(sent)
        assert both.upstream.requests[0].body == sent
        assert reply.body == body


@pytest.mark.parametrize("cell", REFUSED, ids=str)
async def test_what_cannot_be_done_is_refused_by_the_name_of_its_parameter(cell: Cell) -> None:
    native = native_of(cell.dialect, cell.provider)
    async with between(cell.dialect, native) as both:
        reply = await both.ask(json.dumps(request(cell)).encode())
        assert reply.status == 400
        error = reply.json()["error"]
        assert f"'{cell.refused}'" in error["message"]
        if cell.dialect == "messages":
            assert error["type"] == "invalid_request_error"
        else:
            assert (error["param"], error["code"]) == (cell.refused, "invalid_request")
        assert both.upstream.requests == []
        assert both.settled.outcome is not None
        assert both.settled.outcome.kind == "refused"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("dialect", "provider"), PAIRS)
async def test_an_error_before_the_reply_is_one_of_the_clients_dialect(
    dialect: str, provider: str, streamed: bool, fault: str
) -> None:
    cell, native = Cell(dialect, provider, streamed, "text"), native_of(dialect, provider)
    status, document = REPORTED[provider][fault]
    wire = http_reply(json.dumps(document).encode(), status, "retry-after: 7\r\n")
    if streamed and status == 200:
        wire = http_stream([native.frame(document, odd)])
    async with between(dialect, native, wire) as both:
        reply = await both.ask(json.dumps(request(cell)).encode())
        check_error(dialect, FAULTS[fault], reply)
        assert SECRET.encode() not in reply.body
        if fault == "rate limit":
            assert reply.headers["retry-after"] == "7"
        (attempt,) = both.settled.attempts
        assert attempt.usage is None


@pytest.mark.parametrize(("dialect", "provider"), PAIRS)
async def test_an_error_event_is_one_of_the_clients_dialect(dialect: str, provider: str) -> None:
    native = native_of(dialect, provider)
    frames = begun(native)
    frames.append(native.frame(WITHIN[native.name], odd))
    async with between(dialect, native, http_stream(frames)) as both:
        told = TOLD_WITHIN[native.name]
        await check_broken(both, Cell(dialect, provider, True, "text"), told)


@pytest.mark.parametrize("closes", [False, True], ids=["ended", "closed"])
@pytest.mark.parametrize(("dialect", "provider"), PAIRS)
async def test_a_stream_without_its_end_is_an_error_and_no_clean_end(
    dialect: str, provider: str, closes: bool
) -> None:
    native = native_of(dialect, provider)
    wire = http_stream(begun(native), ends=not closes)
    async with between(dialect, native, wire, closes=closes) as both:
        await check_broken(both, Cell(dialect, provider, True, "text"), BROKEN)


def begun(native: Native) -> list[bytes]:
    """A stream up to what says that it is over."""
    return native.frames(ANSWERS["text"], odd)[: -TERMINAL[native.name]]


async def check_broken(both: Between, cell: Cell, told: Told) -> None:
    reply = await both.ask(json.dumps(request(cell)).encode())
    check_error_within(cell.dialect, told, reply)
    for piece in (TEXT[:3], TEXT[-8:]):
        assert json.dumps(piece)[1:-1].encode() in ascii_of(reply.body)
    assert both.settled.outcome is not None
    assert both.settled.outcome.kind == "failed"


def ascii_of(body: bytes) -> bytes:
    """A stream with its characters escaped, as JSON may write them or not."""
    return re.sub(r"[^\x00-\x7f]", lambda m: json.dumps(m[0])[1:-1], body.decode()).encode()


def wanted_again(cell: Cell, native: Native) -> list[Json]:
    """How the turns of the second request end. Messages carry no signature of a call."""
    wanted: list[Json] = native.data.WANTED_AGAIN[cell.feature]
    if (cell.dialect, cell.provider) == ("messages", "gemini") and cell.feature != "reasoning":
        text = json.dumps(wanted).replace(gemini.SIGNATURE, gemini.NO_SIGNATURE)
        wanted = json.loads(text)
    return wanted
