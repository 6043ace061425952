"""Budgets behind a gateway: calls are refused before they are sent, however many run at once."""

import json
import os
from typing import Any

import pytest
import trio

from tollkeeper import ConfigError, Exchange, Notice, PluginSettings, hookimpl
from tollkeeper.testing import (
    Answered,
    JumpClock,
    ScriptedUpstream,
    TestGateway,
    chunk,
    completion,
    open_gateway,
)
from tollkeeper_budgets import Budgets

RUNS = int(os.environ.get("TOLLKEEPER_OVERSHOOTS", "2"))
"""How often a thousand calls run at once on a budget for ten."""

PRICED = """
[models.priced]
deployments = [{ provider = "scripted", model = "test" }]
price = { input = "0", output = "1000" }
max_output = 10
[plugins.metering]
"""
"""A token of output costs a thousandth of a dollar."""


def budgets(*limits: str) -> str:
    return f"[plugins.budgets]\nlimits = [{', '.join(limits)}]\n"


def limit(amount: str = "0.10", scope: str = "gateway", period: str = "day", more: str = "") -> str:
    return f'{{ scope = "{scope}", amount = "{amount}", period = "{period}"{more} }}'


def used(tokens: int) -> dict[str, Any]:
    return {**completion(), "usage": {"prompt_tokens": 1, "completion_tokens": tokens}}


async def ask(gateway: TestGateway, **fields: object) -> Answered:
    return await gateway.chat(**{"model": "priced", **fields})  # type: ignore[arg-type]


def charged(gateway: TestGateway) -> int:
    database = gateway.generations.shared.database
    with database.reading() as connection:
        query = "SELECT coalesce(sum(charge_nanousd), 0) FROM metering_entry"
        return int(connection.execute_sql(query).fetchone()[0])


async def settled(gateway: TestGateway) -> None:
    """Wait until the ledger's thread has written what was handed over."""
    await trio.sleep(0.1)


async def test_a_call_that_might_not_fit_is_refused_and_nothing_is_sent() -> None:
    upstream = ScriptedUpstream()
    upstream.reply(used(10))
    async with open_gateway(upstream, PRICED + budgets(limit("0.015"))) as gateway:
        assert (await ask(gateway)).status == 200
        refused = await ask(gateway)
    assert (refused.status, refused.code) == (429, "rate_limit")
    assert refused.headers["x-should-retry"] == "false"
    assert "0.015 USD per day for this gateway" in refused.json()["error"]["message"]
    assert len(upstream.bodies) == 1


async def test_what_a_call_did_not_use_is_there_for_the_next() -> None:
    upstream = ScriptedUpstream()
    for _ in range(6):
        upstream.reply(used(1))
    async with open_gateway(upstream, PRICED + budgets(limit("0.015"))) as gateway:
        statuses = [(await ask(gateway)).status for _ in range(7)]
    assert statuses == [200] * 6 + [429]


async def test_a_call_must_fit_into_every_budget_and_takes_nothing_where_one_refuses() -> None:
    upstream = ScriptedUpstream()
    for _ in range(3):
        upstream.reply(used(10))
    both = budgets(limit("0.03", "gateway"), limit("0.01", "org"))
    async with open_gateway(upstream, PRICED + both) as gateway:
        assert [(await ask(gateway)).status for _ in range(3)] == [200, 429, 429]
        await gateway.switch(PRICED + budgets(limit("0.03", "gateway")))
        assert [(await ask(gateway)).status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("run", range(RUNS))
async def test_a_thousand_calls_at_once_on_a_budget_for_ten_never_overshoot(run: int) -> None:
    upstream, calls = ScriptedUpstream(), 1000
    for number in range(calls):
        upstream.reply(used(10), delay=0.001 * (number % 7))
    statuses: list[int] = []

    async def call(gateway: TestGateway) -> None:
        statuses.append((await ask(gateway)).status)

    async with open_gateway(upstream, PRICED + budgets(limit("0.10"))) as gateway:
        async with trio.open_nursery() as nursery:
            for _ in range(calls):
                nursery.start_soon(call, gateway)
        await settled(gateway)
        assert charged(gateway) == 10 * 10_000_000
    assert sorted(statuses) == [200] * 10 + [429] * (calls - 10)
    assert len(upstream.bodies) == 10


async def test_nearly_all_of_a_budget_is_usable_where_a_hold_is_a_hundredth_of_it() -> None:
    upstream, passed = ScriptedUpstream(), 0
    async with open_gateway(upstream, PRICED + budgets(limit("1.00"))) as gateway:
        while True:
            upstream.reply(used(7))
            if (await ask(gateway)).status != 200:
                break
            passed += 1
        await settled(gateway)
        assert charged(gateway) == passed * 7_000_000
    assert passed * 7_000_000 >= 950_000_000


async def test_a_bound_is_set_where_a_budget_needs_one_and_the_client_names_none() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, PRICED + budgets(limit())) as gateway:
        await ask(gateway)
        await ask(gateway, max_tokens=3)
        await ask(gateway, max_completion_tokens=None)
    bodies = [json.loads(body) for body in upstream.bodies]
    assert bodies[0]["max_completion_tokens"] == 10
    assert bodies[1]["max_tokens"] == 3
    assert "max_completion_tokens" not in bodies[1]
    assert bodies[2]["max_completion_tokens"] == 10


async def test_a_bound_is_never_lowered_what_does_not_fit_is_refused() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, PRICED + budgets(limit("0.10"))) as gateway:
        assert (await ask(gateway, max_tokens=101)).status == 429
        assert (await ask(gateway, max_tokens=34, n=3)).status == 429
        assert (await ask(gateway, max_tokens=33, n=3)).status == 200
    assert len(upstream.bodies) == 1


async def test_a_call_that_nothing_bounds_is_refused_by_name() -> None:
    upstream = ScriptedUpstream()
    unbounded = PRICED.replace("max_output = 10\n", "")
    async with open_gateway(upstream, unbounded + budgets(limit())) as gateway:
        refused = await ask(gateway)
        bounded = await ask(gateway, max_tokens=5)
    assert refused.status == 400
    assert refused.json()["error"]["param"] == "max_output"
    assert "max_output" in refused.json()["error"]["message"]
    assert bounded.status == 200


async def test_a_call_that_no_budget_covers_goes_out_as_it_came() -> None:
    upstream = ScriptedUpstream()
    other = budgets(limit(scope="org", more=', id = "other"'))
    unpriced = PRICED.replace("max_output = 10\n", "")
    body = b'{"model": "test", "messages": [] , "x":1}'
    async with open_gateway(upstream, unpriced + other) as gateway:
        reply = await gateway.request("POST", "/v1/chat/completions", body)
    assert reply.status == 200
    assert upstream.bodies == [body]


async def test_a_model_without_a_price_is_refused_while_a_budget_covers_the_call() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, PRICED + budgets(limit())) as gateway:
        refused = await gateway.chat(max_tokens=1)
    assert (refused.status, refused.code) == (500, "server_error")
    assert refused.headers["x-should-retry"] == "false"
    assert "has no price" in refused.json()["error"]["message"]
    assert upstream.bodies == []


async def test_a_new_day_begins_anew() -> None:
    upstream, clock = ScriptedUpstream(), JumpClock()
    for _ in range(2):
        upstream.reply(used(10))
    async with open_gateway(upstream, PRICED + budgets(limit("0.01")), clock=clock) as gateway:
        first, second = await ask(gateway), await ask(gateway)
        clock.jump(float(second.headers["retry-after"]) - 1)
        third = await ask(gateway)
        clock.jump(1)
        fourth = await ask(gateway)
    assert [first.status, second.status, third.status, fourth.status] == [200, 429, 429, 200]


async def test_what_is_spent_and_held_outlives_a_change_of_the_settings() -> None:
    upstream = ScriptedUpstream()
    upstream.reply(used(10))
    upstream.stream(chunk("hel"), 1.0, chunk(None, finish="stop"), b"data: [DONE]\n\n")
    toml = PRICED + budgets(limit("0.03"))
    statuses: list[int] = []

    async def stream(gateway: TestGateway) -> None:
        statuses.append((await ask(gateway, stream=True)).status)

    async with open_gateway(upstream, toml) as gateway, trio.open_nursery() as nursery:
        await ask(gateway)
        nursery.start_soon(stream, gateway)
        while len(upstream.bodies) < 2:
            await trio.sleep(0.01)
        await gateway.switch(PRICED + budgets(limit("0.02")))
        assert (await ask(gateway)).status == 429
        await gateway.switch(PRICED + budgets(limit("0.03", "org")))
        assert (await ask(gateway, max_tokens=11)).status == 429
        assert (await ask(gateway, max_tokens=9)).status == 200
    assert statuses == [200]


async def test_a_budget_that_is_nearly_spent_calls_the_hook() -> None:
    class Listener:
        told: list[Notice] = []  # noqa: RUF012 -- one test, one class

        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        def notice(self, notice: Notice) -> None:
            self.told.append(notice)

    upstream = ScriptedUpstream()
    for _ in range(3):
        upstream.reply(used(10))
    warned = PRICED + budgets(limit("0.03", more=', warn = "0.5"'))
    async with open_gateway(upstream, warned, plugins={"listener": Listener}) as gateway:
        await ask(gateway)
        assert Listener.told == []
        for _ in range(2):
            await ask(gateway)
    assert [notice.kind for notice in Listener.told] == ["budget_warning"]
    assert "0.02 USD are spent of the budget of 0.03 USD" in Listener.told[0].message


@pytest.mark.parametrize("limits", ["", "limits = []"])
async def test_without_limits_nothing_is_limited(limits: str) -> None:
    async with open_gateway(None, f"{PRICED}[plugins.budgets]\n{limits}\n") as gateway:
        assert (await ask(gateway)).status == 200


async def test_budgets_need_a_ledger() -> None:
    with pytest.raises(ConfigError, match="budgets needs a plugin that offers Ledger"):
        async with open_gateway(None, budgets(limit())):
            pass


async def test_budgets_may_stand_before_metering() -> None:
    toml = budgets(limit("0.01")) + PRICED
    async with open_gateway(None, toml) as gateway:
        assert (await ask(gateway)).status == 200
        assert (await ask(gateway, max_tokens=11)).status == 429


async def test_a_budget_refuses_the_fallback_too_and_the_first_try_stays_settled() -> None:
    class Second:
        """Spends what is left while the first try is under way."""

        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        async def attempt(self, exchange: Exchange) -> None:
            if len(exchange.attempts) == 2:
                exchange.max_output = 1000

    upstream = ScriptedUpstream()
    upstream.reply({"error": {"message": "busy"}}, status=500)
    toml = "[plugins.routing]\nbackoff = 0.001\n" + PRICED + budgets(limit("0.10"))
    async with open_gateway(upstream, toml, plugins={"second": Second}) as gateway:
        assert (await ask(gateway)).status == 429
    assert len(upstream.bodies) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('{ scope = "team", amount = "1", period = "day" }', "limits"),
        ('{ scope = "key", amount = "0", period = "day" }', "amount"),
        ('{ scope = "key", amount = "1", period = "hour" }', "period"),
        ('{ scope = "key", amount = "1", period = "day", timezone = "Mars/Base" }', "time zone"),
        ('{ scope = "key", amount = "1", period = "day", warn = "1.1" }', "warn"),
        ('{ scope = "key", period = "day" }', "amount"),
    ],
)
async def test_a_mistake_in_a_limit_is_told(wrong: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        async with open_gateway(None, PRICED + budgets(wrong)):
            pass


def test_the_plugin_is_a_guard() -> None:
    assert Budgets.policy == "guard"
