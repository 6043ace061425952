"""Requests per minute as clients meet them: exact, on every reply, only for what counts."""

from typing import Any

import pytest

from tollkeeper.errors import Refused, UpstreamError
from tollkeeper.exchange import Attempt, Exchange
from tollkeeper.hookspecs import hookimpl
from tollkeeper.settings import PluginSettings
from tollkeeper.testing import (
    DONE,
    Answered,
    JumpClock,
    ScriptedUpstream,
    TestGateway,
    chunk,
    open_gateway,
)
from tollkeeper_limits import duration

LIMITS = "[plugins.limits]\nrpm = {}\n"
KEYS = "[plugins.keys]\n"


def left(reply: Answered) -> tuple[str, str, str]:
    """What the headers of a reply say: limit, remaining, reset."""
    names = ("limit", "remaining", "reset")
    limit, remaining, reset = (reply.headers[f"x-ratelimit-{n}-requests"] for n in names)
    return limit, remaining, reset


async def remaining(gateway: TestGateway) -> int:
    """How many requests the caller has left, asked without taking one."""
    return int((await gateway.get("/v1/models")).headers["x-ratelimit-remaining-requests"])


async def test_the_limit_is_admitted_and_no_more_and_all_of_it_again_after_a_minute() -> None:
    clock, upstream = JumpClock(), ScriptedUpstream()
    async with open_gateway(upstream, LIMITS.format(3), clock=clock) as gateway:
        for _ in range(2):
            assert [(await gateway.chat()).status for _ in range(5)] == [200] * 3 + [429] * 2
            clock.jump(59.999)
            assert (await gateway.chat()).status == 429
            clock.jump(0.001)
    assert len(upstream.bodies) == 6


async def test_a_refusal_is_the_error_of_the_http_contract() -> None:
    async with open_gateway(toml=LIMITS.format(1), clock=JumpClock()) as gateway:
        await gateway.chat()
        refused = await gateway.chat()
    assert refused.status == 429
    assert refused.json()["error"] == {
        "message": "Rate limit exceeded: 1 RPM",
        "type": "rate_limit",
        "param": None,
        "code": "rate_limit",
    }
    assert gateway.settled[-1].outcome
    assert gateway.settled[-1].outcome.kind == "refused"


@pytest.mark.parametrize("pauses", [[0], [0.5, 20.25], [59.9], [30, 0.001, 12.3456], [59.9999]])
async def test_a_request_sent_when_the_refusal_says_so_passes(pauses: list[float]) -> None:
    clock = JumpClock()
    async with open_gateway(toml=LIMITS.format(len(pauses)), clock=clock) as gateway:
        for pause in pauses:
            assert (await gateway.chat()).status == 200
            clock.jump(pause)
        refused = await gateway.chat()
        assert refused.status == 429
        exact = int(refused.headers["retry-after-ms"]) / 1000
        assert exact <= int(refused.headers["retry-after"]) < exact + 1
        now = clock.now
        clock.now = now + exact - 0.002
        assert (await gateway.chat()).status == 429
        clock.now = now + exact
        assert (await gateway.chat()).status == 200


async def test_every_reply_says_what_is_left() -> None:
    clock = JumpClock()
    async with open_gateway(toml=LIMITS.format(2), clock=clock) as gateway:
        assert left(await gateway.get("/v1/models")) == ("2", "2", "0ms")
        assert left(await gateway.chat()) == ("2", "1", "1m0s")
        clock.jump(15)
        assert left(await gateway.get("/v1/models")) == ("2", "1", "45s")
        assert left(await gateway.chat(stream=True)) == ("2", "0", "1m0s")
        clock.jump(1.5)
        assert left(await gateway.chat()) == ("2", "0", "58.5s")
        assert left(await gateway.get("/v1/models/none")) == ("2", "0", "58.5s")
        assert left(await gateway.post("/v1/chat/completions", [])) == ("2", "0", "58.5s")
        clock.jump(43.5)
        assert left(await gateway.get("/v1/models/test")) == ("2", "1", "15s")


async def test_an_upstream_error_says_what_is_left_and_has_counted() -> None:
    upstream = ScriptedUpstream()
    upstream.reply({"error": {"message": "no"}}, status=400)
    upstream.reply({"error": {"message": "no"}}, status=500)
    upstream.stream(chunk("a"), UpstreamError("broken", "gone"))
    async with open_gateway(upstream, LIMITS.format(5), clock=JumpClock()) as gateway:
        replies = [await gateway.chat(), await gateway.chat(), await gateway.chat(stream=True)]
        assert [reply.status for reply in replies] == [400, 502, 200]
        assert [left(reply)[1] for reply in replies] == ["4", "3", "2"]
        assert await remaining(gateway) == 2


async def test_listing_models_does_not_count() -> None:
    async with open_gateway(toml=LIMITS.format(1), clock=JumpClock()) as gateway:
        for _ in range(3):
            assert (await gateway.get("/v1/models")).status == 200
            assert (await gateway.get("/v1/models/test")).status == 200
        assert (await gateway.chat()).status == 200
        assert (await gateway.chat()).status == 429
        assert (await gateway.get("/v1/models")).status == 200


def refusing(stage: str) -> type[Any]:
    """A plugin that refuses every call in one stage."""

    async def refuse(self: object) -> None:
        raise Refused(403, "auth_error", "no")

    def build(self: object, settings: PluginSettings) -> None:
        pass

    return type("Refusing", (), {"__init__": build, stage: hookimpl(trylast=True)(refuse)})


@pytest.mark.parametrize("stage", ["admit", "transform_request", "respond", "route", "attempt"])
async def test_a_place_is_given_back_where_a_later_stage_refuses(stage: str) -> None:
    plugins = {"refusing": refusing(stage)}
    async with open_gateway(toml=LIMITS.format(2), plugins=plugins, clock=JumpClock()) as gateway:
        for _ in range(5):
            refused = await gateway.chat()
            assert refused.status == 403
            assert left(refused)[1] == "2", "as if it had never come"
        assert await remaining(gateway) == 2


async def test_a_place_is_given_back_where_the_model_is_unknown() -> None:
    async with open_gateway(toml=LIMITS.format(1), clock=JumpClock()) as gateway:
        for _ in range(5):
            assert (await gateway.chat(model="none")).code == "model_not_found"
        assert (await gateway.chat()).status == 200
        assert (await gateway.chat(model="none")).status == 429


async def test_a_malformed_request_takes_no_place() -> None:
    async with open_gateway(toml=LIMITS.format(1), clock=JumpClock()) as gateway:
        assert (await gateway.post("/v1/chat/completions", {"model": "test"})).status == 400
        assert await remaining(gateway) == 1


async def test_a_place_is_kept_where_a_refusal_came_once_something_went_upstream() -> None:
    class Refusing:
        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        async def attempt(self, exchange: Exchange, attempt: Attempt) -> None:
            if attempt.number > 1:
                raise Refused(429, "rate_limit", "one try is enough")

    upstream = ScriptedUpstream()
    upstream.reply({"error": {"message": "no"}}, status=500)
    toml = LIMITS.format(2) + "[plugins.routing]\nbackoff = 0.001\n"
    async with open_gateway(
        upstream, toml, plugins={"strict": Refusing}, clock=JumpClock()
    ) as gateway:
        assert (await gateway.chat()).status == 429
        assert len(upstream.bodies) == 1
        assert await remaining(gateway) == 1


async def test_a_client_that_leaves_keeps_its_place_taken() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("a"), 3600, chunk("b"), DONE)
    async with open_gateway(upstream, LIMITS.format(2), clock=JumpClock()) as gateway:
        body = b'{"model": "test", "messages": [], "stream": true}'
        async with gateway.open("POST", "/v1/chat/completions", body) as link:
            await link.chunk()
        while not gateway.settled:
            await gateway.get("/healthz")
        assert gateway.settled[0].outcome
        assert gateway.settled[0].outcome.kind == "gone"
        assert await remaining(gateway) == 1


async def test_without_keys_all_callers_share_one_window() -> None:
    async with open_gateway(toml=LIMITS.format(2), clock=JumpClock()) as gateway:
        statuses = []
        for name in "abc":
            gateway.key = f"tk-{name}"
            statuses.append((await gateway.chat()).status)
    assert statuses == [200, 200, 429]


async def test_with_keys_each_has_a_window_of_its_own_and_may_have_a_limit_of_its_own() -> None:
    async with open_gateway(toml=KEYS + LIMITS.format(2), clock=JumpClock()) as gateway:
        plain, other = await gateway.create_key("plain"), await gateway.create_key("other")
        small, large = await gateway.create_key("s", rpm=1), await gateway.create_key("l", rpm=4)
        passed = {}
        for key, limit in ((plain, 2), (small, 1), (large, 4), (other, 2)):
            gateway.key = key
            replies = [await gateway.chat() for _ in range(6)]
            passed[key] = [reply.status for reply in replies].count(200)
            assert left(replies[0])[0] == str(limit)
            if limit < 6:
                assert f"{limit} RPM" in replies[-1].json()["error"]["message"]
    assert passed == {plain: 2, small: 1, large: 4, other: 2}


async def test_a_caller_that_nobody_knows_is_told_of_nobodys_limit() -> None:
    async with open_gateway(toml=KEYS + LIMITS.format(2), clock=JumpClock()) as gateway:
        gateway.key = "tk-unknown"
        refused = await gateway.chat()
        assert refused.status == 401
        assert not any(name.startswith("x-ratelimit") for name in refused.headers)
        gateway.key = await gateway.create_key()
        assert await remaining(gateway) == 2


async def test_a_window_outlives_a_switch_that_leaves_the_limit_as_it_was() -> None:
    async with open_gateway(toml=LIMITS.format(1), clock=JumpClock()) as gateway:
        assert (await gateway.chat()).status == 200
        await gateway.switch(LIMITS.format(1) + "[plugins.routing]\n")
        assert (await gateway.chat()).status == 429
        await gateway.switch("")
        reply = await gateway.chat()
        assert reply.status == 200
        assert not any(name.startswith("x-ratelimit") for name in reply.headers)


async def test_what_is_held_is_popped_so_that_nothing_is_left_of_a_call() -> None:
    async with open_gateway(toml=LIMITS.format(1), clock=JumpClock()) as gateway:
        await gateway.chat()
        await gateway.chat(model="none")
        await gateway.chat()
    assert [exchange.holds for exchange in gateway.settled] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.02, "20ms"),
        (0.0201, "21ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (60, "1m0s"),
        (90.5, "1m30.5s"),
        (360, "6m0s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
