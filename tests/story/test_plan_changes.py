"""Changes of plan at Stripe, and what they make of an allowance: never more than was paid for."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from shop import BILLING, Shop, shop

from tollkeeper.testing.stripe.invoices import collect
from tollkeeper_billing.draws import DAY

MONTH = 30 * DAY
TAIL = """
[plugins.billing.plans.big]
stripe_price = "price_big"
included = "100.00"
[plugins.billing.plans.yearly]
stripe_price = "price_yearly"
included = "240.00"
"""


@contextlib.asynccontextmanager
async def plans() -> AsyncIterator[tuple[Shop, str]]:
    """A shop with larger plans, and a subscription to the small one."""
    async with shop(tail=TAIL) as house:
        house.stripe.add_price("price_big", 10_000)
        house.stripe.add_price("price_yearly", 24_000)
        yearly = house.stripe.objects["price_yearly"]
        yearly["recurring"] = {**yearly["recurring"], "interval": "year"}
        await house.buy("pro", "plan")
        await house.deliver()
        yield house, str(house.stripe.every("subscription")[0]["id"])


async def balance(house: Shop) -> str:
    await house.deliver()
    return str((await house.status())["balance"])


async def use(house: Shop, dollars: int) -> None:
    tokens = dollars * 100
    assert (await house.chat(await house.key(), tokens, tokens)).status == 200
    await house.written()


async def test_a_better_plan_adds_nothing_before_it_is_paid() -> None:
    async with plans() as (house, subscription):
        house.stripe.change_price(subscription, "price_big")
        assert await balance(house) == "20.00"
        assert (await house.status())["plan"] == "big"
        house.stripe.change_price(subscription, "price_pro")
        assert await balance(house) == "20.00"
        house.stripe.change_price(subscription, "price_big")
        await house.jump(MONTH)
        house.stripe.renew(subscription)
        assert await balance(house) == "180.00"


async def test_a_better_plan_that_is_paid_at_once_adds_the_difference_at_once() -> None:
    async with plans() as (house, subscription):
        await house.jump(MONTH // 2)
        house.stripe.change_price(subscription, "price_big", at_once=True)
        assert 59.9 < float(await balance(house)) <= 60


async def test_who_goes_up_uses_it_and_goes_down_again_owes_what_stripe_credits() -> None:
    async with plans() as (house, subscription):
        house.stripe.change_price(subscription, "price_big", at_once=True)
        assert await balance(house) == "100.00"
        await use(house, 90)
        await house.jump(DAY)
        house.stripe.change_price(subscription, "price_pro", at_once=True)
        assert -67.4 < float(await balance(house)) < -67.3
        assert (await house.status())["hard_stop"]


async def test_a_change_that_is_on_the_next_invoice_counts_with_it() -> None:
    async with plans() as (house, subscription):
        house.stripe.change_price(subscription, "price_big")
        await house.jump(MONTH)
        house.stripe.renew(subscription)
        assert await balance(house) == "180.00"  # and so much was paid
        await use(house, 150)
        house.stripe.change_price(subscription, "price_pro")
        assert await balance(house) == "30.00"
        await house.jump(MONTH)
        house.stripe.renew(subscription)
        assert -30.1 < float(await balance(house)) < -29.9


async def test_a_change_for_which_stripe_credits_nothing_takes_nothing() -> None:
    async with plans() as (house, subscription):
        house.stripe.change_price(subscription, "price_big", at_once=True)
        assert await balance(house) == "100.00"
        house.stripe.change_price(subscription, "price_pro")
        house.stripe.pending.clear()  # as with a proration_behavior of none
        await house.jump(MONTH - DAY)
        assert await balance(house) == "100.00"
        await house.jump(DAY)
        house.stripe.renew(subscription)
        assert await balance(house) == "20.00"


async def test_a_credit_for_what_was_never_paid_gives_nothing() -> None:
    async with plans() as (house, subscription):
        house.stripe.change_price(subscription, "price_big")
        house.stripe.pending.clear()
        await house.jump(MONTH)
        house.stripe.fail_renewal(subscription)
        assert await balance(house) == "0.00"
        house.stripe.change_price(subscription, "price_pro", at_once=True)
        house.stripe.find("subscription", subscription)["status"] = "active"
        unpaid = house.stripe.every("invoice")[1]
        for _ in range(3):  # which the credit pays
            assert await balance(house) == "0.00"
            await house.jump(MONTH)
            house.stripe.renew(subscription)
        collect(house.stripe, unpaid)
        assert await balance(house) == "20.00"


async def test_who_goes_up_before_the_renewal_is_paid_has_what_the_renewal_was_for() -> None:
    async with plans() as (house, subscription):
        await house.jump(MONTH)
        house.stripe.renew(subscription)
        house.stripe.change_price(subscription, "price_big")
        assert await balance(house) == "20.00"


async def test_a_plan_is_found_on_an_invoice_of_many_lines() -> None:
    async with plans() as (house, subscription):
        for _ in range(4):
            house.stripe.change_price(subscription, "price_big")
            house.stripe.change_price(subscription, "price_pro")
        house.stripe.change_price(subscription, "price_big")
        await house.jump(MONTH)
        house.stripe.renew(subscription)
        assert await balance(house) == "180.00"
        invoice = house.stripe.find("subscription", subscription)["latest_invoice"]
        assert ("GET", f"/v1/invoices/{invoice}/lines") in house.stripe.requests


async def test_changing_the_interval_to_and_fro_gives_nothing_that_stripe_credits() -> None:
    async with plans() as (house, subscription):
        for _ in range(3):
            house.stripe.change_price(subscription, "price_yearly")
            assert await balance(house) == "240.00"
            house.stripe.change_price(subscription, "price_pro")
            assert await balance(house) == "20.00"


async def test_a_second_plan_after_one_that_was_ended_at_once_has_its_own_allowance() -> None:
    async with plans() as (house, subscription):
        assert await balance(house) == "20.00"
        house.stripe.cancel(subscription)
        assert await balance(house) == "0.00"
        await house.buy("pro", "plan")
        assert await balance(house) == "20.00"


async def test_who_ends_and_buys_between_two_looks_has_the_second_allowance_only() -> None:
    async with plans() as (house, subscription):
        house.stripe.cancel(subscription)
        session = house.stripe.find(
            "checkout.session", house.stripe.every("checkout.session")[0]["id"]
        )
        again = {**house.stripe.find("subscription", subscription), "id": "sub_again"}
        house.stripe.objects["sub_again"] = {**again, "status": "active", "ended_at": None}
        house.stripe.record("customer.subscription.created", house.stripe.objects["sub_again"])
        assert session["customer"] == again["customer"]
        assert await balance(house) == "20.00"


async def test_what_is_paid_stays_while_something_else_is_past_due() -> None:
    async with plans() as (house, subscription):
        living = house.stripe.find("subscription", subscription)
        invoice = house.stripe.find("invoice", living["latest_invoice"])
        living["status"], invoice["status"] = "past_due", "open"
        house.stripe.record("customer.subscription.updated", living)
        assert await balance(house) == "20.00"
        living["status"], invoice["status"] = "active", "paid"
        house.stripe.record("customer.subscription.updated", living)
        assert await balance(house) == "20.00"


async def test_what_is_odd_is_told_once_and_looked_at_no_more_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with plans() as (house, subscription):
        house.stripe.add_price("price_other", 100)
        house.stripe.change_price(subscription, "price_other")
        await house.deliver()
        await house.jump(MONTH)  # and Stripe shows no new period yet
        asked = []
        for _ in range(3):
            before = len(house.stripe.requests)
            await house.round()
            asked.append(len(house.stripe.requests) - before)
            house.clock.jump(30)
        assert asked == [2, 0, 2]
    assert caplog.text.count("prices of no plan") == 1


async def test_a_plan_that_was_just_paid_stands_in_the_way_of_a_second_one() -> None:
    async with shop(tail=TAIL) as house:
        await house.buy("pro", "plan")  # and the webhook is still under way
        reply = await house.ask("POST", f"{BILLING}/checkout", {"plan": "usage"})
        assert (reply.status, reply.code) == (409, "conflict")
        await house.deliver()
        assert (await house.status())["balance"] == "20.00"


async def test_a_change_whose_webhook_got_lost_is_found_within_a_day() -> None:
    async with plans() as (house, subscription):
        house.stripe.change_price(subscription, "price_big", at_once=True)
        house.delivered = len(house.stripe.events)
        await house.jump(DAY)
        await house.round()
        assert (await house.status())["balance"] == "100.00"


async def test_one_subscription_that_cannot_be_read_is_named_and_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with plans() as (house, _):
        invoice = house.stripe.every("invoice")[0]
        invoice["lines"]["data"][0]["period"] = None
        ended = house.stripe.every("subscription")[0]
        ended["items"]["data"][0]["price"] = None
        house.stripe.record("customer.subscription.updated", ended)
        await house.join("other")
        await house.buy("pro", "plan", "other")
        for _ in range(3):
            await house.deliver()
        assert (await house.status("other"))["plan"] == "pro"
        assert caplog.text.count(f"{house.orgs['acme']} cannot be looked up") == 1


@pytest.mark.parametrize(("first", "then", "left"), [("pro", "big", 100), ("big", "pro", 20)])
async def test_a_change_before_the_renewal_is_paid_counts_for_the_new_period(
    first: str, then: str, left: int
) -> None:
    async with plans() as (house, subscription):
        house.stripe.change_price(subscription, f"price_{first}", at_once=True)
        await house.deliver()
        await house.jump(MONTH)
        house.stripe.draft_renewal(subscription)
        renewal = house.stripe.every("invoice")[0]
        await house.jump(60)
        house.stripe.change_price(subscription, f"price_{then}", at_once=True)
        await house.deliver()
        await house.jump(3540)
        collect(house.stripe, renewal)
        assert abs(float(await balance(house)) - left) < 0.2


async def test_ending_a_plan_that_costs_nothing_and_buying_it_anew_gives_nothing() -> None:
    tail = '[plugins.billing.plans.metered]\nstripe_price = "price_pure"\n'
    async with shop(tail=tail + 'meter = "usd_cents"\nincluded = "5.00"\n') as house:
        meter = house.stripe.every("billing.meter")[0]["id"]
        house.stripe.add_price("price_pure", 1, meter=meter)
        for given in ("5.00", "0.00"):
            await house.buy("metered", "plan")
            assert await balance(house) == given
            house.stripe.cancel(house.stripe.every("subscription")[0]["id"])
            await house.deliver()
        await house.buy("metered", "plan")
        await house.deliver()
        await house.jump(MONTH)
        house.stripe.renew(house.stripe.every("subscription")[0]["id"])
        assert await balance(house) == "5.00"


@pytest.mark.parametrize("status", ["unpaid", "paused", "incomplete"])
async def test_a_subscription_that_stands_still_is_looked_up_each_hour_and_blocks_another(
    status: str,
) -> None:
    async with plans() as (house, subscription):
        living = house.stripe.find("subscription", subscription)
        living["status"] = status
        house.stripe.record("customer.subscription.updated", living)
        await house.deliver()
        assert (await house.ask("POST", f"{BILLING}/checkout", {"plan": "big"})).status == 409
        await house.jump(2 * MONTH)
        await house.round()
        before = len(house.stripe.requests)
        for _ in range(60):
            house.clock.jump(60)
            await house.round()
        assert len(house.stripe.requests) - before == 2
