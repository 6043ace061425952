"""The gateway that plugin authors test with."""

import pytest

from tollkeeper.testing import JumpClock, ScriptedUpstream, completion, open_gateway


async def test_it_answers_and_keeps_what_was_settled() -> None:
    async with open_gateway() as gateway:
        assert (await gateway.chat("hi")).text() == "hello"
        assert (await gateway.chat("hi", stream=True)).text() == "hello"
        kinds = [e.outcome.kind for e in gateway.settled if e.outcome]
    assert kinds == ["completed", "completed"]


async def test_a_failed_assertion_comes_out_as_it_is() -> None:
    with pytest.raises(AssertionError, match="mine"):
        async with open_gateway():
            raise AssertionError("mine")


async def test_keys_are_made_by_whoever_issues_them() -> None:
    async with open_gateway(toml="[plugins.keys]\n") as gateway:
        assert (await gateway.chat()).code == "auth_error"
        gateway.key = await gateway.create_key(rpm=5)
        assert (await gateway.chat()).status == 200
        assert gateway.settled[-1].principal.rpm == 5


async def test_the_clock_jumps_when_told() -> None:
    clock = JumpClock()
    async with open_gateway(toml="[plugins.limits]\nrpm = 1\n", clock=clock) as gateway:
        assert [(await gateway.chat()).status for _ in range(2)] == [200, 429]
        clock.jump(60)
        assert (await gateway.chat()).status == 200
        assert clock.time() == clock.monotonic()


async def test_leaving_an_open_request_is_a_client_that_goes_away() -> None:
    upstream = ScriptedUpstream()
    upstream.reply(completion(), delay=1000)
    upstream.reply(completion("again"))
    async with open_gateway(upstream) as gateway:
        link = gateway.connect()
        await link.aclose()
        assert (await gateway.get("/healthz")).status == 200
