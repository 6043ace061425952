"""Replies on their way: what is no JSON, what was dropped, and models that cannot do a thing."""

import pytest

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
from tollkeeper.testing import ScriptedUpstream, open_gateway


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
