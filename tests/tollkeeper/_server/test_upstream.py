"""Requests over the pool, and their deadlines. Real sockets."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from harness import RawUpstream, Received, Script, http_reply, raw_upstream, replying

from tollkeeper import ProviderSettings, UpstreamError, UpstreamRequest
from tollkeeper._server.link import Sink
from tollkeeper._server.pool import Pool
from tollkeeper._server.upstream import MAX_BODY, PooledUpstream

GET = UpstreamRequest("GET", "/thing", [(b"x-mine", b"1")])


@asynccontextmanager
async def pooled(
    script: Script, **settings: float
) -> AsyncIterator[tuple[PooledUpstream, RawUpstream]]:
    async with raw_upstream(script) as raw:
        pool = Pool()
        table = ProviderSettings.model_validate({"kind": "x", "base_url": raw.base_url, **settings})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run)
            yield PooledUpstream(pool, table), raw
            await pool.aclose()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("epoll", [True, False])
async def test_requests_go_to_the_base_url_and_connections_are_used_again(
    epoll: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not epoll:
        monkeypatch.setattr("tollkeeper._server.channel.current_poller", lambda: None)
    async with pooled(replying(http_reply(b"yes"))) as (upstream, raw):
        for _ in range(3):
            reply = await upstream.send(GET, None)
            assert await reply.read() == b"yes"
    assert raw.connections == 1
    assert raw.requests[0].head.startswith(b"GET /v1/thing HTTP/1.1\r\n")
    assert raw.requests[0].header("host") == f"127.0.0.1:{raw.port}"
    assert raw.requests[0].header("x-mine") == "1"


async def test_a_reply_that_is_given_up_closes_its_connection() -> None:
    async def endless(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
        while True:
            await stream.send_all(b"x" * 65536)

    async with pooled(endless) as (upstream, raw):
        reply = await upstream.send(GET, None)
        assert await reply.chunk()
        await reply.aclose()
        await reply.aclose()
        assert await reply.chunk() == b""
        with trio.fail_after(2):
            while not raw.gone:
                await trio.sleep(0.005)


async def test_an_idle_connection_that_the_upstream_closed_is_not_used() -> None:
    async def once(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(http_reply(b"yes"))
        await stream.aclose()

    async with pooled(once) as (upstream, raw):
        for _ in range(3):
            assert await (await upstream.send(GET, None)).read() == b"yes"
            await trio.sleep(0.02)
    assert raw.connections == 3


async def silent(_stream: trio.SocketStream, _received: Received) -> None:
    await trio.sleep_forever()


async def half(stream: trio.SocketStream, _received: Received) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    await trio.sleep_forever()


async def dripping(stream: trio.SocketStream, _received: Received) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while True:
        await stream.send_all(b"x")
        await trio.sleep(0.02)


async def read_whole(upstream: PooledUpstream) -> bytes:
    reply = await upstream.send(GET, None)
    try:
        return await reply.read()
    finally:
        await reply.aclose()


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        (silent, {"first_byte_timeout": 0.1}),
        (silent, {"timeout": 0.1}),
        (half, {"idle_timeout": 0.1}),
        (dripping, {"timeout": 0.2}),
    ],
)
async def test_each_deadline_is_kept(script: Script, settings: dict[str, float]) -> None:
    async with pooled(script, **settings) as (upstream, _):
        with pytest.raises(UpstreamError) as raised:
            await read_whole(upstream)
    assert raised.value.fault == "timeout"


def into(taken: list[bytes]) -> Sink:
    def sink(part: bytes) -> bool:
        taken.append(part)
        return True

    return sink


@pytest.mark.parametrize("settings", [{"idle_timeout": 0.2}, {"timeout": 0.5}])
async def test_a_sink_that_is_fed_keeps_the_deadlines(settings: dict[str, float]) -> None:
    async def for_a_while(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(16):
            await stream.send_all(b"x")
            await trio.sleep(0.05)
        await trio.sleep_forever()

    async with pooled(for_a_while, **settings) as (upstream, _):
        taken: list[bytes] = []
        reply = await upstream.send(GET, None)
        with pytest.raises(UpstreamError) as raised:
            await reply.pour(into(taken))
        await reply.aclose()
    assert raised.value.fault == "timeout"
    assert (len(taken) == 16) == ("idle_timeout" in settings), "idle, it is longer than it may"


async def test_a_reply_that_went_into_a_sink_leaves_its_connection_to_the_next() -> None:
    async with pooled(replying(http_reply(b"yes"))) as (upstream, raw):
        for _ in range(3):
            taken: list[bytes] = []
            reply = await upstream.send(GET, None)
            await reply.pour(into(taken))
            assert (b"".join(taken), reply.closed) == (b"yes", True)
            await reply.pour(into(taken))
            assert taken[-1] == b""
    assert raw.connections == 1


async def in_two_parts(stream: trio.SocketStream, _received: Received) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n")
    await trio.sleep(0.05)
    await stream.send_all(b"x" * 10_000_000)


async def test_a_client_that_takes_long_for_what_has_arrived_is_no_fault_of_the_upstream() -> None:
    async with pooled(in_two_parts, idle_timeout=0.2) as (upstream, _):
        reply = await upstream.send(GET, None)
        taken = len(await reply.chunk())
        await trio.sleep(0.6)
        assert taken + len(await reply.read()) == 10_000_000


@pytest.mark.parametrize("epoll", [True, False])
async def test_a_reset_is_no_end_of_a_body_that_the_connection_delimits(
    epoll: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reset(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await trio.sleep(0.02)
        linger = struct.pack("ii", 1, 0)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await trio.aclose_forcefully(stream)

    if not epoll:
        monkeypatch.setattr("tollkeeper._server.channel.current_poller", lambda: None)
    async with pooled(reset) as (upstream, _):
        with pytest.raises(UpstreamError, match="broke"):
            await read_whole(upstream)


async def test_nobody_there_is_a_connect_fault_and_an_unwilling_kernel_a_timeout() -> None:
    pool = Pool()
    nobody = ProviderSettings(kind="x", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(UpstreamError) as raised:
        await PooledUpstream(pool, nobody).send(GET, None)
    assert raised.value.fault == "connect"


async def test_a_body_beyond_the_cap_is_broken() -> None:
    async def huge(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * MAX_BODY))
        for _ in range(2 * MAX_BODY // 2**20):
            await stream.send_all(b"x" * 2**20)

    async with pooled(huge) as (upstream, _):
        reply = await upstream.send(GET, None)
        with pytest.raises(UpstreamError, match="larger"):
            await reply.read()
        await reply.aclose()


async def test_a_header_cannot_smuggle_a_line() -> None:
    async with pooled(replying(http_reply(b"yes"))) as (upstream, raw):
        evil = UpstreamRequest("GET", "/", [(b"x", b"1\r\nhost: evil")])
        with pytest.raises(UpstreamError, match="line break"):
            await upstream.send(evil, None)
    assert raw.connections == 0


async def test_a_storm_of_cancelled_requests_leaves_the_pool_usable() -> None:
    async def slow(stream: trio.SocketStream, _received: Received) -> None:
        await trio.sleep(0.01)
        await stream.send_all(http_reply(b"yes"))

    async with pooled(slow) as (upstream, _):

        async def ask(patience: float) -> None:
            with trio.move_on_after(patience):
                await (await upstream.send(GET, None)).read()

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(ask, number / 10_000)
        assert await (await upstream.send(GET, None)).read() == b"yes"
