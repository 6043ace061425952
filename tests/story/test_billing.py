"""Money that comes in: credited exactly once, whatever is delivered, lost, forged or down.

`TOLLKEEPER_SEED` repeats the run of a seed; at length it is `make nightly`.
"""

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from random import Random, SystemRandom
from typing import Any

import pytest
import trio
from shop import BILLING, TOML, WEBHOOK, Shop, shop

from tollkeeper.amounts import dollars
from tollkeeper.storage import Database
from tollkeeper.testing import completion
from tollkeeper_billing import routes
from tollkeeper_billing.models import Draw, MeterEvent, Purse
from tollkeeper_billing.purchases import read_funds

SEED = int(os.environ.get("TOLLKEEPER_SEED") or SystemRandom().randrange(10**9))
EVENTS = int(os.environ.get("TOLLKEEPER_EVENTS", "600"))
OUTAGE_STEP = int(os.environ.get("TOLLKEEPER_OUTAGE_STEP", "3600"))
"""Seconds between two rounds in the outage of 72 hours."""
HOUR = 3600
PRICES = {1000: 10 * 10**9, 10_000: 120 * 10**9}
"""Of each pack: cents, and the credit in nano-USD."""


async def trade(house: Shop, random: Random, events: int) -> None:
    """Packs are bought, refunded and disputed until Stripe has so many events of it."""
    stripe = house.stripe
    while len(stripe.events) < events:
        org, pack = random.choice(list(house.orgs)), random.choice(["small", "large"])
        opened = await house.done("POST", f"{BILLING}/checkout", {"pack": pack}, org)
        way = random.random()
        if way < 0.1:
            continue  # never paid
        if way < 0.2:
            stripe.pay_later(opened["id"])
            stripe.settle_later(opened["id"], ok=random.random() < 0.7)
        else:
            stripe.pay(opened["id"])
        payment = stripe.find("checkout.session", opened["id"])["payment_intent"]
        if payment and stripe.find("payment_intent", payment)["status"] == "succeeded":
            give_back(house, random, payment)
        house.clock.jump(random.uniform(0, 5))


def give_back(house: Shop, random: Random, payment: str) -> None:
    """Some of some payments, in one way or another."""
    stripe = house.stripe
    amount = stripe.find("payment_intent", payment)["amount"]
    if random.random() < 0.3:
        refund = stripe.refund(payment, random.randint(1, amount // 2))
        if random.random() < 0.3:
            stripe.fail_refund(refund)
    if random.random() < 0.3:
        dispute = stripe.dispute(payment, random.randint(1, amount // 2))
        if random.random() < 0.7:
            stripe.close_dispute(dispute, random.choice(["won", "lost"]))


def expected(house: Shop) -> dict[str, int]:
    """Nano-USD that each customer of Stripe is owed, from what Stripe has in the end."""
    stripe = house.stripe
    owed: dict[str, int] = {}
    for session in stripe.every("checkout.session"):
        if session["payment_status"] != "paid":
            continue
        payment, cents = session["payment_intent"], session["amount_total"]
        back = sum(
            each["amount"]
            for each in stripe.every("refund")
            if each["payment_intent"] == payment and each["status"] in ("pending", "succeeded")
        ) + sum(
            each["amount"]
            for each in stripe.every("dispute")
            if each["payment_intent"] == payment and each["status"] in ("needs_response", "lost")
        )
        credit = PRICES[cents]
        left = credit - min(credit, ceil(Fraction(credit * back, cents)))
        owed[session["customer"]] = owed.get(session["customer"], 0) + left
    return owed


class Shaky:
    """A database whose writes fail now and then: before they are made, or after."""

    def __init__(self, database: Database, random: Random) -> None:
        self.real, self._random = database.write, random
        self.share = 0.3

    async def write(self, work: Callable[..., Any], *args: object) -> Any:
        trouble = self._random.random()
        if trouble < self.share / 2:
            raise RuntimeError("before it was written")
        done = await self.real(work, *args)
        if trouble < self.share:
            raise RuntimeError("after it was written")
        return done


async def deliver(house: Shop, queue: deque[dict[str, Any]], tally: dict[int, int]) -> None:
    """Deliver what is queued; what is not taken comes again at the end."""
    while queue:
        event = queue.popleft()
        reply = await house.post(event)
        tally[reply.status] = tally.get(reply.status, 0) + 1
        if reply.status != 200:
            queue.append(event)


async def test_credits_are_exact_whatever_is_delivered_twice_disordered_or_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")  # each failure is logged, and there are thousands
    monkeypatch.setattr(routes, "MANY", EVENTS)
    random = Random(SEED)
    async with shop() as house:
        for name in ("beta", "gamma", "delta"):
            await house.join(name)
        await trade(house, random, EVENTS)
        many = [each for each in house.stripe.events for _ in range(random.randint(1, 5))]
        random.shuffle(many)
        database = house.gateway.generations.shared.database
        shaky, tally = Shaky(database, random), dict[int, int]()
        queue = deque(many)
        monkeypatch.setattr(database, "write", shaky.write)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(deliver, house, queue, tally)
        monkeypatch.setattr(database, "write", shaky.real)
        events = len(house.stripe.events)
        sys.stdout.write(f"seed {SEED}: {events} events, deliveries by status {tally}\n")
        assert tally[500] > len(many) * 0.15
        await assert_owed(house)


async def assert_owed(house: Shop) -> None:
    """What stands in the database and in memory is what Stripe says that it should be."""
    owed = expected(house)
    assert owed
    database = house.gateway.generations.shared.database
    with database.reading() as db:
        stored = {each.org: each.credits for each in read_funds(db)}
    for name, org in house.orgs.items():
        customer = next(
            each["id"]
            for each in house.stripe.every("customer")
            if each["metadata"]["tollkeeper_org"] == org
        )
        assert stored.get(org, 0) == owed.get(customer, 0), f"TOLLKEEPER_SEED={SEED}"
        assert (await house.status(name))["balance"] == dollars(owed.get(customer, 0))


FAULTS = ("drop_before", "drop_after", "500_before", "500_after", "429")


async def test_usage_is_billed_exactly_through_72_hours_without_stripe() -> None:
    random = Random(SEED)
    async with shop() as house:
        for name in ("beta", "gamma"):
            await house.join(name)
        keys = {}
        for name in house.orgs:
            await house.buy("usage", "plan", name)
            keys[name] = await house.key(name)
        await house.deliver()
        began = house.clock.now

        def fault(_method: str, path: str) -> str:
            hours = (house.clock.now - began) / HOUR
            if not 6 <= hours < 78:
                return ""
            return random.choice(FAULTS) if "meter" in path else "drop_before"

        house.stripe.fault = fault
        while house.clock.now < began + 110 * HOUR:
            for key in keys.values():
                if house.clock.now < began + 80 * HOUR and random.random() < 0.5:
                    reply = await house.chat(key, tokens=random.randint(1, 100), most=100)
                    assert reply.status == 200
            await house.written()
            await house.round()
            house.clock.jump(OUTAGE_STEP)
        assert_billed(house)


def assert_billed(house: Shop) -> None:
    """Stripe has every whole cent beyond the allowance once, and no event twice."""
    stripe = house.stripe
    identifiers = [each["identifier"] for each in stripe.meter_events]
    assert len(set(identifiers)) == len(identifiers), f"TOLLKEEPER_SEED={SEED}"
    database = house.gateway.generations.shared.database
    with database.reading() as db:
        states = [state for (state,) in MeterEvent.select(MeterEvent.state).tuples().execute(db)]
        for org, customer in MeterEvent.select(MeterEvent.org, MeterEvent.customer).distinct(
        ).tuples().execute(db):  # fmt: skip
            days = Draw.select(Draw.charged_nanousd).where(Draw.org == org).tuples().execute(db)
            charged = sum(charge for (charge,) in days)
            (purse,) = Purse.select(Purse.units).where(Purse.org == org).tuples().execute(db)
            counted = sum(e["value"] for e in stripe.meter_events if e["customer"] == customer)
            assert counted == purse[0] == charged // 10**7 - 100, f"TOLLKEEPER_SEED={SEED}"
    sys.stdout.write(f"seed {SEED}: {len(states)} meter events, {len(identifiers)} arrived\n")
    assert set(states) == {"sent"}


async def test_forged_stale_and_foreign_webhooks_credit_nothing_and_replays_once() -> None:
    async with shop() as house:
        await house.join("rival")
        await house.buy()
        (paid,) = [e for e in house.stripe.events if e["type"] == "checkout.session.completed"]
        now = int(house.clock.now)
        raw = house.stripe.signed(paid)[0]
        for headers in ({}, {"stripe-signature": ""}, {"stripe-signature": f"t={now},v1=00"}):
            reply = await house.gateway.request("POST", WEBHOOK, raw, headers)
            assert (reply.status, reply.code) == (401, "auth_error")
        for signing in (
            {"timestamp": now - 301},
            {"timestamp": now + 301},
            {"secret": ""},
            {"secret": "whsec_other"},
        ):
            assert (await house.post(paid, **signing)).status == 401
        assert (await house.post({**paid, "livemode": True})).status == 400
        theirs = await house.done("POST", f"{BILLING}/checkout", {"pack": "large"}, "rival")
        rival = house.stripe.find("checkout.session", theirs["id"])
        for change in (
            {"client_reference_id": rival["client_reference_id"]},
            {"id": rival["id"]},
            {"customer": rival["customer"]},
            {"amount_subtotal": 1},
            {"currency": "jpy"},
            {"id": "cs_unknown", "client_reference_id": "co_unknown"},
        ):
            crossed = {**paid["data"]["object"], **change}
            forged = {**paid, "id": f"evt_{len(change)}{change}", "data": {"object": crossed}}
            assert (await house.post(forged)).status == 200
        for org in house.orgs:
            assert (await house.status(org))["balance"] == "0.00"
        statuses: list[int] = []

        async def replay() -> None:
            statuses.append((await house.post(paid)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(replay)
        assert statuses == [200] * 100
        assert (await house.status())["balance"] == "10.00"
        assert (await house.status("rival"))["balance"] == "0.00"


async def test_a_thousand_calls_at_once_on_a_balance_for_ten_never_go_below_nothing() -> None:
    async with shop() as house:
        await house.buy()
        await house.deliver()
        key = await house.key()
        usage = {"prompt_tokens": 1, "completion_tokens": 100, "total_tokens": 101}
        for number in range(1000):
            reply = {**completion("x"), "usage": usage}
            house.upstream.reply(reply, delay=0.001 * (number % 7))
        house.gateway.key = key
        statuses: list[int] = []
        lowest = [10**12]

        async def call() -> None:
            answered = await house.gateway.chat("hi", model="paid", max_tokens=100)
            statuses.append(answered.status)
            balances = house.billing._till.balances
            assert balances is not None
            funds, held = balances.balance(house.orgs["acme"])
            lowest.append(funds - held)

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(call)
        house.gateway.key = ""
        assert sorted(statuses) == [200] * 10 + [429] * 990
        assert min(lowest) == 0
        assert len(house.upstream.bodies) == 10
        status = await house.status()
        assert (status["balance"], status["held"], status["hard_stop"]) == ("0.00", "0.00", True)


async def test_a_toggle_of_settings_under_load_loses_and_doubles_nothing() -> None:
    async with shop() as house:
        await house.buy()
        await house.deliver()
        key = await house.key()
        served = 0
        for number in range(6):
            toml = TOML.format(url=house.stripe.url, more=f'low_balance = "{number}"')
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.gateway.switch, toml)
                with contextlib.suppress(trio.TooSlowError):
                    for _ in range(5):
                        served += (await house.chat(key)).status == 200
        assert served == 30
        assert (await house.status())["balance"] == "9.70"
        await house.buy()
        await house.deliver()
        assert (await house.status())["balance"] == "19.70"
