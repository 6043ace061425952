"""Customers, their cards and their portal."""

from typing import Any

import pytest
import stripe

from tollkeeper.testing.stripe import FakeStripe

SAVING = {"setup_future_usage": "off_session"}


async def test_a_customer_is_made_and_shown(shop: Any) -> None:
    customers = shop.client.v1.customers
    made = await customers.create_async(
        params={"name": "Ada", "email": "ada@x.test", "metadata": {"org": "7"}}
    )
    found = await customers.retrieve_async(made.id)
    assert (found.object, found.name, found.email) == ("customer", "Ada", "ada@x.test")
    assert found.metadata["org"] == "7"
    assert found.livemode is False
    assert found.created == 1_000_000


async def test_what_a_customer_cannot_have_is_refused(shop: Any) -> None:
    customers = shop.client.v1.customers
    for params in ({"nickname": "x"}, {"name": ""}):
        with pytest.raises(stripe.InvalidRequestError):
            await customers.create_async(params=params)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await customers.retrieve_async("cus_x")
    assert (caught.value.code, caught.value.http_status) == ("resource_missing", 404)


async def test_saved_cards_are_listed_newest_first(shop: Any) -> None:
    customer = await shop.customer()
    cards = shop.client.v1.customers.payment_methods
    await shop.paid(customer=customer)
    assert (await cards.list_async(customer)).data == []
    first = await shop.paid(customer=customer, payment_intent_data=SAVING)
    await shop.paid(customer=customer, payment_intent_data=SAVING)
    found = (await cards.list_async(customer, {"type": "card"})).data
    assert len(found) == 2
    assert found[1].id == shop.fake.objects[first["payment_intent"]]["payment_method"]
    assert found[0].card.last4 == "4242"
    with pytest.raises(stripe.InvalidRequestError):
        await cards.list_async("cus_x")


async def test_a_portal_is_of_a_customer(shop: Any, fake: FakeStripe) -> None:
    portals = shop.client.v1.billing_portal.sessions
    made = await portals.create_async(
        params={"customer": await shop.customer(), "return_url": "http://x.test"}
    )
    assert made.url == f"{fake.url}/portal/{made.id}"
    assert made.object == "billing_portal.session"
    for params, code in (
        ({}, "parameter_missing"),
        ({"customer": "cus_x"}, "resource_missing"),
        ({"customer": made.customer, "return_url": "javascript:x"}, "url_invalid"),
    ):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await portals.create_async(params=params)
        assert caught.value.code == code
