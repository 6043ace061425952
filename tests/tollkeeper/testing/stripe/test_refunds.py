"""Refunds and disputes."""

from typing import Any

import pytest
import stripe

from tollkeeper.testing.stripe import Refusal


@pytest.fixture
async def intent(shop: Any) -> str:
    return str((await shop.paid(2000))["payment_intent"])


async def test_a_refund_gives_back_a_part_and_then_the_rest(shop: Any, intent: str) -> None:
    refunds = shop.client.v1.refunds
    before = len(shop.fake.events)
    first = await refunds.create_async(
        params={"payment_intent": intent, "amount": 500, "metadata": {"why": "x"}}
    )
    assert (first.status, first.amount, first.payment_intent) == ("succeeded", 500, intent)
    rest = await refunds.create_async(params={"payment_intent": intent})
    assert rest.amount == 1500
    assert (await refunds.retrieve_async(first.id)).metadata["why"] == "x"
    told = shop.fake.events[before:]
    assert [event["type"] for event in told] == ["refund.created", "charge.refunded"] * 2
    charges = [event["data"]["object"] for event in told[1::2]]
    assert [(one["amount_refunded"], one["refunded"]) for one in charges] == [
        (500, False),
        (2000, True),
    ]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await refunds.create_async(params={"payment_intent": intent, "amount": 1})
    assert caught.value.code == "charge_already_refunded"


@pytest.mark.parametrize(
    "changes", [{"amount": 2001}, {"amount": 0}, {"payment_intent": "pi_x"}, {"reason": "x"}]
)
async def test_what_cannot_be_refunded_is_refused(
    shop: Any, intent: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v1.refunds.create_async(params={"payment_intent": intent, **changes})


async def test_what_was_not_paid_is_not_refunded(shop: Any) -> None:
    made = await shop.client.v1.payment_intents.create_async(
        params={"amount": 50, "currency": "usd"}
    )
    with pytest.raises(Refusal):
        shop.fake.refund(made.id)


async def test_a_refund_may_fail_and_the_money_is_back(shop: Any, intent: str) -> None:
    refund = shop.fake.refund(intent)
    shop.fake.fail_refund(refund)
    assert shop.kinds()[-2:] == ["refund.updated", "refund.failed"]
    assert shop.fake.events[-1]["data"]["object"]["status"] == "failed"
    assert shop.fake.events[-2]["data"]["previous_attributes"]["status"] == "succeeded"
    with pytest.raises(Refusal):
        shop.fake.fail_refund(refund)
    shop.fake.refund(intent, 2000)


async def test_a_slow_refund_is_pending_until_it_is_settled(shop: Any, intent: str) -> None:
    shop.fake.slow_refunds = True
    refund = shop.fake.refund(intent, 100)
    assert (await shop.client.v1.refunds.retrieve_async(refund)).status == "pending"
    shop.fake.settle_refund(refund)
    assert (await shop.client.v1.refunds.retrieve_async(refund)).status == "succeeded"
    assert shop.kinds()[-1] == "refund.updated"
    with pytest.raises(Refusal):
        shop.fake.settle_refund(refund)


@pytest.mark.parametrize("status", ["won", "lost"])
async def test_a_dispute_is_opened_and_decided(shop: Any, intent: str, status: str) -> None:
    dispute = shop.fake.dispute(intent)
    opened = shop.fake.events[-1]
    assert opened["type"] == "charge.dispute.created"
    assert opened["data"]["object"]["amount"] == 2000
    assert opened["data"]["object"]["status"] == "needs_response"
    assert opened["data"]["object"]["payment_intent"] == intent
    with pytest.raises(Refusal):
        shop.fake.dispute(intent)
    with pytest.raises(Refusal):
        shop.fake.refund(intent)
    with pytest.raises(Refusal):
        shop.fake.close_dispute(dispute, "drawn")
    shop.fake.close_dispute(dispute, status)
    assert shop.fake.events[-1]["type"] == "charge.dispute.closed"
    assert shop.fake.events[-1]["data"]["object"]["status"] == status
    with pytest.raises(Refusal):
        shop.fake.close_dispute(dispute, status)


async def test_a_dispute_is_over_an_amount_that_was_paid(shop: Any, intent: str) -> None:
    for amount in (0, 2001):
        with pytest.raises(Refusal):
            shop.fake.dispute(intent, amount)
    shop.fake.refund(intent, 500)
    shop.fake.dispute(intent)
    assert shop.fake.events[-1]["data"]["object"]["amount"] == 1500
