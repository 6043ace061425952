"""Checkout sessions: what may be bought."""

from typing import Any

import pytest
import stripe

from tollkeeper.testing import JumpClock
from tollkeeper.testing.stripe import FakeStripe, Refusal


def line(cents: object = 2000, quantity: int | None = 1, **data: Any) -> dict[str, Any]:
    price = {"currency": "usd", "unit_amount": cents, "product_data": {"name": "Credit"}, **data}
    return {"price_data": price, "quantity": quantity}


async def test_a_session_is_open_and_unpaid(shop: Any, fake: FakeStripe) -> None:
    made = await shop.session(
        line_items=[line(2000), line(250, 2)],
        cancel_url="http://shop.test",
        client_reference_id="org-7",
        metadata={"org": "7"},
        payment_intent_data={"metadata": {"org": "7"}, "setup_future_usage": "off_session"},
        automatic_tax={"enabled": True},
        customer_update={"address": "auto", "name": "auto"},
        tax_id_collection={"enabled": True},
        invoice_creation={"enabled": True},
        billing_address_collection="required",
        allow_promotion_codes=True,
    )
    assert made.id.startswith("cs_test_")
    assert made.url == f"{fake.url}/pay/{made.id}"
    found = await shop.client.v1.checkout.sessions.retrieve_async(made.id)
    assert (found.status, found.payment_status, found.mode) == ("open", "unpaid", "payment")
    assert (found.amount_subtotal, found.amount_total, found.currency) == (2500, 2500, "usd")
    assert (found.payment_intent, found.subscription) == (None, None)
    assert found.expires_at == found.created + 86400
    assert (found.client_reference_id, found.metadata["org"]) == ("org-7", "7")
    assert fake.events == []


async def test_prices_by_id_and_recurring_ones_make_a_subscription(shop: Any) -> None:
    shop.fake.add_price("price_pro", 2000)
    shop.fake.add_price("price_metered", 1, meter=shop.fake.add_meter("tokens"))
    made = await shop.session(
        mode="subscription",
        line_items=[{"price": "price_pro", "quantity": 2}, {"price": "price_metered"}],
        subscription_data={"metadata": {"org": "7"}},
    )
    assert (made.mode, made.amount_total) == ("subscription", 4000)
    only = await shop.session(mode="subscription", line_items=[{"price": "price_metered"}])
    assert only.amount_total == 0
    inline = line(2000, recurring={"interval": "month"})
    assert (await shop.session(mode="subscription", line_items=[inline])).amount_total == 2000


RECURRING = {"price": "price_pro", "quantity": 1}
METERED = {"price": "price_metered", "quantity": 1}


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"line_items": [line(49)]}, "amount_too_small", "50 cents"),
        ({"line_items": [line(20.5)]}, "parameter_invalid_integer", "integer"),
        ({"line_items": [line("12x")]}, "parameter_invalid_integer", "integer"),
        ({"line_items": [line(-5)]}, None, "non-negative"),
        ({"line_items": [line(quantity=None)]}, "parameter_missing", "quantity"),
        ({"line_items": [line(quantity=0)]}, None, "quantity"),
        ({"line_items": [{"quantity": 1}]}, None, "either price or price_data"),
        ({"line_items": [{**line(), **RECURRING}]}, None, "either price or price_data"),
        ({"line_items": [line(product="prod_x")]}, None, "product_data"),
        ({"line_items": [line(), line(currency="eur")]}, None, "one currency"),
        ({"line_items": [{"price": "price_x", "quantity": 1}]}, "resource_missing", "price"),
        ({"line_items": None}, "parameter_missing", "line_items"),
        ({"line_items": [RECURRING]}, None, "recurring"),
        ({"mode": "subscription"}, None, "recurring"),
        ({"mode": "subscription", "line_items": [METERED]}, None, "quantity for metered"),
        (
            {
                "mode": "subscription",
                "line_items": [RECURRING],
                "payment_intent_data": {"description": "x"},
            },
            None,
            "payment_intent_data",
        ),
        (
            {
                "mode": "subscription",
                "line_items": [RECURRING],
                "invoice_creation": {"enabled": True},
            },
            None,
            "invoice_creation",
        ),
        ({"subscription_data": {"metadata": {"a": "b"}}}, None, "subscription_data"),
        ({"mode": "setup"}, None, "mode"),
        ({"mode": None}, "parameter_missing", "mode"),
        ({"customer": "cus_x"}, "resource_missing", "customer"),
        ({"success_url": None}, "parameter_missing", "success_url"),
        ({"success_url": "/done"}, "url_invalid", "URL"),
        ({"automatic_tax": {"enabled": True}}, "customer_tax_location_invalid", "address"),
        ({"tax_id_collection": {"enabled": True}}, None, "customer_update"),
        ({"surprise": "x"}, "parameter_unknown", "surprise"),
    ],
)
async def test_what_stripe_refuses_is_refused(
    shop: Any, fields: dict[str, Any], code: str | None, says: str
) -> None:
    shop.fake.add_price("price_pro", 2000)
    shop.fake.add_price("price_metered", 1, meter=shop.fake.add_meter("tokens"))
    known = len(shop.fake.every("price"))
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.session(**fields)
    assert (caught.value.http_status, caught.value.code) == (400, code)
    assert says in str(caught.value)
    assert len(shop.fake.every("price")) == known
    assert shop.fake.every("checkout.session") == []


async def test_a_session_can_be_expired_once(shop: Any) -> None:
    sessions = shop.client.v1.checkout.sessions
    made = await shop.session()
    gone = await sessions.expire_async(made.id)
    assert (gone.status, gone.url) == ("expired", None)
    assert shop.kinds() == ["checkout.session.expired"]
    with pytest.raises(stripe.InvalidRequestError):
        await sessions.expire_async(made.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await sessions.expire_async("cs_test_x")
    assert caught.value.http_status == 404


async def test_a_session_expires_after_a_day(shop: Any, clock: JumpClock) -> None:
    made = await shop.session()
    clock.jump(86399)
    sessions = shop.client.v1.checkout.sessions
    assert (await sessions.retrieve_async(made.id)).status == "open"
    clock.jump(1)
    assert (await sessions.retrieve_async(made.id)).status == "expired"
    assert shop.kinds() == ["checkout.session.expired"]
    with pytest.raises(Refusal, match="expired"):
        shop.fake.pay(made.id)
