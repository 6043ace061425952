"""The pages."""

from typing import Any

import pytest

from tollkeeper.testing import JumpClock
from tollkeeper.testing.stripe.pages import money


def test_money_is_told_for_people() -> None:
    assert money(123456, "usd") == "$1,234.56"
    assert money(5, "eur") == "0.05 EUR"


def path(url: str) -> str:
    return "/" + url.split("/", 3)[3]


async def test_a_session_is_paid_on_its_page(shop: Any) -> None:
    session = await shop.session(cancel_url="http://shop.test/?a=1&b='2'")
    page = await shop.raw("GET", path(session.url))
    text = page.body.decode()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Credit" in text
    assert "Pay $20.00" in text
    assert 'href="http://shop.test/?a=1&amp;b=&#x27;2&#x27;"' in text
    paid = await shop.raw("POST", path(session.url))
    assert paid.status == 303
    assert paid.headers["location"] == f"http://shop.test/done?s={session.id}"
    assert shop.kinds()[-1] == "checkout.session.completed"
    after = await shop.raw("GET", path(session.url))
    assert "This checkout is complete." in after.body.decode()
    assert "<button" not in after.body.decode()
    again = await shop.raw("POST", path(session.url))
    assert again.status == 400
    assert "complete" in again.body.decode()


async def test_an_expired_session_cannot_be_paid(shop: Any, clock: JumpClock) -> None:
    session = await shop.session()
    clock.jump(86400)
    assert "expired" in (await shop.raw("GET", path(session.url))).body.decode()
    assert (await shop.raw("POST", path(session.url))).status == 400


@pytest.mark.parametrize("where", ["/pay/cs_test_x", "/portal/bps_x", "/portal/x/cancel/y"])
async def test_what_is_not_there_is_not_found(shop: Any, where: str) -> None:
    method = "POST" if "cancel" in where else "GET"
    reply = await shop.raw(method, where)
    assert (reply.status, reply.headers["content-type"]) == (404, "text/html; charset=utf-8")


async def test_names_are_escaped(shop: Any) -> None:
    evil = "<script>alert(1)</script>"
    customer = await shop.customer(name=evil)
    data = {"currency": "usd", "unit_amount": 100, "product_data": {"name": evil}}
    item = {"price_data": {**data, "recurring": {"interval": "month"}}, "quantity": 2}
    session = await shop.session(customer=customer, mode="subscription", line_items=[item])
    pay = await shop.raw("GET", path(session.url))
    assert "&times; 2" in pay.body.decode()
    assert "$2.00 every month" in pay.body.decode()
    shop.fake.pay(session.id)
    made = await shop.client.v1.billing_portal.sessions.create_async(params={"customer": customer})
    portal = await shop.raw("GET", path(made.url))
    missing = await shop.raw("GET", "/pay/%3Cscript%3Ealert(1)")
    for reply in (pay, portal, missing):
        assert b"<script" not in reply.body
    assert b"&lt;script&gt;" in portal.body


async def test_the_portal_shows_and_cancels(shop: Any) -> None:
    customer = await shop.customer(name="Ada")
    made = await shop.subscribed(customer=customer)
    paid = await shop.paid(customer=customer)
    shop.fake.refund(paid["payment_intent"], 500)
    disputed = await shop.paid(customer=customer)
    shop.fake.dispute(disputed["payment_intent"])
    portal = await shop.client.v1.billing_portal.sessions.create_async(
        params={"customer": customer, "return_url": "http://shop.test/back"}
    )
    where = path(portal.url)
    text = (await shop.raw("GET", where)).body.decode()
    for word in ("Ada", "price_pro", "active", "$20.00", "$5.00 refunded", "disputed", "/back"):
        assert word in text
    reply = await shop.raw("POST", f"{where}/cancel/{made.id}?later=1")
    assert (reply.status, reply.headers["location"]) == (303, where)
    text = (await shop.raw("GET", where)).body.decode()
    assert "ends with its period" in text
    assert "Cancel at period end" not in text
    await shop.raw("POST", f"{where}/cancel/{made.id}")
    assert shop.kinds()[-1] == "customer.subscription.deleted"
    assert "<button" not in (await shop.raw("GET", where)).body.decode()
    other = await shop.subscribed("price_pro")
    assert (await shop.raw("POST", f"{where}/cancel/{other.id}")).status == 404


async def test_a_metered_price_is_told_by_the_unit(shop: Any) -> None:
    shop.fake.add_price("price_metered", 2, meter=shop.fake.add_meter("tokens"))
    session = await shop.session(mode="subscription", line_items=[{"price": "price_metered"}])
    assert "$0.02 a unit every month" in (await shop.raw("GET", path(session.url))).body.decode()
    customer = await shop.customer(email="ada@x.test")
    portal = await shop.client.v1.billing_portal.sessions.create_async(
        params={"customer": customer}
    )
    text = (await shop.raw("GET", path(portal.url))).body.decode()
    assert "ada@x.test" in text
    assert text.count("None") == 2
