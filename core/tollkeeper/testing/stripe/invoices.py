"""Invoices: what is to be paid for a period, and whether it was."""

import secrets
from dataclasses import dataclass

from tollkeeper.testing.stripe.customers import card_of
from tollkeeper.testing.stripe.endpoints import LISTED, Endpoint, listed
from tollkeeper.testing.stripe.payments import open_intent, settle
from tollkeeper.testing.stripe.state import State, Thing

SHOWN = 10
"""Lines that an invoice shows itself."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one price comes to in a period."""

    price: Thing
    quantity: int
    amount: int
    period: tuple[int, int]
    is_part: bool = False
    """Whether it is for the rest of a period, after a change."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there is an invoice, and for whom."""

    name: str
    customer: str | None
    subscription: Thing | None = None


def draw(state: State, lines: list[Line], reason: Reason) -> Thing:
    """An invoice that is open. What is pending comes first; less than nothing is kept as credit."""
    pending = state.pending.pop(reason.subscription["id"], []) if reason.subscription else []
    subscription = reason.subscription["id"] if reason.subscription else None
    every = [*pending, *(shape(line, subscription) for line in lines)]
    total = sum(line["amount"] for line in every)
    due = _with_balance(state, reason.customer, total)
    made = state.add(
        "invoice",
        "in",
        {
            "amount_due": due,
            "amount_paid": 0,
            "amount_remaining": due,
            "attempt_count": 0,
            "attempted": False,
            "billing_reason": reason.name,
            "collection_method": "charge_automatically",
            "currency": every[0]["currency"],
            "customer": reason.customer,
            "lines": {"object": "list", "data": every[:SHOWN], "has_more": len(every) > SHOWN},
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
    state.lines[made["id"]] = every
    return made


def _with_balance(state: State, customer: str | None, total: int) -> int:
    """What is to be paid of a total, together with what a customer's balance holds."""
    holder = state.objects.get(customer or "")
    if holder is None:
        return total
    due = total + int(holder["balance"])
    holder["balance"] = min(0, due)
    return max(0, due)


def shape(line: Line, subscription: str | None) -> Thing:
    """A line as the API shows it."""
    details = {"proration": line.is_part, "subscription": subscription}
    price = {"price": line.price["id"], "product": line.price["product"]}
    return {
        "id": f"il_{secrets.token_hex(12)}",
        "object": "line_item",
        "amount": line.amount,
        "currency": line.price["currency"],
        "metadata": {},
        "parent": {"type": "subscription_item_details", "subscription_item_details": details},
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


def _list_lines(state: State, asked: Thing) -> Thing:
    invoice = state.find("invoice", asked["id"])["id"]
    return listed(state.lines[invoice], asked, f"/v1/invoices/{invoice}/lines")


def _list(state: State, asked: Thing) -> Thing:
    since = asked.get("created", {}).get("gte", 0)
    every = state.every("invoice", customer=state.find("customer", asked["customer"])["id"])
    found = [invoice for invoice in every if invoice["created"] >= since]
    return listed(found, asked, "/v1/invoices")


ENDPOINTS = [
    Endpoint("GET", "/v1/invoices", _list, {**LISTED, "customer!": str, "created": {"gte": int}}),
    Endpoint("GET", "/v1/invoices/<id>/lines", _list_lines, LISTED),
]
