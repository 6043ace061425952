"""One connection, over memory: what stories on sockets cannot see."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tollkeeper._server.channel import SocketChannel
from tollkeeper._server.connection import Connection
from tollkeeper._server.delivery import ClientGone
from tollkeeper._server.incoming import Incoming
from tollkeeper._server.rounds import ROUND_SECONDS, Rounds
from tollkeeper._server.writer import KEEP_ALIVE
from tollkeeper.exchange import Head
from tollkeeper.settings import ServerSettings


async def talk(handler: object, data: bytes, **settings: float) -> bytes:
    """Everything that a connection answers to `data`."""
    client, server = trio.testing.memory_stream_pair()
    assert callable(handler)
    connection = Connection(server, "memory", ServerSettings(**settings), handler)  # type: ignore[arg-type]
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.send_all(data)
        with trio.move_on_after(1):
            while more := await client.receive_some(65536):
                received += more
        nursery.cancel_scope.cancel()
    return received


async def test_a_crash_of_the_handler_ends_its_connection_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def crash(_request: Incoming, _connection: Connection) -> None:
        raise RuntimeError("a bug")

    assert await talk(crash, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") == b""
    assert "a bug" in caplog.text


async def test_a_stream_is_framed_in_chunks_and_ended_with_its_last_bytes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def stream(_request: Incoming, connection: Connection) -> None:
        await connection.begin(Head(200, {"a": "1"}), b"one")
        await connection.write(b"two")
        await connection.end(b"three")

    data = await talk(stream, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"


async def test_an_old_client_gets_its_stream_bare_and_the_connection_closed() -> None:
    async def stream(_request: Incoming, connection: Connection) -> None:
        await connection.begin(Head(200, {}), b"one")
        await connection.end(b"two")

    data = await talk(stream, b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    assert (body, b"connection: close" in head) == (b"onetwo", True)


async def test_an_idle_connection_is_closed_by_the_sweep_and_a_busy_one_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    finish = trio.Event()

    async def slow(_request: Incoming, connection: Connection) -> None:
        await finish.wait()
        await connection.send(Head(200, {}), b"done")

    client, server = trio.testing.memory_stream_pair()
    connection = Connection(server, "memory", ServerSettings(keep_alive_timeout=10), slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        connection.sweep(trio.current_time() + 1000)
        finish.set()
        assert (await client.receive_some(65536)).endswith(b"done")
        await trio.testing.wait_all_tasks_blocked()
        connection.sweep(trio.current_time() + 9)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        connection.sweep(trio.current_time() + 11)
        assert await client.receive_some(65536) == b""


@asynccontextmanager
async def looked_at(
    handler: Callable[[Incoming, Connection], Awaitable[None]], **settings: float
) -> AsyncIterator[tuple[trio.SocketStream, Connection, Rounds[Connection]]]:
    """A connection as the server has it, with its sweep, and its client."""
    ours, theirs = trio.socket.socketpair()
    connection = Connection(SocketChannel(ours), "test", ServerSettings(**settings), handler)  # type: ignore[arg-type]
    rounds: Rounds[Connection] = Rounds()
    rounds.plan(connection, 0.0)
    async with trio.open_nursery() as nursery, trio.SocketStream(theirs) as client:
        nursery.start_soon(rounds.run)
        nursery.start_soon(connection.run)
        yield client, connection, rounds
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("silence", [0.0, 2.9, 8.1, 70.0])
async def test_a_stream_is_never_silent_for_more_than_15_seconds(
    silence: float, autojump_clock: trio.testing.MockClock
) -> None:
    async def stream(_request: Incoming, connection: Connection) -> None:
        await connection.begin(Head(200, {"content-type": "text/event-stream"}), b"data: 1\n\n")
        for _ in range(20):
            await trio.sleep(4)
            await connection.write(b"data: 1\n\n")
        await trio.sleep(100)
        await connection.end(b"data: 2\n\n")

    async with looked_at(stream) as (client, _connection, _rounds):
        await trio.sleep(silence)  # also a connection that idled before
        await client.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        before, received = trio.current_time(), b""
        while b"data: 2" not in received:
            received += await client.receive_some()
            assert trio.current_time() - before <= 15
            before = trio.current_time()
    steady, _, silent = received.rpartition(b"data: 1")
    assert KEEP_ALIVE not in steady
    assert 6 <= silent.count(KEEP_ALIVE) <= 7


@pytest.mark.parametrize("timeout", [0.1, 3.0, 75.0])
async def test_an_idle_connection_is_closed_within_half_a_second_of_its_time(
    timeout: float, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer(_request: Incoming, connection: Connection) -> None:
        await trio.sleep(10)
        await connection.send(Head(200, {}), b"done")

    async with looked_at(answer, keep_alive_timeout=timeout) as (client, _connection, _rounds):
        await client.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await client.receive_some()).endswith(b"done")
        idle_since = trio.current_time()
        assert await client.receive_some() == b""
        assert timeout <= trio.current_time() - idle_since <= timeout + 2 * ROUND_SECONDS


async def test_a_connection_that_idles_after_the_drain_began_is_closed_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def stream(_request: Incoming, connection: Connection) -> None:
        await connection.begin(Head(200, {}), b"one")
        await trio.sleep(20)
        await connection.end(b"two")

    async with looked_at(stream) as (client, connection, rounds):
        await client.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.sleep(3)
        connection.draining = True
        rounds.plan(connection, 0.0)
        while b"two" not in await client.receive_some():
            pass
        ended = trio.current_time()
        assert await client.receive_some() == b""
        assert trio.current_time() - ended <= 2 * ROUND_SECONDS


async def test_a_draining_connection_says_that_it_closes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def answer(_request: Incoming, connection: Connection) -> None:
        connection.draining = True
        await connection.send(Head(200, {}), b"last")

    data = await talk(answer, b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert data.count(b"HTTP/1.1 200 OK") == 1
    assert b"connection: close" in data


async def test_a_client_that_takes_nothing_any_more_is_closed_and_not_waited_for() -> None:
    left = trio.Event()

    async def pour(request: Incoming, connection: Connection) -> None:
        request.keep_alive = False
        with pytest.raises(ClientGone):
            await connection.begin(Head(200, {}), b"x" * 20_000_000)
        left.set()

    ours, theirs = trio.socket.socketpair()
    settings = ServerSettings(write_timeout=0.1)
    connection = Connection(SocketChannel(ours), "test", settings, pour)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await theirs.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        with trio.fail_after(2):
            await left.wait()
            while nursery.child_tasks:
                await trio.sleep(0.01)
    theirs.close()
