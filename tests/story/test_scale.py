"""Many clients at once, some of which read nothing, and one that reads as fast as it can."""

import gc
import json
import os
from pathlib import Path

import trio
from harness import (
    STREAM_HEAD,
    Received,
    Served,
    http_chunk,
    http_reply,
    openai_toml,
    raw_upstream,
    serve,
)

from tollkeeper._server.link import Link
from tollkeeper.testing import DONE, chunk, completion

ALL_ON = "[plugins.keys]\n[plugins.limits]\nrpm = 1000000\n[plugins.routing]\n"
STALLED = int(os.environ.get("TOLLKEEPER_STALLED", "200"))
SECONDS = float(os.environ.get("TOLLKEEPER_STALLED_SECONDS", "2"))
EVENT = http_chunk(chunk("x" * 60000))


async def answer(stream: trio.SocketStream, received: Received) -> None:
    """A stream without end for who asks for one, a completion for others."""
    if b'"stream": true' not in received.body:
        await stream.send_all(http_reply(json.dumps(completion()).encode()))
        return
    await stream.send_all(STREAM_HEAD)
    while True:
        await stream.send_all(EVENT)


async def slowest_of(gateway: Served, calls: int) -> float:
    """Seconds that the slowest of some plain calls took, one after the other."""
    slowest = 0.0
    for _ in range(calls):
        began = trio.current_time()
        assert (await gateway.chat()).status == 200
        slowest = max(slowest, trio.current_time() - began)
    return slowest


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def test_clients_that_stop_reading_hold_up_nobody_and_are_let_go() -> None:
    """The memory they take is that of one event each, wherever the sockets' own lies."""
    async with raw_upstream(answer) as upstream:
        toml = f"[server]\nwrite_timeout = {SECONDS}\n" + openai_toml(upstream, plugins=ALL_ON)
        async with serve(toml) as gateway:
            await gateway.chat()
            before = resident_mib()
            clients = [await gateway.connect() for _ in range(STALLED)]
            for client in clients:
                await client.send_all(gateway.chat_bytes(stream=True))
            with trio.fail_after(30 + SECONDS):
                await slowest_of(gateway, 20)
                assert resident_mib() - before < STALLED  # MiB; an event is 60 kB
                streams = [exchange for exchange in gateway.settled if exchange.stream]
                assert len(streams) < STALLED, "a write is waited for"
                while len(gateway.settled) < STALLED + 21:
                    await trio.sleep(0.01)
            kinds = {e.outcome.kind for e in gateway.settled if e.stream and e.outcome}
            assert kinds == {"gone"}
            for client in clients:
                await trio.aclose_forcefully(client)
            with trio.fail_after(5):
                while gateway.server.shared.pool.busy:
                    await trio.sleep(0.01)
            assert (await gateway.chat()).status == 200


async def test_one_stream_at_full_speed_starves_nobody() -> None:
    async with raw_upstream(answer) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            client = await gateway.connect()
            async with trio.open_nursery() as nursery:
                taken = 0

                async def take() -> None:
                    nonlocal taken
                    while True:
                        taken += len(await client.receive_some(1_000_000))

                await client.send_all(gateway.chat_bytes(stream=True))
                nursery.start_soon(take)
                with trio.fail_after(20):
                    await slowest_of(gateway, 20)
                    while taken < 20_000_000:
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            await client.aclose()


async def test_a_call_leaves_nothing_to_the_garbage_collector() -> None:
    """Two objects that know each other would stay until it runs, with all they hold."""
    calls = 50

    async def brief(stream: trio.SocketStream, received: Received) -> None:
        if b'"stream": true' not in received.body:
            await answer(stream, received)
            return
        events = http_chunk(chunk("a") + chunk(None, finish="stop") + DONE)
        await stream.send_all(STREAM_HEAD + events + b"0\r\n\r\n")

    async with raw_upstream(brief) as upstream:
        async with serve(openai_toml(upstream, plugins=ALL_ON)) as gateway:
            link = Link(await gateway.connect())

            async def ask(streamed: bool) -> None:
                for _ in range(calls):
                    await link.request(gateway.chat_bytes(stream=streamed))
                    while await link.chunk():
                        pass
                gateway.settled.clear()
                upstream.requests.clear()

            for streamed in (False, True):
                await ask(streamed)
                gc.collect()
                gc.disable()
                try:
                    await ask(streamed)
                    assert gc.collect() < calls / 5
                finally:
                    gc.enable()
            await link.aclose()
