"""Several deployments behind one model, as a client and its upstreams see it."""

from collections import Counter

import pytest
import trio
import trio.testing

from tollkeeper.errors import UpstreamError
from tollkeeper.testing import DONE, Answered, ScriptedUpstream, TestGateway, chunk, open_gateway

ROUTING = "[plugins.routing]\n"
MODELS = """
[models.two]
deployments = [
  { provider = "scripted", model = "first", weight = 1 },
  { provider = "scripted", model = "second", weight = 0 },
]
"""
EVEN = """
[models.even]
deployments = [
  { provider = "scripted", model = "first" },
  { provider = "scripted", model = "second" },
]
"""


def tried(upstream: ScriptedUpstream) -> list[str]:
    return [attempt.deployment.model for attempt in upstream.attempts]


def broken(
    upstream: ScriptedUpstream, *statuses: int, headers: dict[str, str] | None = None
) -> None:
    for status in statuses:
        upstream.reply({"error": {"message": "no"}}, status=status, headers=headers)


async def ask(gateway: TestGateway, model: str = "two", *, stream: bool = False) -> Answered:
    return await gateway.chat(model=model, stream=stream)


async def test_a_client_does_not_notice_that_a_deployment_broke_and_the_next_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = ScriptedUpstream()
    broken(upstream, 500, 503)
    async with open_gateway(upstream, ROUTING + MODELS) as gateway:
        reply = await ask(gateway)
        (exchange,) = gateway.settled
    assert (reply.status, reply.text()) == (200, "hello")
    assert reply.json()["model"] == "two"
    assert tried(upstream) == ["first", "first", "second"]
    assert [attempt.number for attempt in exchange.attempts] == [1, 2, 3]
    assert exchange.deployment
    assert exchange.deployment.model == "second"
    assert all(scripted.closed for scripted in upstream.replies)


async def test_a_stream_that_fails_before_its_first_event_goes_to_the_next_deployment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = ScriptedUpstream()
    upstream.stream(b": busy\n\n", UpstreamError("broken", "gone"))
    upstream.stream(b'data: {"error": {"message": "no", "code": 503}}\n\n')
    upstream.stream(chunk("hi"), chunk(None, finish="stop"), DONE)
    async with open_gateway(upstream, ROUTING + MODELS) as gateway:
        reply = await ask(gateway, stream=True)
    assert (reply.status, reply.text()) == (200, "hi")
    assert tried(upstream) == ["first", "first", "second"]


async def test_a_stream_that_breaks_after_its_first_event_is_not_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("hi"), UpstreamError("broken", "gone"))
    async with open_gateway(upstream, ROUTING + MODELS) as gateway:
        reply = await ask(gateway, stream=True)
    assert tried(upstream) == ["first"]
    assert "server_error" in reply.events()[-2]
    assert reply.events()[-1] == "[DONE]"


async def test_when_all_fail_the_client_is_told_of_the_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = ScriptedUpstream()
    broken(upstream, 500, 500)
    upstream.fail(UpstreamError("timeout", "slow"))
    async with open_gateway(upstream, ROUTING + MODELS) as gateway:
        reply = await ask(gateway)
    assert (reply.status, reply.code) == (504, "timeout")
    assert len(upstream.attempts) == 3


async def test_a_rate_limit_of_all_deployments_reaches_the_client_with_its_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = ScriptedUpstream()
    broken(upstream, 429, 429, headers={"retry-after": "30"})
    async with open_gateway(upstream, ROUTING + MODELS) as gateway:
        began = trio.current_time()
        reply = await ask(gateway)
        assert trio.current_time() == began
    assert (reply.status, reply.headers["retry-after"]) == (429, "30")
    assert tried(upstream) == ["first", "second"]


async def test_a_short_wait_at_the_only_deployment_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = ScriptedUpstream()
    broken(upstream, 429, headers={"retry-after": "4"})
    async with open_gateway(upstream, ROUTING) as gateway:
        began = trio.current_time()
        assert (await gateway.chat()).status == 200
        assert trio.current_time() == began + 4
    assert tried(upstream) == ["test", "test"]


async def test_what_the_client_did_wrong_is_asked_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = ScriptedUpstream()
    broken(upstream, 422)
    async with open_gateway(upstream, ROUTING + MODELS) as gateway:
        assert (await ask(gateway)).status == 422
    assert tried(upstream) == ["first"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ("attempts = 1", ["first"]),
        ("retries = 0", ["first", "second"]),
        ("retries = 5\nattempts = 4", ["first"] * 4),
    ],
)
async def test_the_settings_bound_the_tries(
    settings: str, wanted: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    upstream = ScriptedUpstream()
    broken(upstream, *[500] * 9)
    async with open_gateway(upstream, f"{ROUTING}{settings}\n{MODELS}") as gateway:
        assert (await ask(gateway)).status == 502
    assert tried(upstream) == wanted


async def test_weights_spread_the_requests_and_without_routing_the_first_takes_all() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, ROUTING + EVEN) as gateway:
        for _ in range(60):
            assert (await ask(gateway, "even")).status == 200
        assert min(Counter(tried(upstream)).values()) > 5
        upstream.attempts.clear()
        await gateway.switch(EVEN)
        for _ in range(10):
            assert (await ask(gateway, "even")).status == 200
        assert tried(upstream) == ["first"] * 10
        warnings = [str(problem) for problem in gateway.generations.current.warnings]
    assert any('"even"' in warning for warning in warnings)


async def test_without_routing_nothing_is_tried_again() -> None:
    upstream = ScriptedUpstream()
    broken(upstream, 500)
    async with open_gateway(upstream, MODELS) as gateway:
        assert (await ask(gateway)).status == 502
    assert tried(upstream) == ["first"]


async def test_an_unknown_model_is_not_found_with_routing_too() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, ROUTING) as gateway:
        assert (await ask(gateway, "none")).code == "model_not_found"
    assert upstream.attempts == []
