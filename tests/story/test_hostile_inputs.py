"""Thousands of hostile inputs: the process lives, and every answer is well-formed and no 5xx.

`TOLLKEEPER_HOSTILE=20000` runs more of them, `TOLLKEEPER_SEED=N` the same ones again.
"""

import json
import logging
import os
import random

import httptools
import pytest
import trio
from harness import Served, http_reply, openai_toml, raw_upstream, replying, serve
from hostile import hostile_inputs

from tollkeeper.testing import completion

COUNT = int(os.environ.get("TOLLKEEPER_HOSTILE", "2500"))
SEED = int(os.environ.get("TOLLKEEPER_SEED", str(random.randrange(10**9))))
AT_ONCE = 50


class Replies:
    """What came back, as an HTTP client reads it."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []
        self.whole = True
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.bodies.append(b"")
        self.whole = False

    def on_headers_complete(self) -> None:
        self.statuses.append(self.parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        self.bodies[-1] += body

    def on_message_complete(self) -> None:
        self.whole = True


async def provoke(gateway: Served, data: bytes) -> Replies:
    """Send, say that nothing more comes after a moment, and read to the end."""
    client = await gateway.connect()
    replies = Replies()
    try:
        await client.send_all(data)
        with trio.move_on_after(0.3):
            while received := await client.receive_some(65536):
                replies.parser.feed_data(received)
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(client)
    return replies


async def test_hostile_inputs_get_well_formed_refusals_and_nothing_breaks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    print(f"seed {SEED}, {COUNT} inputs")  # noqa: T201 -- shown when the test fails
    caplog.set_level(logging.WARNING)
    reply = http_reply(json.dumps(completion()).encode())
    async with raw_upstream(replying(reply)) as upstream:
        async with serve(openai_toml(upstream, plugins="[plugins.keys]\n")) as gateway:
            inputs = hostile_inputs(SEED, COUNT, gateway.key.encode())

            async def provoke_all() -> None:
                while inputs:
                    data = inputs.pop()
                    replies = await provoke(gateway, data)
                    assert all(
                        status < 500 or status in (501, 505) for status in replies.statuses
                    ), (
                        data,
                        replies.statuses,
                    )
                    assert replies.whole, data
                    for status, body in zip(replies.statuses, replies.bodies, strict=True):
                        if status >= 400:
                            assert set(json.loads(body)["error"]) >= {"message", "type", "code"}

            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(provoke_all)
            assert (await gateway.chat()).status == 200
    assert "Traceback" not in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


STORM = int(os.environ.get("TOLLKEEPER_CANCELS", "2000"))


async def test_cancelled_calls_leave_no_link_no_task_and_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each client leaves at another moment: while connecting (20 ms), waiting, reading."""
    open_tcp_stream = trio.open_tcp_stream

    async def slow_open(host: str, port: int, **options: object) -> trio.SocketStream:
        if port == upstream.port:
            await trio.sleep(0.02)
        return await open_tcp_stream(host, port)

    async with raw_upstream(replying(http_reply(json.dumps(completion()).encode()))) as upstream:
        async with serve(openai_toml(upstream, plugins="[plugins.keys]\n")) as gateway:
            assert (await gateway.chat()).status == 200
            monkeypatch.setattr(trio, "open_tcp_stream", slow_open)
            descriptors = len(os.listdir("/proc/self/fd"))
            chance = random.Random(SEED)

            async def leave_early(count: int) -> None:
                for _ in range(count):
                    client = await open_tcp_stream("127.0.0.1", gateway.port)
                    await client.send_all(gateway.chat_bytes())
                    with trio.move_on_after(chance.random() * 0.03):
                        await client.receive_some(65536)
                    await trio.aclose_forcefully(client)

            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(leave_early, STORM // 100)
            await gateway.wait_settled(STORM // 100 * 100 + 1)
            pool = gateway.server.shared.pool
            with trio.fail_after(10):
                while pool.busy or pool.idle or len(gateway.server.connections):
                    await trio.sleep(0.1)
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
            assert gateway.server.generations.current.live == 0
            assert len({exchange.id for exchange in gateway.settled}) == len(gateway.settled)
            assert (await gateway.chat()).status == 200


async def test_one_fast_stream_does_not_starve_others() -> None:
    from harness import STREAM_HEAD, Received, http_chunk

    from tollkeeper.testing import chunk

    async def flood(stream: trio.SocketStream, received: Received) -> None:
        if not received.json().get("stream"):
            await stream.send_all(http_reply(json.dumps(completion()).encode()))
            return
        await stream.send_all(STREAM_HEAD)
        burst = http_chunk(chunk("x" * 1000)) * 60
        while True:
            await stream.send_all(burst)

    async with raw_upstream(flood) as upstream:
        async with serve(openai_toml(upstream, plugins="[plugins.keys]\n")) as gateway:
            async with trio.open_nursery() as nursery:
                client = await gateway.connect()
                await client.send_all(gateway.chat_bytes(stream=True))

                async def drain() -> None:
                    while await client.receive_some(65536):
                        pass

                nursery.start_soon(drain)
                await trio.sleep(0.1)
                for _ in range(20):
                    with trio.fail_after(2):
                        assert (await gateway.chat()).status == 200
                nursery.cancel_scope.cancel()
            await client.aclose()
