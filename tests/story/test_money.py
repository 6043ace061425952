"""The money of a call, on real sockets: one hold before it, one end after it, whoever leaves when.

The upstream's journal is the truth: what it was asked is in the ledger, under the id it was told.
"""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import pytest
import trio
from harness import (
    DONE,
    STREAM_HEAD,
    RawUpstream,
    Received,
    Script,
    Served,
    http_chunk,
    http_reply,
    openai_toml,
    raw_upstream,
    replying,
    serve,
    streaming,
)
from processes import address, free_port, run, running

from tollkeeper import PluginError
from tollkeeper.errors import find_error
from tollkeeper.testing import Answered, chunk, usage_chunk
from tollkeeper_metering.rows import Rows
from tollkeeper_metering.service import Ledger
from tollkeeper_metering.usage import ATTEMPT_FIELDS, attempts

PRICE = 'price = { input = "1", output = "2" }\nmax_output = 500\n'
"""1000 nano-USD for an input token, 2000 for one of output."""
METERING = "[plugins.metering]\n"
BUDGET = """
[plugins.budgets]
limits = [{ scope = "gateway", amount = "1", period = "total" }]
"""
PLAIN = http_reply(b'{"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":20}}')
USAGE_END = http_chunk(usage_chunk(30, 20)) + http_chunk(DONE) + b"0\r\n\r\n"
COST = 30 * 1000 + 20 * 2000


def money_toml(upstream: RawUpstream, extra: str = "", metering: str = METERING) -> str:
    return openai_toml(upstream, plugins=PRICE + metering + BUDGET, extra=extra)


def ledger_of(gateway: Served) -> Ledger:
    ledger = gateway.server.shared.lasting["metering"]
    assert isinstance(ledger, Ledger)
    return ledger


async def rows(gateway: Served) -> list[dict[str, Any]]:
    """Every attempt in the ledger, once all that has ended is written."""
    ledger = ledger_of(gateway)
    ledger._hand_over()
    found = await ledger._writer.ask(lambda database: list(attempts(database)))
    return [dict(zip(ATTEMPT_FIELDS, row, strict=True)) for row in found]


async def ended(gateway: Served, count: int = 1) -> list[dict[str, Any]]:
    """The same, once so many calls have settled; nothing is held then."""
    await gateway.wait_settled(count)
    assert ledger_of(gateway).held == 0
    return await rows(gateway)


@contextlib.asynccontextmanager
async def metered(script: Script, extra: str = "") -> AsyncIterator[tuple[Served, RawUpstream]]:
    async with raw_upstream(script) as upstream:
        async with serve(money_toml(upstream, extra)) as gateway:
            yield gateway, upstream


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database of the gateways of this test, in a file."""
    make = harness.make_database  # type: ignore[attr-defined] # what conftest.py put there
    monkeypatch.setattr(harness, "make_database", lambda *_: make("sqlite:///my.db", tmp_path))
    return tmp_path / "my.db"


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    data = b""
    with trio.fail_after(5):
        while mark not in data:
            more = await stream.receive_some(65536)
            assert more, data
            data += more
    return data


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.002)


# The upstream's ways to end a call.


async def test_a_plain_and_a_streamed_call_are_posted_under_the_id_that_the_upstream_was_told() -> (
    None
):
    async def script(stream: trio.SocketStream, received: Received) -> None:
        if received.json().get("stream"):
            await streaming(chunk("a"), chunk("b"), usage_chunk(30, 20), DONE)(stream, received)
        else:
            await stream.send_all(PLAIN)

    async with metered(script) as (gateway, upstream):
        assert (await gateway.chat()).status == 200
        assert (await gateway.chat(stream=True)).text() == "ab"
        found = await ended(gateway, 2)
    assert [row["state"] for row in found] == ["posted"] * 2
    assert [row["cost_nanousd"] for row in found] == [COST] * 2
    told = [request.header("x-client-request-id") for request in upstream.requests]
    assert [row["attempt_id"] for row in found] == told
    assert len(set(told)) == 2


async def test_where_nobody_listens_the_call_is_void() -> None:
    upstream = RawUpstream(free_port(), replying(b""))
    async with serve(money_toml(upstream)) as gateway:
        assert (await gateway.chat()).status == 502
        (row,) = await ended(gateway)
    assert (row["state"], row["evidence"]) == ("voided", "estimated")
    assert (row["charge_nanousd"], row["exposure_nanousd"]) == (0, 0)


BREAKS = {
    "before the head": b"",
    "in the head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "behind the head": b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n",
    "in the body": PLAIN[:-10],
    "no HTTP": b"220 smtp.example.com ready\r\n",
    "before the first event": STREAM_HEAD,
    "in the first event": STREAM_HEAD + http_chunk(chunk("a")[:20]),
}


@pytest.mark.parametrize("data", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_breaks_before_anything_is_seen_costs_nothing(
    data: bytes, reset: bool
) -> None:
    async def script(stream: trio.SocketStream, _received: Received) -> None:
        if data:
            await stream.send_all(data)
        await leave(stream, reset=reset)

    async with metered(script) as (gateway, _):
        assert (await gateway.chat()).status >= 500
        (row,) = await ended(gateway)
    assert (row["state"], row["evidence"], row["charge_nanousd"]) == ("estimated", "estimated", 0)
    assert row["exposure_nanousd"] == row["hold_nanousd"] > 0


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_breaks_in_mid_stream_is_charged_for_what_was_seen(
    reset: bool,
) -> None:
    async def script(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(STREAM_HEAD + http_chunk(chunk("a") * 10))
        await trio.sleep(0.02)
        await leave(stream, reset=reset)

    async with metered(script) as (gateway, _):
        assert b"error" in (await gateway.chat(stream=True)).body
        (row,) = await ended(gateway)
    assert (row["state"], row["evidence"]) == ("estimated", "counted")
    assert 7 <= row["output_tokens"] <= 10
    assert 0 < row["charge_nanousd"] <= row["hold_nanousd"]


async def test_a_connection_that_breaks_behind_its_usage_is_posted() -> None:
    async def script(stream: trio.SocketStream, _received: Received) -> None:
        finish = chunk(None, finish="stop")
        await stream.send_all(STREAM_HEAD + http_chunk(chunk("a") + finish + usage_chunk(30, 20)))
        await trio.sleep(0.02)
        await leave(stream, reset=False)

    async with metered(script) as (gateway, _):
        await gateway.chat(stream=True)
        (row,) = await ended(gateway)
    assert (row["state"], row["cost_nanousd"]) == ("posted", COST)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_a_call_that_the_upstream_refuses_is_void(status: int) -> None:
    async with metered(replying(http_reply(b'{"error":{"message":"no"}}', status))) as (
        gateway,
        _,
    ):
        assert (await gateway.chat()).status >= 400
        (row,) = await ended(gateway)
    assert (row["state"], row["charge_nanousd"], row["exposure_nanousd"]) == ("voided", 0, 0)


# Clients that leave.


async def leave(client: trio.SocketStream, *, reset: bool) -> None:
    if reset:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    await client.aclose()


class Patient:
    """An upstream that goes so far, then waits to be told to go on, unless it is let go."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.reached = trio.Event()
        self.go_on = trio.Event()
        self.let_go = trio.Event()

    async def __call__(self, stream: trio.SocketStream, received: Received) -> None:
        place, streams = self.place, received.json().get("stream", False)
        if place != "head":
            await stream.send_all(STREAM_HEAD)
        if place == "middle":
            await stream.send_all(http_chunk(chunk("") + chunk("first") * 5))
        self.reached.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, stream, nursery.cancel_scope)
            await self.go_on.wait()
            nursery.cancel_scope.cancel()
        if self.let_go.is_set():
            return
        if not streams:
            await stream.send_all(PLAIN)
            return
        if place == "head":
            await stream.send_all(STREAM_HEAD)
        await stream.send_all(http_chunk(chunk("last") * 5) + USAGE_END)

    async def _watch(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.receive_some(1)
        self.let_go.set()
        scope.cancel()


def has_left(gateway: Served) -> bool:
    return any(connection.cut == "gone" for connection in gateway.server.connections)


PLACES = ["plain", "head", "first", "middle"]
WAYS = ["fin", "rst", "pipelined", "half-closed"]


async def leaving(policy: str, place: str, way: str) -> tuple[dict[str, Any], Patient, Served]:
    script = Patient("head" if place == "plain" else place)
    async with metered(script, f'on_disconnect = "{policy}"') as (gateway, _):
        client = await gateway.connect()
        ahead = b"G" if way == "pipelined" else b""
        await client.send_all(gateway.chat_bytes(stream=place != "plain") + ahead)
        await script.reached.wait()
        if place == "middle":
            await read_until(client, b"first")
        if way == "half-closed":
            await client.send_eof()
        else:
            await leave(client, reset=way == "rst")
        await until(lambda: has_left(gateway) or gateway.settled)
        script.go_on.set()
        (row,) = await ended(gateway)
        await client.aclose()
    assert [e.outcome.kind for e in gateway.settled if e.outcome] == ["gone"]
    return row, script, gateway


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_call_whose_client_left_is_read_on_for_its_usage(place: str, way: str) -> None:
    row, script, _ = await leaving("drain", place, way)
    assert (row["state"], row["evidence"], row["cost_nanousd"]) == ("posted", "provider", COST)
    assert not script.let_go.is_set()


@pytest.mark.parametrize("policy", ["cancel", "estimate"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_call_whose_client_left_is_stopped_and_charged_for_what_was_seen(
    place: str, way: str, policy: str
) -> None:
    row, _, _ = await leaving(policy, place, way)
    assert row["state"] == "estimated"
    assert row["output_tokens"] <= (5 if place == "middle" else 0)
    assert row["charge_nanousd"] <= row["hold_nanousd"]
    assert row["charge_nanousd"] + row["exposure_nanousd"] == row["hold_nanousd"]


async def test_an_upstream_that_never_ends_is_let_go_after_drain_seconds() -> None:
    script = Patient("middle")
    async with metered(script, "drain_seconds = 0.1") as (gateway, _):
        client = await gateway.connect()
        await client.send_all(gateway.chat_bytes(stream=True))
        await read_until(client, b"first")
        await leave(client, reset=False)
        with trio.fail_after(5):
            await script.let_go.wait()
        (row,) = await ended(gateway)
    assert (row["state"], row["evidence"]) == ("estimated", "counted")


async def test_a_client_that_stops_reading_is_drained_no_longer_than_one_that_left() -> None:
    async def endless(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(STREAM_HEAD)
        while True:
            await stream.send_all(http_chunk(chunk("x" * 60_000)))

    async with raw_upstream(endless) as upstream:
        toml = money_toml(upstream, "drain_seconds = 0.1\ndrain_usd = 1000")
        async with serve("[server]\nwrite_timeout = 0.2\n" + toml) as gateway:
            client = await gateway.connect()
            await client.send_all(gateway.chat_bytes(stream=True))
            (row,) = await ended(gateway)
            await client.aclose()
            await until(lambda: upstream.gone)
    assert (row["state"], row["evidence"]) == ("estimated", "counted")
    assert row["charge_nanousd"] <= row["hold_nanousd"]


async def test_an_upstream_that_says_too_much_is_let_go_after_drain_usd() -> None:
    async def endless(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(STREAM_HEAD)
        while True:
            await stream.send_all(http_chunk(chunk("first") * 5))
            await trio.sleep(0.001)

    async with metered(endless, 'drain_usd = "0.0002"') as (gateway, upstream):  # 100 tokens
        client = await gateway.connect()
        await client.send_all(gateway.chat_bytes(stream=True))
        await read_until(client, b"first")
        await leave(client, reset=False)
        (row,) = await ended(gateway)
        await until(lambda: upstream.gone)
    assert (row["state"], row["evidence"]) == ("estimated", "counted")
    assert 90 <= row["output_tokens"] < 400


async def test_a_client_that_leaves_while_its_hold_waits_leaves_nothing_open(file: Path) -> None:
    async with metered(replying(PLAIN)) as (gateway, upstream):
        with locked(file):
            client = await gateway.connect()
            await client.send_all(gateway.chat_bytes())
            await until(lambda: ledger_of(gateway)._waiting)
            await leave(client, reset=True)
            await gateway.wait_settled(1)
            assert ledger_of(gateway).held == 0
        assert {row["state"] for row in await rows(gateway)} <= {"voided"}
        assert (await gateway.chat()).status == 200
        assert (await rows(gateway))[-1]["state"] == "posted"
    assert len(upstream.requests) == 1


# The database.


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_a_hold_can_be_read_by_others_before_the_upstream_gets_a_byte(file: Path) -> None:
    found: list[tuple[Any, ...]] = []

    async def script(stream: trio.SocketStream, received: Received) -> None:
        other = sqlite3.connect(file)
        told = received.header("x-client-request-id")
        sql = (
            "SELECT h.number, h.amount_nanousd > 0, e.hold FROM metering_hold h"
            " LEFT JOIN metering_entry e ON e.hold = h.id WHERE attempt_id = ?"
        )
        found.extend(other.execute(sql, (told,)).fetchall())
        other.close()
        await stream.send_all(PLAIN)

    async with metered(script) as (gateway, _):
        for _ in range(20):
            assert (await gateway.chat()).status == 200
    assert found == [(1, 1, None)] * 20


async def test_while_the_database_is_locked_calls_are_refused_and_running_ones_end(
    file: Path,
) -> None:
    script = Patient("middle")
    metering = METERING + "hold_timeout = 0.2\n"
    async with raw_upstream(script) as upstream:
        async with serve(money_toml(upstream, metering=metering)) as gateway:
            client = await gateway.connect()
            await client.send_all(gateway.chat_bytes(stream=True))
            await read_until(client, b"first")
            with locked(file):
                refused = await gateway.chat()
                assert (refused.status, refused.headers["retry-after"]) == (503, "5")
                assert refused.code == "server_error"
                script.go_on.set()
                assert b"[DONE]" in await read_until(client, b"0\r\n\r\n")
                assert len(upstream.requests) == 1
                assert ledger_of(gateway).held == 0
            await client.aclose()
            script.place = "head"
            assert (await gateway.chat()).status == 200
            found = await ended(gateway, 3)
    assert {row["state"] for row in found} <= {"posted", "expired"}
    posted = [row for row in found if row["state"] == "posted"]
    told = [request.header("x-client-request-id") for request in upstream.requests]
    assert [row["attempt_id"] for row in posted] == told
    assert [row["cost_nanousd"] for row in posted] == [COST] * 2


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 3 MiB, with the database of the gateways of this test."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    make = harness.make_database  # type: ignore[attr-defined] # what conftest.py put there
    monkeypatch.setattr(harness, "make_database", lambda *_: make("sqlite:///my.db", tmp_path))
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def test_on_a_full_disk_new_calls_are_refused_running_ones_end_and_all_goes_on_with_room(
    small_disk: Path,
) -> None:
    script = Patient("middle")
    metering = METERING + 'ballast = "1MiB"\n'
    async with raw_upstream(script) as upstream:
        async with serve(money_toml(upstream, metering=metering)) as gateway:
            client = await gateway.connect()
            await client.send_all(gateway.chat_bytes(stream=True))
            await read_until(client, b"first")
            hog = small_disk / "hog"
            with hog.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            script.go_on.set()
            script.place = "head"
            answered: list[Answered] = []
            while not answered or answered[-1].status == 200:  # a few rows may find room yet
                answered.append(await gateway.chat())
            assert (answered[-1].status, answered[-1].headers["retry-after"]) == (503, "5")
            assert "its disk is full" in answered[-1].json()["error"]["message"]
            assert len(upstream.requests) == len(answered)
            assert b"[DONE]" in await read_until(client, b"0\r\n\r\n")
            await client.aclose()
            hog.unlink()
            await until(lambda: not ledger_of(gateway)._writer.trouble)
            assert (await gateway.chat()).status == 200
            found = await rows(gateway)
    told = [request.header("x-client-request-id") for request in upstream.requests]
    posted = [row["attempt_id"] for row in found if row["state"] == "posted"]
    assert sorted(posted) == sorted(told)


async def test_a_second_gateway_on_the_same_file_does_not_start(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollkeeper_metering.ballast.PATIENCE", 0.0)
    async with metered(replying(PLAIN)) as (gateway, upstream):
        with pytest.raises(BaseExceptionGroup) as refused:
            await serve(money_toml(upstream)).__aenter__()
        assert "another gateway keeps its ledger in" in str(find_error(refused.value, PluginError))
        assert (await gateway.chat()).status == 200
        assert [row["state"] for row in await ended(gateway)] == ["posted"]


async def test_a_crash_of_the_ledgers_thread_stops_the_gateway_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("bug")

    async with raw_upstream(replying(PLAIN)) as upstream:
        async with serve("[server]\ngrace = 0.5\n" + money_toml(upstream)) as gateway:
            with monkeypatch.context() as patch:
                patch.setattr(Rows, "write", crash)
                refused = await gateway.chat()
                with trio.fail_after(10):
                    await gateway.server.over.wait()
    assert refused.status == 503
    assert gateway.server.exit_code == 1
    assert upstream.requests == []


# Shutdown.


async def test_a_stream_that_ends_within_the_grace_is_posted(file: Path) -> None:
    script = Patient("middle")
    async with metered(script) as (gateway, _):
        client = await gateway.connect()
        await client.send_all(gateway.chat_bytes(stream=True))
        await read_until(client, b"first")
        gateway.server.stop()
        script.go_on.set()
        assert b"[DONE]" in await read_until(client, b"0\r\n\r\n")
        await client.aclose()
        with trio.fail_after(10):
            await gateway.server.over.wait()
    assert states_in(file) == [("posted", "provider", COST)]


async def test_a_stream_that_is_cut_at_the_end_of_the_grace_is_charged_for_what_was_seen(
    file: Path,
) -> None:
    script = Patient("middle")
    async with raw_upstream(script) as upstream:
        toml = "[server]\ngrace = 0.2\n" + money_toml(upstream)
        async with serve(toml) as gateway:
            client = await gateway.connect()
            await client.send_all(gateway.chat_bytes(stream=True))
            await read_until(client, b"first")
            gateway.server.stop()
            with trio.fail_after(10):
                await gateway.server.over.wait()
            await client.aclose()
    ((state, evidence, charge),) = states_in(file)
    assert (state, evidence) == ("estimated", "counted")
    assert charge <= 5 * 2000 + 1000 * 10


async def test_a_stream_that_is_being_read_on_is_cut_at_the_end_of_the_grace_too(
    file: Path,
) -> None:
    script = Patient("middle")
    async with raw_upstream(script) as upstream:
        toml = "[server]\ngrace = 0.2\n" + money_toml(upstream)
        async with serve(toml) as gateway:
            client = await gateway.connect()
            await client.send_all(gateway.chat_bytes(stream=True))
            await read_until(client, b"first")
            await leave(client, reset=True)
            await until(lambda: has_left(gateway))
            gateway.server.stop()
            with trio.fail_after(10):
                await gateway.server.over.wait()
    assert [state for state, _, _ in states_in(file)] == ["estimated"]


def states_in(file: Path) -> list[tuple[str, str, int]]:
    other = sqlite3.connect(file)
    found = other.execute("SELECT state, evidence, charge_nanousd FROM metering_entry").fetchall()
    other.close()
    return found


# Many at once.


async def test_the_ledger_has_what_the_upstreams_journal_has_after_a_storm() -> None:
    """Calls of all kinds, a third of which leave somewhere."""

    async def script(stream: trio.SocketStream, received: Received) -> None:
        document = received.json()
        kind = int(document["messages"][0]["content"]) % 5
        if kind == 0:
            await stream.send_all(http_reply(b'{"error":{}}', 500))
        elif kind == 1:
            await stream.send_all(PLAIN[:-20])
            await stream.aclose()
        elif document.get("stream"):
            await stream.send_all(STREAM_HEAD)
            for _ in range(10):
                await stream.send_all(http_chunk(chunk("a")))
                await trio.sleep(0.001)
            await stream.send_all(USAGE_END)
        else:
            await stream.send_all(PLAIN)

    async def call(gateway: Served, number: int) -> None:
        with trio.move_on_after(0.003 * (number % 7) if number % 3 == 0 else 10):
            await gateway.chat(str(number), stream=number % 2 == 0)

    async with metered(script) as (gateway, upstream):
        async with trio.open_nursery() as nursery:
            for number in range(240):
                nursery.start_soon(call, gateway, number)
        await until(lambda: not gateway.server.generations.current.live)
        found = await rows(gateway)
        assert ledger_of(gateway).held == 0
    told = [request.header("x-client-request-id") for request in upstream.requests]
    assert len(told) == len(set(told))
    ids = [row["attempt_id"] for row in found]
    assert len(ids) == len(set(ids))
    assert set(told) <= set(ids)
    unseen = [row for row in found if row["attempt_id"] not in told]
    assert {row["charge_nanousd"] for row in unseen} <= {0}
    posted = {row["attempt_id"] for row in found if row["state"] == "posted"}
    assert posted <= set(told)
    assert {row["cost_nanousd"] for row in found if row["state"] == "posted"} == {COST}
    assert "open" not in {row["state"] for row in found}


async def test_a_bound_goes_upstream_under_the_name_that_its_service_knows() -> None:
    async with metered(replying(PLAIN)) as (gateway, upstream):
        await gateway.chat()
        await gateway.chat(max_completion_tokens=7)
        await gateway.chat(max_tokens=7)
    bodies = [request.json() for request in upstream.requests]
    bounds = [{k: v for k, v in body.items() if k.startswith("max")} for body in bodies]
    assert bounds == [{"max_tokens": 500}, {"max_tokens": 7}, {"max_tokens": 7}]
    async with metered(replying(PLAIN), 'preset = "openai"') as (gateway, upstream):
        await gateway.chat()
    assert upstream.requests[0].json()["max_completion_tokens"] == 500


async def test_a_call_that_no_budget_covers_goes_upstream_byte_for_byte() -> None:
    bodies = [
        b'{"model":"m", "messages":[]}',
        b'{"messages":[],"max_completion_tokens" : 7,"model":"m"}\n',
        b'{"model":"m","messages":[],"max_tokens":null,"x":1.50}',
    ]
    async with raw_upstream(replying(PLAIN)) as upstream:
        async with serve(openai_toml(upstream, plugins=PRICE + METERING)) as gateway:
            for body in bodies:
                length = {"content-length": str(len(body))}
                head = gateway.head("POST", "/v1/chat/completions", length)
                assert (await gateway.ask(head + body)).status == 200
            assert [row["state"] for row in await ended(gateway, 3)] == ["posted"] * 3
    assert [request.body for request in upstream.requests] == bodies


# A process of its own.

PROCESS = """
[server]
bind = "127.0.0.1:{port}"
[providers.up]
kind = "openai"
base_url = "{base_url}"
[models.m]
deployments = [{{ provider = "up", model = "m" }}]
price = {{ input = "1", output = "2" }}
[plugins.openai]
[plugins.metering]
"""


def exported(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tollkeeper", "ledger", "export", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_second_process_is_refused_and_what_a_killed_one_left_open_is_closed_once(
    tmp_path: Path,
) -> None:
    script = Patient("middle")
    async with raw_upstream(script) as upstream:
        toml = PROCESS.format(port=free_port(), base_url=upstream.base_url)
        (tmp_path / "tollkeeper.toml").write_text(toml)
        in_thread = trio.to_thread.run_sync
        with contextlib.ExitStack() as stack:
            started = lambda: stack.enter_context(running("serve", cwd=tmp_path))  # noqa: E731
            process, printed = await in_thread(started)
            port = int(address(printed).rsplit(":", 1)[1])
            client = await trio.open_tcp_stream("127.0.0.1", port)
            body = json.dumps(harness.chat_body(stream=True)).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
            await client.send_all(head.encode() + b"\r\n\r\n" + body)
            await read_until(client, b"first")
            (held,) = await in_thread(exported, tmp_path)
            assert held["state"] == "open"
            (tmp_path / "other.toml").write_text(toml.replace(str(port), str(free_port())))
            second = await in_thread(lambda: run("serve", "--config", "other.toml", cwd=tmp_path))
            lines = (second.stdout + second.stderr).splitlines()
            told = [line for line in lines if "another gateway keeps its ledger in" in line]
            assert (second.returncode, len(told)) == (1, 1)
            assert "Traceback" not in "".join(lines)
            assert await in_thread(exported, tmp_path) == [held]
            os.kill(process.pid, signal.SIGKILL)
            await client.aclose()
        for _ in range(2):
            with contextlib.ExitStack() as stack:
                await in_thread(started)
                (closed,) = await in_thread(exported, tmp_path)
    assert (closed["state"], closed["evidence"]) == ("estimated", "estimated")
    assert (closed["cost_nanousd"], closed["charge_nanousd"]) == (0, 0)
    assert closed["exposure_nanousd"] == closed["hold_nanousd"] == held["hold_nanousd"]
    assert closed["attempt_id"] == upstream.requests[0].header("x-client-request-id")
