"""Subscriptions."""

from typing import Any

import pytest
import stripe

from tollkeeper.testing.stripe import Refusal

MONTH = 30 * 86400


async def test_a_subscription_has_its_period_on_its_item(shop: Any) -> None:
    made = await shop.subscribed(subscription_data={"metadata": {"org": "7"}})
    assert (made.status, made.metadata["org"]) == ("active", "7")
    assert made.cancel_at_period_end is False
    assert "current_period_end" not in made
    [item] = made["items"].data
    assert item.price.id == "price_pro"
    assert (item.current_period_start, item.current_period_end) == (1_000_000, 1_000_000 + MONTH)
    assert shop.kinds() == [
        "customer.subscription.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice.paid",
        "checkout.session.completed",
    ]


async def test_subscriptions_are_listed_by_customer_and_status(shop: Any) -> None:
    first, second = await shop.subscribed(), await shop.subscribed("price_pro")
    shop.fake.cancel(first.id)

    async def ids(**params: Any) -> list[str]:
        found = await shop.client.v1.subscriptions.list_async(params)
        return [one.id for one in found.data]

    assert await ids() == [second.id]
    assert await ids(status="all") == [second.id, first.id]
    assert await ids(status="all", limit=1) == [second.id]
    assert await ids(status="canceled") == [first.id]
    assert await ids(status="active", customer=first.customer) == []
    assert await ids(customer=second.customer) == [second.id]
    with pytest.raises(stripe.InvalidRequestError):
        await ids(customer="cus_x")
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v1.subscriptions.retrieve_async("sub_x")


async def period(shop: Any, made: Any) -> tuple[int, int, str]:
    found = await shop.client.v1.subscriptions.retrieve_async(made.id)
    item = found["items"].data[0]
    start = (item.current_period_start - 1_000_000) // MONTH
    return start, (item.current_period_end - 1_000_000) // MONTH, found.status


async def test_a_renewal_begins_the_next_period(shop: Any) -> None:
    made = await shop.subscribed()
    shop.fake.renew(made.id)
    assert await period(shop, made) == (1, 2, "active")
    assert shop.kinds()[-1] == "invoice.paid"
    assert "customer.subscription.updated" in shop.kinds()
    assert shop.fake.events[-1]["data"]["object"]["billing_reason"] == "subscription_cycle"


async def test_a_renewal_may_fail_and_be_paid_later(shop: Any) -> None:
    made = await shop.subscribed()
    shop.fake.fail_renewal(made.id)
    assert await period(shop, made) == (1, 2, "past_due")
    assert shop.kinds()[-2:] == ["customer.subscription.updated", "invoice.payment_failed"]
    failed = shop.fake.events[-1]["data"]["object"]
    assert failed["parent"]["subscription_details"]["subscription"] == made.id
    assert failed["customer"] == made.customer
    shop.fake.fail_renewal(made.id)
    assert shop.fake.events[-1]["data"]["object"]["attempt_count"] == 2
    shop.fake.renew(made.id)
    assert await period(shop, made) == (1, 2, "active")
    assert shop.fake.events[-1]["data"]["object"]["id"] == failed["id"]


async def test_what_a_meter_tells_is_paid_at_the_end_of_the_period(shop: Any) -> None:
    shop.fake.add_price("price_metered", 2, meter=shop.fake.add_meter("tokens"))
    made = await shop.subscribed("price_metered")
    assert "quantity" not in made["items"].data[0]
    payload = {"stripe_customer_id": made.customer, "value": "30"}
    await shop.client.v1.billing.meter_events.create_async(
        params={"event_name": "tokens", "payload": payload}
    )
    for paid in (60, 0):
        shop.fake.renew(made.id)
        assert shop.fake.events[-1]["data"]["object"]["amount_paid"] == paid


async def test_a_subscription_is_canceled_now_or_later(shop: Any) -> None:
    made, later = await shop.subscribed(), await shop.subscribed("price_pro")
    shop.fake.cancel(made.id)
    assert shop.kinds()[-1] == "customer.subscription.deleted"
    assert shop.fake.events[-1]["data"]["object"]["status"] == "canceled"
    for act in (shop.fake.cancel, shop.fake.renew, shop.fake.fail_renewal, shop.fake.cancel_later):
        with pytest.raises(Refusal):
            act(made.id)
    shop.fake.cancel_later(later.id)
    updated = shop.fake.events[-1]
    assert updated["type"] == "customer.subscription.updated"
    assert updated["data"]["object"]["cancel_at_period_end"] is True
    assert updated["data"]["previous_attributes"]["cancel_at_period_end"] is False
    shop.fake.renew(later.id)
    assert shop.kinds()[-1] == "customer.subscription.deleted"


async def test_a_price_can_be_changed_for_a_recurring_one(shop: Any) -> None:
    made = await shop.subscribed()
    shop.fake.add_price("price_max", 9000)
    shop.fake.change_price(made.id, "price_max")
    told = shop.fake.events[-1]
    assert told["type"] == "customer.subscription.updated"
    assert told["data"]["object"]["items"]["data"][0]["price"]["id"] == "price_max"
    assert told["data"]["previous_attributes"]["items"]["data"][0]["price"]["id"] == "price_pro"
    shop.fake.add_price("price_metered", 1, meter=shop.fake.add_meter("tokens"))
    for price, has_quantity in (("price_metered", False), ("price_pro", True)):
        shop.fake.change_price(made.id, price)
        item = shop.fake.events[-1]["data"]["object"]["items"]["data"][0]
        assert ("quantity" in item) == has_quantity
    once = await shop.client.v1.prices.create_async(
        params={"currency": "usd", "unit_amount": 500, "product_data": {"name": "Credit"}}
    )
    for wrong in ("price_x", once.id):
        with pytest.raises(Refusal):
            shop.fake.change_price(made.id, wrong)


async def test_a_change_of_price_is_on_the_next_invoice_or_on_one_of_its_own(shop: Any) -> None:
    made = await shop.subscribed()
    shop.fake.add_price("price_max", 9000)
    shop.fake.change_price(made.id, "price_max")
    assert shop.kinds()[-1] == "customer.subscription.updated"
    shop.fake.renew(made.id)
    lines = shop.fake.events[-1]["data"]["object"]["lines"]["data"]
    assert [line["amount"] for line in lines] == [-2000, 9000, 9000]
    shop.fake.change_price(made.id, "price_pro", at_once=True)
    credited = shop.fake.events[-1]["data"]["object"]
    assert (credited["billing_reason"], credited["status"]) == ("subscription_update", "paid")
    assert (credited["total"], credited["amount_due"]) == (-7000, 0)
    customer = await shop.client.v1.customers.retrieve_async(made.customer)
    assert customer.balance == credited["total"]
    shop.fake.change_price(made.id, "price_max", at_once=True)
    assert shop.fake.events[-1]["data"]["object"]["amount_due"] == 0


async def test_another_interval_begins_a_period_that_is_paid_at_once(shop: Any) -> None:
    made = await shop.subscribed()
    params: Any = {"currency": "usd", "unit_amount": 20_000, "product_data": {"name": "Yearly"}}
    yearly = await shop.client.v1.prices.create_async({**params, "recurring": {"interval": "year"}})
    shop.fake.change_price(made.id, yearly.id)
    paid = shop.fake.events[-1]["data"]["object"]
    assert [line["amount"] for line in paid["lines"]["data"]] == [-2000, 20_000]
    every = await shop.client.v1.invoices.line_items.list_async(paid["id"], {"limit": 1})
    assert [line.amount async for line in every.auto_paging_iter()] == [-2000, 20_000]
