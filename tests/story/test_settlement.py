"""Settled exactly once, and before the client can see the end, however an exchange ends."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from harness import (
    DONE,
    STREAM_HEAD,
    Received,
    Served,
    http_chunk,
    http_reply,
    openai_toml,
    raw_upstream,
    replying,
    serve,
    streaming,
)

from tollkeeper._server.link import Link
from tollkeeper.testing import chunk

ALL_ON = "[plugins.keys]\n[plugins.limits]\nrpm = 1000\n[plugins.routing]\nattempts = 1\n"
PLAIN = http_reply(b'{"choices":[],"usage":{"prompt_tokens":1}}')


class SlowUpstream:
    """Sends its head and one event, then waits to be told to go on."""

    def __init__(self, *, head_first: bool) -> None:
        self.head_first = head_first
        self.reached = trio.Event()
        self.closed = trio.Event()

    async def __call__(self, stream: trio.SocketStream, _received: Received) -> None:
        if self.head_first:
            await stream.send_all(STREAM_HEAD + http_chunk(chunk("first")))
        self.reached.set()
        if not await stream.receive_some(1):
            self.closed.set()


@asynccontextmanager
async def slow_gateway(*, head_first: bool) -> AsyncIterator[tuple[Served, SlowUpstream]]:
    script = SlowUpstream(head_first=head_first)
    async with raw_upstream(script) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            yield gateway, script


def kinds(gateway: Served) -> list[str]:
    return [exchange.outcome.kind if exchange.outcome else "" for exchange in gateway.settled]


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    data = b""
    with trio.fail_after(5):
        while mark not in data:
            more = await stream.receive_some(65536)
            assert more, data
            data += more
    return data


async def test_a_plain_reply_is_settled_before_its_first_byte() -> None:
    async with raw_upstream(replying(PLAIN)) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            stream = await gateway.connect()
            await stream.send_all(gateway.chat_bytes())
            first = await stream.receive_some(1)
            assert (first, kinds(gateway)) == (b"H", ["completed"])
            await stream.aclose()
            await trio.sleep(0.05)
            assert kinds(gateway) == ["completed"]


async def test_a_stream_is_settled_before_done_and_not_before_that() -> None:
    go_on = trio.Event()

    async def script(stream: trio.SocketStream, _received: Received) -> None:
        finish = http_chunk(chunk(None, finish="stop"))
        await stream.send_all(STREAM_HEAD + http_chunk(chunk("a")) + finish)
        await go_on.wait()
        await stream.send_all(http_chunk(DONE) + b"0\r\n\r\n")

    async with raw_upstream(script) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            stream = await gateway.connect()
            await stream.send_all(gateway.chat_bytes(stream=True))
            await read_until(stream, b'"finish_reason": "stop"')
            assert kinds(gateway) == []
            go_on.set()
            first = await stream.receive_some(1)
            assert (len(first), kinds(gateway)) == (1, ["completed"])
            await read_until(stream, b"0\r\n\r\n")
            await stream.aclose()
    assert kinds(gateway) == ["completed"]


@pytest.mark.parametrize(
    ("fields", "reply", "kind"),
    [
        ({"model": "unknown"}, PLAIN, "refused"),
        ({"messages": None}, PLAIN, "refused"),
        ({}, http_reply(b'{"error":{}}', 500), "failed"),
        ({}, http_reply(b'{"error":{}}', 429), "refused"),
        ({"stream": True}, http_reply(b"nonsense", 200), "failed"),
    ],
)
async def test_a_refusal_and_a_failure_are_settled_before_their_first_byte(
    fields: dict[str, object], reply: bytes, kind: str
) -> None:
    async with raw_upstream(replying(reply)) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            stream = await gateway.connect()
            await stream.send_all(gateway.chat_bytes("hello", **fields))
            await stream.receive_some(1)
            assert kinds(gateway) == [kind]
            await stream.aclose()
    assert kinds(gateway) == [kind]


async def test_a_caller_that_is_refused_by_its_key_is_settled_once() -> None:
    async with raw_upstream(replying(PLAIN)) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            gateway.key = "tk-wrong"
            assert (await gateway.chat()).status == 401
    assert kinds(gateway) == ["refused"]
    assert not upstream.requests


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_gone_before_the_head_is_settled_and_the_upstream_let_go(
    stream: bool, reset: bool
) -> None:
    async with slow_gateway(head_first=False) as (gateway, script):
        client = await gateway.connect()
        await client.send_all(gateway.chat_bytes(stream=stream))
        await script.reached.wait()
        assert kinds(gateway) == []
        await leave(client, reset=reset)
        with trio.fail_after(0.25):
            await script.closed.wait()
        await gateway.wait_settled(1)
    assert kinds(gateway) == ["gone"]


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_gone_in_mid_stream_is_settled_and_the_upstream_let_go(reset: bool) -> None:
    async with slow_gateway(head_first=True) as (gateway, script):
        client = await gateway.connect()
        await client.send_all(gateway.chat_bytes(stream=True))
        await read_until(client, b"first")
        assert kinds(gateway) == []
        await leave(client, reset=reset)
        with trio.fail_after(0.25):
            await script.closed.wait()
        await gateway.wait_settled(1)
    assert kinds(gateway) == ["gone"]


async def test_a_client_that_sends_ahead_and_leaves_is_noticed_too() -> None:
    async with slow_gateway(head_first=False) as (gateway, script):
        client = await gateway.connect()
        await client.send_all(gateway.chat_bytes() + b"G")
        await script.reached.wait()
        await leave(client, reset=False)
        with trio.fail_after(0.25):
            await script.closed.wait()
        await gateway.wait_settled(1)
    assert kinds(gateway) == ["gone"]


async def test_a_client_gone_while_it_uploads_is_settled_and_never_reaches_the_upstream() -> None:
    async with raw_upstream(replying(PLAIN)) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            client = await gateway.connect()
            await client.send_all(gateway.chat_bytes()[:-5])
            await trio.sleep(0.05)
            await leave(client, reset=False)
            await gateway.wait_settled(1)
    assert kinds(gateway) == ["gone"]
    assert not upstream.requests


async def test_a_client_that_stops_reading_is_given_up() -> None:
    async def endless(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(STREAM_HEAD)
        while True:
            await stream.send_all(http_chunk(chunk("x" * 60000)))

    async with raw_upstream(endless) as upstream:
        toml = "[server]\nwrite_timeout = 0.3\n" + openai_toml(upstream, plugins=ALL_ON)
        async with serve(toml) as gateway:
            client = await gateway.connect()
            await client.send_all(gateway.chat_bytes(stream=True))
            await gateway.wait_settled(1)
            await client.aclose()
    assert kinds(gateway) == ["gone"]


async def test_shutdown_lets_a_stream_end_within_the_grace_and_settles_it() -> None:
    async def script(stream: trio.SocketStream, received: Received) -> None:
        await stream.send_all(STREAM_HEAD + http_chunk(chunk("first")))
        await trio.sleep(0.3)
        await stream.send_all(http_chunk(chunk(None, finish="stop")) + http_chunk(DONE))
        await stream.send_all(b"0\r\n\r\n")

    async with raw_upstream(script) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            client = await gateway.connect()
            await client.send_all(gateway.chat_bytes(stream=True))
            await read_until(client, b"first")
            gateway.server.stop()
            rest = await read_until(client, b"0\r\n\r\n")
            with trio.fail_after(3):
                await gateway.server.over.wait()
            await client.aclose()
            with pytest.raises(OSError, match="all attempts"):
                await gateway.connect()
    assert b"[DONE]" in rest
    assert kinds(gateway) == ["completed"]


async def test_shutdown_cuts_what_is_left_after_the_grace_and_settles_it() -> None:
    script = SlowUpstream(head_first=True)
    async with raw_upstream(script) as upstream:
        toml = "[server]\ngrace = 0.3\n" + openai_toml(upstream, plugins=ALL_ON)
        async with serve(toml) as gateway:
            clients = [await gateway.connect() for _ in range(5)]
            for client in clients:
                await client.send_all(gateway.chat_bytes(stream=True))
                await read_until(client, b"first")
            gateway.server.stop()
            with trio.fail_after(3):
                await gateway.server.over.wait()
            for client in clients:
                await client.aclose()
    assert kinds(gateway) == ["stopped"] * 5


async def test_idle_connections_do_not_hold_up_a_shutdown() -> None:
    async with raw_upstream(replying(PLAIN)) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            link = Link(await gateway.connect())
            await link.request(gateway.chat_bytes())
            while await link.chunk():
                pass
            gateway.server.stop()
            with trio.fail_after(2):
                await gateway.server.over.wait()
            await link.aclose()


async def test_a_storm_of_clients_that_leave_settles_each_exchange_once() -> None:
    async def script(stream: trio.SocketStream, received: Received) -> None:
        await streaming(*[chunk("x")] * 50)(stream, received)
        await trio.sleep(0.02)

    async with raw_upstream(script) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            async with trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(leave_after, gateway, (number % 20) / 500)
            await gateway.wait_settled(200)
            await trio.sleep(0.1)
            ids = [exchange.id for exchange in gateway.settled]
            assert len(ids) == len(set(ids)) == 200
            assert gateway.server.generations.current.live == 0


async def leave_after(gateway: Served, seconds: float) -> None:
    client = await gateway.connect()
    await client.send_all(gateway.chat_bytes(stream=True))
    await read_until(client, b"HTTP/1.1") if seconds > 0.02 else await trio.sleep(seconds)
    await trio.sleep(0.02)
    await client.aclose()


async def leave(client: trio.SocketStream, *, reset: bool) -> None:
    if reset:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    await client.aclose()
