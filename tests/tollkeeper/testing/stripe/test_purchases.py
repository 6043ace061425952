"""Checkout sessions that are paid."""

from typing import Any

import pytest

from tollkeeper.testing.stripe import Refusal


async def test_paying_makes_a_payment_with_its_metadata(shop: Any) -> None:
    session = await shop.paid(payment_intent_data={"metadata": {"org": "7"}})
    assert (session["status"], session["payment_status"]) == ("complete", "paid")
    assert shop.kinds() == [
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]
    charge, intent, completed = (event["data"]["object"] for event in shop.fake.events)
    assert completed["payment_intent"] == intent["id"] == charge["payment_intent"]
    assert completed["subscription"] is None
    assert (intent["metadata"], intent["amount"]) == ({"org": "7"}, 2000)
    assert intent["customer"] == completed["customer"]
    with pytest.raises(Refusal, match="complete"):
        shop.fake.pay(session["id"])


async def test_paying_a_subscription_starts_it(shop: Any) -> None:
    made = await shop.subscribed()
    completed = shop.fake.events[-1]["data"]["object"]
    assert (completed["subscription"], completed["payment_intent"]) == (made.id, None)
    assert (completed["status"], completed["payment_status"]) == ("complete", "paid")
    assert completed["invoice"] == made.latest_invoice
    with pytest.raises(Refusal):
        shop.fake.pay_later(
            (
                await shop.session(
                    mode="subscription", line_items=[{"price": "price_pro", "quantity": 1}]
                )
            ).id
        )


async def test_a_payment_may_arrive_later(shop: Any) -> None:
    session = await shop.session(payment_intent_data={"metadata": {"org": "7"}})
    with pytest.raises(Refusal):
        shop.fake.settle_later(session.id)
    shop.fake.pay_later(session.id)
    [completed] = shop.fake.events
    assert completed["type"] == "checkout.session.completed"
    assert completed["data"]["object"]["payment_status"] == "unpaid"
    assert completed["data"]["object"]["payment_intent"]
    shop.fake.settle_later(session.id)
    assert shop.kinds()[1:] == [
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.async_payment_succeeded",
    ]
    assert shop.fake.events[-1]["data"]["object"]["payment_status"] == "paid"
    with pytest.raises(Refusal):
        shop.fake.settle_later(session.id)


async def test_a_payment_may_fail_later(shop: Any) -> None:
    session = await shop.session()
    shop.fake.pay_later(session.id)
    shop.fake.settle_later(session.id, ok=False)
    assert shop.kinds()[1:] == [
        "payment_intent.payment_failed",
        "checkout.session.async_payment_failed",
    ]
    assert shop.fake.events[-1]["data"]["object"]["payment_status"] == "unpaid"
    with pytest.raises(Refusal):
        shop.fake.settle_later(session.id)
