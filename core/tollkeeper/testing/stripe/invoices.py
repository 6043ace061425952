"""Invoices: what is to be paid for a period, and whether it was."""

from dataclasses import dataclass

from tollkeeper.testing.stripe.customers import card_of
from tollkeeper.testing.stripe.payments import open_intent, settle
from tollkeeper.testing.stripe.state import State, Thing


@dataclass(frozen=True, slots=True)
class Line:
    """What one price comes to in a period."""

    price: Thing
    quantity: int
    amount: int
    period: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there is an invoice, and for whom."""

    name: str
    customer: str | None
    subscription: Thing | None = None


def draw(state: State, lines: list[Line], reason: Reason) -> Thing:
    """An invoice that is open."""
    total = sum(line.amount for line in lines)
    return state.add(
        "invoice",
        "in",
        {
            "amount_due": total,
            "amount_paid": 0,
            "amount_remaining": total,
            "attempt_count": 0,
            "attempted": False,
            "billing_reason": reason.name,
            "collection_method": "charge_automatically",
            "currency": lines[0].price["currency"],
            "customer": reason.customer,
            "lines": {"object": "list", "data": [_line(one) for one in lines], "has_more": False},
            "metadata": {},
            "parent": _parent(reason.subscription),
            "payments": {"object": "list", "data": [], "has_more": False},
            "period_end": state.now(),
            "period_start": state.now(),
            "status": "open",
            "subtotal": total,
            "total": total,
        },
    )


def _line(line: Line) -> Thing:
    price = {"price": line.price["id"], "product": line.price["product"]}
    return {
        "object": "line_item",
        "amount": line.amount,
        "currency": line.price["currency"],
        "metadata": {},
        "period": {"start": line.period[0], "end": line.period[1]},
        "pricing": {"type": "price_details", "price_details": price},
        "quantity": line.quantity,
    }


def _parent(subscription: Thing | None) -> Thing | None:
    if subscription is None:
        return None
    details = {"subscription": subscription["id"], "metadata": dict(subscription["metadata"])}
    return {
        "type": "subscription_details",
        "quote_details": None,
        "subscription_details": details,
    }


def collect(state: State, invoice: Thing, intent: Thing | None = None) -> None:
    """Pay an invoice, by the customer's card unless a payment was already made for it."""
    total = invoice["amount_due"]
    if intent is None and total:
        wanted = {name: invoice[name] for name in ("currency", "customer")}
        intent = open_intent(state, {**wanted, "amount": total})
        settle(state, intent, card_of(state, invoice["customer"]))
    if intent is not None:
        payment = {"type": "payment_intent", "payment_intent": intent["id"]}
        invoice["payments"]["data"].append({"object": "invoice_payment", "payment": payment})
    invoice.update(status="paid", amount_paid=total, amount_remaining=0, attempted=True)
    invoice["attempt_count"] += 1
    state.record("invoice.paid", invoice)


def fail(state: State, invoice: Thing) -> None:
    """Let the payment of an invoice fail; it stays open."""
    invoice.update(attempted=True, attempt_count=invoice["attempt_count"] + 1)
    state.record("invoice.payment_failed", invoice)
