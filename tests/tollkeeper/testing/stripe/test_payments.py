"""Payment intents."""

from typing import Any

import pytest
import stripe

from tollkeeper.testing.stripe import FakeStripe


@pytest.fixture
async def saved(shop: Any) -> dict[str, Any]:
    """A payment by a saved card."""
    customer = await shop.customer()
    paid = await shop.paid(
        customer=customer, payment_intent_data={"setup_future_usage": "off_session"}
    )
    card = shop.fake.objects[paid["payment_intent"]]["payment_method"]
    return {
        "amount": 1500,
        "currency": "usd",
        "customer": customer,
        "payment_method": card,
        "off_session": True,
        "confirm": True,
        "metadata": {"org": "7"},
        "description": "Top-up",
    }


async def test_a_saved_card_pays_at_once(shop: Any, saved: dict[str, Any]) -> None:
    before = len(shop.fake.events)
    made = await shop.client.v1.payment_intents.create_async(params=saved)
    assert (made.status, made.amount_received, made.description) == ("succeeded", 1500, "Top-up")
    assert [event["type"] for event in shop.fake.events[before:]] == [
        "charge.succeeded",
        "payment_intent.succeeded",
    ]
    assert shop.fake.events[-1]["data"]["object"]["metadata"] == {"org": "7"}
    found = await shop.client.v1.payment_intents.retrieve_async(
        made.id, {"expand": ["latest_charge"]}
    )
    assert found.latest_charge.amount == 1500


async def test_a_payment_may_wait_for_its_confirmation(shop: Any, saved: dict[str, Any]) -> None:
    create = shop.client.v1.payment_intents.create_async
    plain = await create(params={"amount": 50, "currency": "usd"})
    assert plain.status == "requires_payment_method"
    named = {name: saved[name] for name in ("amount", "currency", "customer", "payment_method")}
    assert (await create(params=named)).status == "requires_confirmation"


@pytest.mark.parametrize(
    ("declining", "code", "decline_code"),
    [
        ("card_declined", "card_declined", "generic_decline"),
        ("insufficient_funds", "card_declined", "insufficient_funds"),
        ("authentication_required", "authentication_required", "authentication_required"),
    ],
)
async def test_a_card_may_be_declined(
    shop: Any, saved: dict[str, Any], declining: str, code: str, decline_code: str
) -> None:
    shop.fake.declining = declining
    with pytest.raises(stripe.CardError) as caught:
        await shop.client.v1.payment_intents.create_async(params=saved)
    error: Any = caught.value
    assert (error.http_status, error.code) == (402, code)
    assert error.error.decline_code == decline_code
    assert error.error.payment_intent.status == "requires_payment_method"
    assert shop.kinds()[-1] == "payment_intent.payment_failed"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount": 49}, "amount_too_small"),
        ({"amount": None}, "parameter_missing"),
        ({"amount": 99.5}, "parameter_invalid_integer"),
        ({"customer": "cus_x"}, "resource_missing"),
        ({"payment_method": "pm_x"}, "resource_missing"),
        ({"payment_method": None}, "payment_intent_unexpected_state"),
        ({"customer": None}, None),
        ({"confirm": False}, None),
        ({"capture": True}, "parameter_unknown"),
    ],
)
async def test_what_cannot_be_paid_is_refused(
    shop: Any, saved: dict[str, Any], changes: dict[str, Any], code: str | None
) -> None:
    before = len(shop.fake.every("payment_intent"))
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.client.v1.payment_intents.create_async(params={**saved, **changes})
    assert caught.value.code == code
    assert len(shop.fake.every("payment_intent")) == before
    assert isinstance(shop.fake, FakeStripe)
