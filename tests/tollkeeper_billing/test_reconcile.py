"""Ledger, books and Stripe: what agrees, what does not, and what was paid and never credited."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from shop import BILLING, NOW, Shop, shop

from tollkeeper import Database
from tollkeeper.ledger import UsageSource
from tollkeeper_billing import till
from tollkeeper_billing.models import Checkout, Draw, MeterEvent, State
from tollkeeper_billing.processor import Declined, Processor, Unreachable
from tollkeeper_billing.reconcile import Day, Unpaid, compare_days, find_unpaid

DAY = 86_400


@pytest.fixture(autouse=True)
def _rounds_are_made_only_by_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(till, "LEAST_SECONDS", 1e6)


@contextlib.asynccontextmanager
async def metered() -> AsyncIterator[Shop]:
    """Acme used 1.50 USD on the first day, of which its plan included 1.00 USD."""
    async with shop() as house:
        await house.buy("usage", "plan")
        await house.deliver()
        await spend(house, 150)
        await house.round()
        await house.jump(2 * 3600)  # by then Stripe has counted it
        yield house


async def spend(house: Shop, cents: int) -> None:
    reply = await house.chat(await house.key(), tokens=cents, most=cents)
    assert reply.status == 200, reply.body
    await house.written()


def database(house: Shop) -> Database:
    return house.gateway.generations.shared.database


def processor(house: Shop) -> Processor:
    found = house.billing._processor
    assert found is not None
    return found


async def compared(house: Shop, days: int = 7) -> list[Day]:
    source = house.gateway.generations.current.registry.services[UsageSource]
    assert isinstance(source, UsageSource)
    return await compare_days(database(house), source, processor(house), days, int(house.clock.now))


async def unpaid(house: Shop, *, fix: bool = False) -> list[Unpaid]:
    return await find_unpaid(database(house), processor(house), 7, int(house.clock.now), fix=fix)


async def change(house: Shop, query: Any) -> None:
    await database(house).write(lambda db: query.execute(db))


async def test_a_day_on_which_all_agree_is_shown_with_its_sums() -> None:
    async with metered() as house:
        assert await compared(house) == [
            Day(house.orgs["acme"], NOW, "1.50", "1.50", 50, 0, 50, True)
        ]


async def test_before_billing_ever_ran_there_is_nothing_to_compare() -> None:
    async with metered() as house:
        await change(house, State.delete())
        assert await compared(house) == []


async def test_what_is_not_metered_is_nothing_that_stripe_is_asked_for() -> None:
    async with shop() as house:
        await house.buy()
        await house.deliver()
        await spend(house, 30)
        await house.round()
        asked = len(house.stripe.requests)
        (day,) = await compared(house)
        assert (day.ledger, day.drawn, day.metered_cents, day.stripe_cents) == (
            *("0.30", "0.30"),
            0,
            None,
        )
        assert day.ok
        assert len(house.stripe.requests) == asked


async def test_days_are_told_apart_and_the_newest_comes_last() -> None:
    async with metered() as house:
        await house.jump(DAY)
        await spend(house, 7)
        await house.round()
        first, second = await compared(house)
        assert (first.day, first.stripe_cents, first.ok) == (NOW, 50, True)
        assert (second.day, second.ledger, second.stripe_cents) == (NOW + DAY, "0.07", 7)
        assert second.ok
        assert await compared(house, days=1) == [second]


async def test_what_is_not_drawn_yet_is_no_mistake_for_a_day_and_then_one() -> None:
    async with metered() as house:
        await spend(house, 7)
        (day,) = await compared(house)
        assert (day.ledger, day.drawn, day.ok) == ("1.57", "1.50", True)
        await house.jump(2 * DAY)
        (day,) = await compared(house)
        assert not day.ok
        await house.round()
        (day,) = await compared(house)
        assert day.ok


async def test_what_was_charged_and_never_drawn_at_all_is_shown_too() -> None:
    async with shop() as house:
        await house.buy()
        await house.deliver()
        await spend(house, 30)
        (day,) = await compared(house)
        assert (day.ledger, day.drawn, day.ok) == ("0.30", "0.00", True)
        await house.jump(2 * DAY)
        (day,) = await compared(house)
        assert (day.ledger, day.drawn, day.ok) == ("0.30", "0.00", False)


async def test_books_that_say_another_sum_than_the_ledger_do_not_agree() -> None:
    async with metered() as house:
        await house.jump(2 * DAY)
        for off, agrees in ((-1, False), (2, False), (-1, True)):
            await change(house, Draw.update(charged_nanousd=Draw.charged_nanousd + off))
            (day,) = await compared(house)
            assert day.ok is agrees


async def test_more_drawn_than_charged_is_a_mistake_today_already() -> None:
    async with metered() as house:
        await change(house, Draw.update(charged_nanousd=Draw.charged_nanousd + 1))
        (day,) = await compared(house)
        assert (day.drawn, day.ok) == ("1.500000001", False)


async def test_cents_that_stripe_lost_or_counted_twice_are_a_mistake() -> None:
    async with metered() as house:
        (event,) = house.stripe.meter_events
        house.stripe.meter_events.append(event)
        (day,) = await compared(house)
        assert (day.metered_cents, day.unsent_cents, day.stripe_cents) == (50, 0, 100)
        assert not day.ok
        house.stripe.meter_events.clear()
        (day,) = await compared(house)
        assert (day.stripe_cents, day.ok) == (0, False)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
async def test_cents_on_their_way_are_no_mistake_whether_they_arrived_or_not(fault: str) -> None:
    async with metered() as house:
        house.stripe.fault = lambda _method, path: fault if "meter_events" in path else ""
        await spend(house, 7)
        await house.round()
        (day,) = await compared(house)
        assert (day.metered_cents, day.unsent_cents) == (57, 7)
        assert day.stripe_cents == (57 if fault == "drop_after" else 50)
        assert day.ok


async def test_cents_of_two_customers_are_asked_for_one_by_one() -> None:
    async with metered() as house:
        other = house.stripe.add("customer", "cus", {"metadata": {}})["id"]
        row = {"org": house.orgs["acme"], "day": NOW, "units": 3, "meter": "usd_cents", "at": NOW}
        row |= {"identifier": "theirs", "customer": other, "state": "sent", "error": ""}
        row |= dict.fromkeys(("first_try", "last_try", "next_try", "tries"), 0)
        await change(house, MeterEvent.insert(**row))
        (day,) = await compared(house)
        assert (day.metered_cents, day.stripe_cents, day.ok) == (53, 50, False)
        event = {"event_name": "usd_cents", "customer": other, "timestamp": NOW, "value": 3}
        house.stripe.meter_events.append(event)
        (day,) = await compared(house)
        assert (day.stripe_cents, day.ok) == (53, True)


async def test_a_stripe_that_does_not_answer_leaves_nothing_to_say() -> None:
    async with metered() as house:
        house.stripe.fault = lambda _method, _path: "drop_before"
        with pytest.raises(Unreachable):
            await compared(house)


def go_wrong(house: Shop, fault: str) -> None:
    """Let every request to Stripe go wrong in this way, none for an empty one."""
    house.stripe.fault = lambda _method, _path: fault


async def opened(house: Shop, name: str = "small", kind: str = "pack") -> str:
    """The session of a checkout that is still to be paid."""
    made = await house.done("POST", f"{BILLING}/checkout", {kind: name})
    return str(made["id"])


async def test_a_checkout_that_nobody_paid_or_whose_webhook_came_is_not_missed() -> None:
    async with shop() as house:
        await house.buy()
        await house.deliver()
        await opened(house)
        assert await unpaid(house, fix=True) == []
        assert (await house.status())["balance"] == "10.00"


async def test_what_was_paid_and_whose_webhook_never_came_is_found_and_credited_once() -> None:
    async with shop() as house:
        await opened(house)
        session = await house.buy("large")
        (found,) = await unpaid(house)
        assert (found.org, found.session, found.fixed) == (house.orgs["acme"], session, False)
        assert found.checkout.startswith("co_")
        await house.billing._reload()
        assert (await house.status())["balance"] == "0.00"
        assert await unpaid(house, fix=True) == [msgspec.structs.replace(found, fixed=True)]
        await house.billing._reload()
        assert (await house.status())["balance"] == "120.00"
        assert await unpaid(house, fix=True) == []
        await house.deliver()
        assert (await house.status())["balance"] == "120.00"


async def test_a_plan_that_is_found_paid_is_in_force_with_the_next_round() -> None:
    async with shop() as house:
        await house.buy("pro", "plan")
        (found,) = await unpaid(house, fix=True)
        assert found.fixed
        await house.round()
        status = await house.status()
        assert (status["plan"], status["balance"]) == ("pro", "20.00")


async def test_money_that_is_still_under_way_is_not_credited() -> None:
    async with shop() as house:
        session = await opened(house)
        house.stripe.pay_later(session)
        assert await unpaid(house, fix=True) == []
        house.stripe.settle_later(session)
        (found,) = await unpaid(house, fix=True)
        assert found.fixed


async def test_what_is_not_as_it_was_offered_is_told_and_not_credited() -> None:
    async with shop() as house:
        session = await house.buy()
        house.stripe.find("checkout.session", session)["amount_subtotal"] = 1
        (found,) = await unpaid(house, fix=True)
        assert (found.session, found.fixed) == (session, False)
        await house.billing._reload()
        assert (await house.status())["balance"] == "0.00"


async def test_checkouts_of_another_account_or_mode_are_passed_over() -> None:
    async with shop() as house:
        await opened(house)
        await change(house, Checkout.update(session="cs_of_another"))
        session = await house.buy()
        (found,) = await unpaid(house)
        assert found.session == session


async def test_checkouts_that_never_had_a_session_are_passed_over() -> None:
    async with shop() as house:
        await opened(house)
        await change(house, Checkout.update(session=None))
        assert await unpaid(house, fix=True) == []


async def test_where_stripe_does_not_say_nothing_is_taken_for_unpaid() -> None:
    async with shop() as house:
        await house.buy()
        for fault in ("drop_before", "500_before", "429"):
            go_wrong(house, fault)
            with pytest.raises((Declined, Unreachable)):
                await unpaid(house)
        go_wrong(house, "")
        house.stripe.secret_key = "sk_test_another"
        with pytest.raises(Declined) as declined:
            await unpaid(house)
        assert declined.value.code == "forbidden"


async def test_usage_that_is_too_old_for_stripe_does_not_agree() -> None:
    async with metered() as house:
        await change(house, MeterEvent.update(state="dead"))
        house.stripe.meter_events.clear()
        (day,) = await compared(house)
        assert (day.metered_cents, day.unsent_cents, day.ok) == (50, 0, False)


async def test_what_was_sent_just_now_may_still_be_uncounted() -> None:
    async with metered() as house:
        await spend(house, 7)
        await house.round()
        house.stripe.meter_events.pop()
        (day,) = await compared(house)
        assert (day.metered_cents, day.unsent_cents, day.ok) == (57, 7, True)
        await house.jump(3601)
        (day,) = await compared(house)
        assert not day.ok


async def test_a_checkout_that_was_closed_and_paid_after_all_is_found() -> None:
    async with shop() as house:
        session = await opened(house)
        await change(house, Checkout.update(status="closed"))
        house.stripe.pay(session)
        (found,) = await unpaid(house, fix=True)
        assert (found.session, found.fixed) == (session, True)
        await house.jump(8 * 86_400)
        assert await unpaid(house) == []
