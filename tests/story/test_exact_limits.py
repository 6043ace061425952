"""10,000 concurrent tries at `rpm = 100`: exactly 100 are admitted."""

import trio

from tollkeeper.testing import JumpClock, ScriptedUpstream, TestGateway, open_gateway

TRIES = 10_000
LIMIT = 100


async def test_exactly_the_limit_is_admitted_of_many_concurrent_tries() -> None:
    clock, upstream = JumpClock(), ScriptedUpstream()
    toml = f"[plugins.keys]\n[plugins.limits]\nrpm = {LIMIT}\n"
    async with open_gateway(upstream, toml, clock=clock) as gateway:
        gateway.key = await gateway.create_key()
        await assert_exact(gateway, upstream, TRIES, clock)
        clock.jump(60.0)
        upstream.bodies.clear()
        await assert_exact(gateway, upstream, 3 * LIMIT, clock)


async def assert_exact(
    gateway: TestGateway, upstream: ScriptedUpstream, tries: int, clock: JumpClock
) -> None:
    """Spread the tries over 59 seconds, 100 of them at a time."""
    statuses: list[int] = []

    async def try_many(count: int) -> None:
        for _ in range(count):
            statuses.append((await gateway.chat()).status)
            clock.jump(59.0 / tries)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(try_many, tries // 100)
    assert sorted(statuses) == [200] * LIMIT + [429] * (tries - LIMIT)
    assert len(upstream.bodies) == LIMIT
