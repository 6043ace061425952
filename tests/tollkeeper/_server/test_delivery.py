"""Replies on their way: what is no JSON, what was dropped, and models that cannot do a thing."""

import socket

import pytest
import trio
from harness import DONE, STREAM_HEAD, Received, http_chunk, openai_toml, raw_upstream, serve

from tollkeeper import (
    Attempt,
    Dialect,
    Exchange,
    Gateway,
    Operation,
    PluginSettings,
    UpstreamError,
    hookimpl,
)
from tollkeeper._server.link import Link
from tollkeeper.testing import ScriptedUpstream, chunk, open_gateway


class SoundDialect(Dialect):
    name = "sound"
    json_only = False


class Sound:
    """An operation whose replies may be anything."""

    def __init__(self, settings: PluginSettings) -> None:
        pass

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        operation = Operation("sound", "POST", "/v1/sound", dialect=SoundDialect())
        gateway.add_operation(operation)


REQUEST = {"model": "test", "input": "hello"}


def sounding() -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    upstream.dialects = {"sound"}
    return upstream


@pytest.mark.parametrize("parts", [[b"RIFF"], [b"RI", b"FF", b"\x00\xff" * 1000]])
async def test_sound_passes_as_it_comes_under_its_own_content_type(parts: list[bytes]) -> None:
    upstream = sounding()
    upstream.raw("audio/mpeg", *parts)
    async with open_gateway(upstream, plugins={"sound": Sound}) as gateway:
        reply = await gateway.post("/v1/sound", REQUEST)
        assert reply.headers["content-type"] == "audio/mpeg"
        assert reply.body == b"".join(parts)
        (exchange,) = gateway.settled
    assert exchange.outcome is not None
    assert exchange.outcome.kind == "completed"


async def test_sound_that_breaks_off_ends_the_connection_without_a_clean_end() -> None:
    upstream = sounding()
    broken = UpstreamError("broken", "the upstream left")
    upstream.raw("audio/mpeg", b"RIFF", b"more", broken)
    async with open_gateway(upstream, plugins={"sound": Sound}) as gateway:
        with pytest.raises(UpstreamError, match="middle"):
            await gateway.post("/v1/sound", REQUEST)
        (exchange,) = gateway.settled
    assert exchange.outcome is not None
    assert exchange.outcome.kind == "failed"


async def test_json_where_sound_may_come_is_judged_like_any_json() -> None:
    upstream = sounding()
    upstream.reply({"error": {"message": "busy", "type": "overloaded_error"}})
    upstream.reply({"text": "hello", "usage": {"input_tokens": 2, "output_tokens": 1}})
    async with open_gateway(upstream, plugins={"sound": Sound}) as gateway:
        assert (await gateway.post("/v1/sound", REQUEST)).status >= 500
        assert (await gateway.post("/v1/sound", REQUEST)).json()["text"] == "hello"
        usage = gateway.settled[1].attempts[0].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (2, 1)


async def test_a_model_whose_providers_cannot_do_it_is_the_requests_mistake() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, plugins={"sound": Sound}) as gateway:
        reply = await gateway.post("/v1/sound", REQUEST)
        assert (reply.status, reply.json()["error"]["param"]) == (400, "model")
        assert "/v1/sound" in reply.json()["error"]["message"]
        unknown = await gateway.post("/v1/sound", {**REQUEST, "model": "none"})
        assert (unknown.status, unknown.code) == (404, "model_not_found")
    assert upstream.bodies == []


class Dropping:
    """Notes parameters as dropped, one of them with a name that a client made up."""

    def __init__(self, settings: PluginSettings) -> None:
        pass

    @hookimpl
    async def attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        attempt.dropped += ["seed", "ev\r\nil: \u2603"]


async def test_what_was_dropped_is_listed_in_a_header_that_holds_nothing_else() -> None:
    async with open_gateway(plugins={"dropping": Dropping}) as gateway:
        reply = await gateway.chat()
    assert reply.headers["x-tollkeeper-dropped"] == "seed, ev??il: ?"


class Stepping(trio.abc.Instrument):
    """Notes the tasks that run."""

    def __init__(self) -> None:
        self.tasks: set[trio.lowlevel.Task] = set()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.tasks.add(task)


async def test_a_stream_that_is_under_way_passes_without_a_step_of_the_task_that_handles_it() -> (
    None
):
    async def slow(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(STREAM_HEAD)
        for number in range(30):
            await stream.send_all(http_chunk(chunk(str(number))))
            await trio.sleep(0.01)
        await stream.send_all(http_chunk(DONE) + b"0\r\n\r\n")

    async with raw_upstream(slow) as upstream:
        async with serve(openai_toml(upstream)) as gateway:
            link = Link(await gateway.connect())
            await link.request(gateway.chat_bytes(stream=True))
            received, stepping = b"", Stepping()
            while b'"2"' not in received:
                received += await link.chunk()
            trio.lowlevel.add_instrument(stepping)
            while b'"28"' not in received:
                received += await link.chunk()
            trio.lowlevel.remove_instrument(stepping)
            while part := await link.chunk():
                received += part
            await link.aclose()
            await gateway.wait_settled(1)
            (exchange,) = gateway.settled
    assert received == b"".join(chunk(str(number)) for number in range(30)) + DONE
    handlers = [task for task in stepping.tasks if task.name.endswith("_run_handler")]
    assert len(handlers) == 1, "only the one of the upstream"
    assert exchange.outcome is not None
    assert exchange.outcome.kind == "completed"
    assert 20 < exchange.attempts[0].seen_tokens <= 30


async def test_a_client_that_reads_late_makes_the_upstream_wait_and_gets_everything() -> None:
    events = [chunk(f"{number} " + "x" * 50_000) for number in range(400)]
    sent = 0

    async def fast(stream: trio.SocketStream, _received: Received) -> None:
        nonlocal sent
        await stream.send_all(STREAM_HEAD)
        for event in events:
            await stream.send_all(http_chunk(event))
            sent += 1
        await stream.send_all(http_chunk(DONE) + b"0\r\n\r\n")

    async with raw_upstream(fast) as upstream:
        async with serve(openai_toml(upstream)) as gateway:
            client = await gateway.connect()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            await client.send_all(gateway.chat_bytes(stream=True))
            await trio.sleep(0.5)
            assert sent < len(events)
            link, received = Link(client), b""
            await link.request(b"")
            while part := await link.chunk():
                received += part
            await link.aclose()
    assert received == b"".join(events) + DONE
