"""Invoices."""

from typing import Any

from tollkeeper.testing.stripe.invoices import Line, Reason, collect, draw, fail


async def test_an_invoice_names_what_is_paid_and_for_which_subscription(shop: Any) -> None:
    made = await shop.subscribed(subscription_data={"metadata": {"org": "7"}})
    [paid] = [event for event in shop.fake.events if event["type"] == "invoice.paid"]
    invoice = paid["data"]["object"]
    details = invoice["parent"]["subscription_details"]
    assert (details["subscription"], details["metadata"]) == (made.id, {"org": "7"})
    assert (invoice["customer"], invoice["amount_paid"]) == (made.customer, 2000)
    assert (invoice["status"], invoice["billing_reason"]) == ("paid", "subscription_create")
    [line] = invoice["lines"]["data"]
    assert line["pricing"]["price_details"]["price"] == "price_pro"
    assert line["period"] == {"start": 1_000_000, "end": 1_000_000 + 30 * 86400}
    [payment] = invoice["payments"]["data"]
    assert shop.fake.objects[payment["payment"]["payment_intent"]]["metadata"] == {}


async def test_one_that_was_made_for_a_payment_has_no_subscription(shop: Any) -> None:
    session = await shop.paid(invoice_creation={"enabled": True})
    assert shop.kinds() == [
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice.paid",
        "checkout.session.completed",
    ]
    invoice = shop.fake.objects[session["invoice"]]
    assert (invoice["parent"], invoice["amount_paid"]) == (None, 2000)
    [payment] = invoice["payments"]["data"]
    assert payment["payment"]["payment_intent"] == session["payment_intent"]


async def test_an_invoice_of_nothing_is_paid_without_a_payment(shop: Any) -> None:
    price = shop.fake.objects[shop.fake.add_price("price_pro", 2000)]
    customer = await shop.customer()
    invoice = draw(shop.fake, [Line(price, 0, 0, (1, 2))], Reason("manual", customer))
    collect(shop.fake, invoice)
    assert shop.kinds() == ["invoice.paid"]


async def test_one_that_fails_stays_open(shop: Any) -> None:
    price = shop.fake.objects[shop.fake.add_price("price_pro", 2000)]
    invoice = draw(shop.fake, [Line(price, 1, 2000, (1, 2))], Reason("manual", "cus"))
    fail(shop.fake, invoice)
    assert (invoice["status"], invoice["attempt_count"]) == ("open", 1)
    assert shop.kinds() == ["invoice.payment_failed"]
