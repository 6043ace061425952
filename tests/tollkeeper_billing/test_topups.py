"""Packs that are bought by themselves: when, how often, and what stops it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from shop import BILLING, Shop, shop

from tollkeeper import Notice
from tollkeeper.testing.stripe.customers import new_card
from tollkeeper_billing import customers, purchases, till, topups
from tollkeeper_billing.models import Checkout, Credit
from tollkeeper_billing.processor import Processor
from tollkeeper_billing.purchases import Bought, Offer

HOUR = 3600
PAY = "/v1/payment_intents"
CENT = 10**7


@pytest.fixture(autouse=True)
def _rounds_are_made_only_by_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(till, "LEAST_SECONDS", 1e6)


@contextlib.asynccontextmanager
async def low(below: str = "5.00", more: str = "") -> AsyncIterator[tuple[Shop, list[Notice]]]:
    """Acme left a card, wants a small pack whenever it has less, and has 4 dollars now."""
    async with shop(f"auto_topup = true\n{more}") as house:
        notices: list[Notice] = []
        house.gateway.generations.current.registry.bell.ring = notices.append
        await house.buy()
        await house.deliver()
        await spend(house, 600)
        await wish(house, below)
        yield house, notices


async def spend(house: Shop, cents: int, org: str = "acme") -> None:
    assert (await house.chat(await house.key(org), tokens=cents, most=cents)).status == 200


async def wish(house: Shop, below: str = "5.00", pack: str | None = "small") -> dict[str, Any]:
    return dict(await house.done("PUT", f"{BILLING}/topup", {"pack": pack, "below": below}))


async def told(house: Shop) -> dict[str, Any]:
    return dict(await house.done("GET", f"{BILLING}/topup"))


async def balance(house: Shop, org: str = "acme") -> str:
    return str((await house.status(org))["balance"])


async def rounds(house: Shop, count: int = 1) -> None:
    """Make the rounds, each when the next try is due."""
    for _ in range(count):
        house.clock.jump(topups.PAUSE)
        await house.round()


async def bought(house: Shop) -> list[tuple[str, int]]:
    """Status and price of every top-up."""
    rows = Checkout.select(Checkout.status, Checkout.cents).where(Checkout.kind == "topup")
    database = house.gateway.generations.shared.database
    return list(await database.read(lambda db: list(rows.tuples().execute(db))))


async def credits(house: Shop) -> list[tuple[str, int]]:
    """Kind and cents of every change of a balance."""
    rows = Credit.select(Credit.kind, Credit.amount_nanousd / CENT).order_by(Credit.id)
    database = house.gateway.generations.shared.database
    return list(await database.read(lambda db: list(rows.tuples().execute(db))))


def payments(house: Shop) -> int:
    """Payments that went through, but for the one at checkout."""
    return len(house.stripe.every("payment_intent", status="succeeded")) - 1


def tries(house: Shop) -> int:
    return house.stripe.requests.count(("POST", PAY))


def go_wrong(house: Shop, fault: str) -> None:
    """Let paying by card go wrong in this way, not at all for an empty one."""
    house.stripe.fault = lambda _method, path: fault if path == PAY else ""


def processor(house: Shop) -> Processor:
    found = house.billing._processor
    assert found is not None
    return found


async def begun(house: Shop) -> Bought:
    """The row of a top-up whose payment was never asked for."""
    customer = house.stripe.every("customer")[0]["id"]

    def insert(database: Any) -> Bought:
        whose, offer = (house.orgs["acme"], customer), Offer("topup", "small", 1000, 1000 * CENT)
        return purchases.open_checkout(database, whose, offer, "", int(house.clock.now))

    return await house.gateway.generations.shared.database.write(insert)


async def test_a_pack_is_bought_once_the_balance_is_low() -> None:
    async with low() as (house, notices):
        assert await told(house) == {"pack": "small", "below": "5.00", "error": None}
        assert await balance(house) == "4.00"
        await house.round()
        assert await balance(house) == "14.00"
        assert await bought(house) == [("paid", 1000)]
        assert await credits(house) == [("pack", 1000), ("topup", 1000)]
        (intent, _) = house.stripe.every("payment_intent")
        assert intent["amount"] == 1000
        assert intent["metadata"]["tollkeeper_checkout"].startswith("co_")
        assert not notices


async def test_it_counts_once_however_often_it_is_told_and_looked_at() -> None:
    async with low() as (house, _):
        await house.round()
        await house.deliver()
        house.delivered = 0
        await house.deliver()
        await rounds(house, 3)
        assert (await balance(house), payments(house)) == ("14.00", 1)


async def test_it_is_bought_again_once_the_balance_has_fallen_again() -> None:
    async with low() as (house, _):
        await house.round()
        await spend(house, 900)
        await rounds(house)
        assert await balance(house) == "5.00"  # which is not below it
        await spend(house, 1)
        await rounds(house)
        assert (await balance(house), payments(house)) == ("14.99", 2)


async def test_none_is_bought_for_whoever_wants_none_any_more() -> None:
    async with low() as (house, _):
        assert (await wish(house, pack=None))["pack"] is None
        await house.round()
        assert (await balance(house), tries(house)) == ("4.00", 0)


async def test_the_amount_and_the_pack_are_those_that_were_set_last() -> None:
    async with low(below="4.00") as (house, _):
        await house.round()
        assert tries(house) == 0
        await wish(house, "4.01", "large")
        await house.round()
        assert await balance(house) == "124.00"


async def test_a_balance_that_falls_low_wakes_the_rounds_at_once() -> None:
    async with low(below="3.00") as (house, _):
        house.billing._till._woken = woken = trio.Event()
        await spend(house, 100)
        assert not woken.is_set()
        await spend(house, 1)
        assert woken.is_set()


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "429"])
async def test_while_stripe_is_down_one_is_under_way_and_once_it_is_up_it_is_paid_once(
    fault: str,
) -> None:
    async with low() as (house, notices):
        go_wrong(house, fault)
        await rounds(house, 4)
        assert await bought(house) == [("open", 1000)]
        assert (await balance(house), tries(house)) == ("4.00", 4)
        go_wrong(house, "")
        await rounds(house, 3)
        assert await bought(house) == [("paid", 1000)]
        assert (await balance(house), payments(house)) == ("14.00", 1)
        await house.deliver()
        assert await balance(house) == "14.00"
        assert (await told(house))["error"] is None
        assert not notices


async def test_what_was_paid_before_a_500_is_credited_by_its_webhook() -> None:
    async with low() as (house, _):
        go_wrong(house, "500_after")
        await rounds(house, 2)
        assert (await balance(house), payments(house)) == ("4.00", 1)
        await house.deliver()
        await rounds(house, 2)
        assert (await balance(house), payments(house)) == ("14.00", 1)
        assert await bought(house) == [("paid", 1000)]


async def test_the_same_payment_is_asked_for_once_a_minute() -> None:
    async with low() as (house, _):
        go_wrong(house, "drop_before")
        for _ in range(3):
            await house.round()
        assert tries(house) == 1
        house.clock.jump(topups.PAUSE - 1)
        await house.round()
        assert tries(house) == 1
        house.clock.jump(1)
        await house.round()
        assert tries(house) == 2


async def test_a_crash_between_the_row_and_the_payment_is_made_up_for() -> None:
    async with low() as (house, _):
        row = await begun(house)
        await rounds(house, 2)
        assert (await balance(house), payments(house)) == ("14.00", 1)
        assert await bought(house) == [("paid", 1000)]
        (intent, _) = house.stripe.every("payment_intent")
        assert intent["metadata"] == {"tollkeeper_checkout": row.id}


async def test_a_crash_between_the_payment_and_its_credit_is_made_up_for() -> None:
    async with low() as (house, _):
        row = await begun(house)
        await processor(house).pay(row)
        assert await balance(house) == "4.00"
        await rounds(house, 2)
        assert (await balance(house), payments(house)) == ("14.00", 1)


async def test_a_price_that_changed_meanwhile_is_not_that_of_what_was_begun() -> None:
    async with low() as (house, _):
        row = await begun(house)
        house.billing._settings.packs["small"] = house.billing._settings.packs["large"]
        await rounds(house)
        assert row.cents == house.stripe.every("payment_intent")[0]["amount"] == 1000
        assert await balance(house) == "14.00"


async def test_a_declined_card_stops_topups_until_they_are_set_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with low() as (house, notices):
        house.stripe.declining = "insufficient_funds"
        await rounds(house, 3)
        assert (await balance(house), tries(house)) == ("4.00", 1)
        assert await bought(house) == [("closed", 1000)]
        assert await told(house) == {"pack": "small", "below": "5.00", "error": "card_declined"}
        (notice,) = notices
        assert (notice.kind, notice.org) == ("topup_failed", house.orgs["acme"])
        assert "card_declined" in notice.message
        assert notice.message in caplog.text
        house.stripe.declining = ""
        await rounds(house)
        assert payments(house) == 0
        assert (await wish(house))["error"] is None
        await rounds(house)
        assert (await balance(house), payments(house)) == ("14.00", 1)


async def test_the_organization_learns_why_its_card_was_declined() -> None:
    async with low() as (house, _):
        for reason in ("expired_card", "authentication_required"):
            house.stripe.declining = reason
            await wish(house)
            await rounds(house)
            assert (await told(house))["error"] == reason


async def test_without_a_card_none_is_bought_and_the_organization_learns_why() -> None:
    async with low() as (house, notices):
        for card in house.stripe.every("payment_method"):
            card["customer"] = None
        await rounds(house, 2)
        assert (await told(house))["error"] == "no_card"
        assert (await balance(house), tries(house), len(notices)) == ("4.00", 0, 1)


async def test_no_more_than_so_many_are_bought_in_a_day() -> None:
    async with low(below="1000.00") as (house, notices):
        await rounds(house, topups.MOST_A_DAY + 3)
        assert payments(house) == topups.MOST_A_DAY
        assert (await told(house))["error"] == "too_many"
        assert [notice.kind for notice in notices] == ["topup_failed"]
        await wish(house, "1000.00")
        await rounds(house)
        assert payments(house) == topups.MOST_A_DAY
        await house.jump(24 * HOUR)
        await wish(house, "1000.00")
        await rounds(house)
        assert payments(house) == topups.MOST_A_DAY + 1


async def test_two_processes_that_look_at_once_buy_one_pack() -> None:
    async with low() as (house, _):
        billing = house.billing
        pair = [
            topups.Topups(billing._settings, billing._till, processor(house), lambda _: None)
            for _ in range(2)
        ]
        async with trio.open_nursery() as nursery:
            for each in pair:
                nursery.start_soon(each.make)
        assert (await balance(house), payments(house)) == ("14.00", 1)


async def test_one_round_buys_one_pack() -> None:
    async with low(below="1000.00") as (house, _):
        await house.round()
        assert (await balance(house), payments(house)) == ("14.00", 1)


async def test_a_payment_that_stripe_knows_nothing_of_for_a_day_is_begun_anew() -> None:
    async with low() as (house, notices):
        go_wrong(house, "drop_before")
        await rounds(house)
        await house.jump(topups.TRIES)
        go_wrong(house, "")
        await rounds(house)
        assert (await bought(house), payments(house)) == ([("closed", 1000)], 0)
        await rounds(house)
        assert (await balance(house), payments(house), notices) == ("14.00", 1, [])


async def test_a_payment_that_stripe_made_and_nobody_heard_of_for_a_day_is_found() -> None:
    async with low() as (house, _):
        go_wrong(house, "drop_after")
        await rounds(house)
        await house.jump(topups.TRIES)
        go_wrong(house, "")
        await rounds(house, 2)
        assert (await balance(house), payments(house)) == ("14.00", 1)
        assert await bought(house) == [("paid", 1000)]
        await house.deliver()
        assert await balance(house) == "14.00"


@pytest.mark.parametrize("fault", ["500_before", "500_after"])
async def test_a_failure_that_stripe_repeats_is_looked_into_and_costs_no_second_pack(
    fault: str,
) -> None:
    async with low() as (house, notices):
        go_wrong(house, fault)
        await rounds(house)
        go_wrong(house, "")
        await rounds(house, 2)
        assert (await balance(house), len(await bought(house))) == ("4.00", 1)
        house.clock.jump(topups.LOOK_AFTER)
        await rounds(house, 2)
        assert (await balance(house), payments(house), notices) == ("14.00", 1, [])


async def test_a_decline_that_got_lost_is_found_and_a_card_added_since_is_used_next() -> None:
    async with low() as (house, _):
        house.stripe.declining = "card_declined"
        go_wrong(house, "drop_after")
        await rounds(house)
        house.stripe.declining = ""
        go_wrong(house, "")
        new_card(house.stripe, house.stripe.every("customer")[0]["id"])
        await rounds(house)
        house.clock.jump(topups.LOOK_AFTER)
        await rounds(house, 2)
        assert (await told(house))["error"] == "requires_payment_method"
        await wish(house)
        await rounds(house, 2)
        assert (await balance(house), payments(house)) == ("14.00", 1)


async def test_what_is_the_operators_fault_stops_nobodys_topups() -> None:
    async with low() as (house, notices):
        house.stripe.secret_key = "sk_test_another"
        await rounds(house, 2)
        assert await bought(house) == [("open", 1000)]
        assert ((await told(house))["error"], notices) == (None, [])
        house.stripe.secret_key = "sk_test_fake"
        await rounds(house)
        assert await balance(house) == "14.00"


async def test_the_card_of_one_organization_is_nothing_to_another() -> None:
    async with low() as (house, notices):
        await house.join("other")
        await house.done("PUT", f"{BILLING}/topup", {"pack": "small", "below": "5.00"}, "other")
        await rounds(house)
        assert await balance(house) == "14.00"
        assert (await balance(house, "other")) == "0.00"
        (notice,) = notices
        assert notice.org == house.orgs["other"]
        assert (await told(house))["error"] is None


async def test_while_topups_are_off_what_was_set_stays_and_nothing_is_bought() -> None:
    async with shop() as house:
        await house.buy()
        await house.deliver()
        database = house.gateway.generations.shared.database
        await database.write(customers.set_topup, house.orgs["acme"], "small", 10**12)
        await house.billing._till.reload()
        await begun(house)
        await rounds(house, 2)
        assert tries(house) == 0
        assert await bought(house) == [("open", 1000)]


async def test_a_pack_that_is_sold_no_more_is_bought_no_more() -> None:
    async with low() as (house, _):
        del house.billing._settings.packs["small"]
        await rounds(house)
        assert tries(house) == 0
