"""Subscriptions: their periods, what each comes to, and their end."""

import copy

from tollkeeper.testing.stripe.customers import card_of
from tollkeeper.testing.stripe.endpoints import LISTED, Endpoint, listed, shown
from tollkeeper.testing.stripe.invoices import Line, Reason, collect, draw, fail, shape
from tollkeeper.testing.stripe.meters import used
from tollkeeper.testing.stripe.prices import is_metered, period_of
from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import Order, State, Thing

STATUSES = ("active", "past_due", "canceled", "unpaid", "incomplete", "trialing", "paused")


def start(state: State, customer: str, order: Order) -> Thing:
    """An active subscription whose first period is paid."""
    now = state.now()
    made = state.add(
        "subscription",
        "sub",
        {
            "billing_cycle_anchor": now,
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": None,
            "collection_method": "charge_automatically",
            "currency": order.lines[0][0]["currency"],
            "customer": customer,
            "default_payment_method": card_of(state, customer)["id"],
            "ended_at": None,
            "latest_invoice": None,
            "metadata": order.metadata,
            "start_date": now,
            "status": "active",
        },
    )
    items = [_item(state, made["id"], price, quantity) for price, quantity in order.lines]
    made["items"] = {
        "object": "list",
        "data": items,
        "has_more": False,
        "total_count": len(items),
        "url": f"/v1/subscription_items?subscription={made['id']}",
    }
    invoice = _draw(state, made, "subscription_create", [_line(item) for item in items])
    state.record("customer.subscription.created", made)
    collect(state, invoice)
    return made


def _item(state: State, subscription: str, price: Thing, quantity: int) -> Thing:
    now = state.now()
    item = {
        "created": now,
        "current_period_end": now + period_of(price),
        "current_period_start": now,
        "metadata": {},
        "price": price,
        "subscription": subscription,
    }
    if not is_metered(price):
        item["quantity"] = quantity
    return state.add("subscription_item", "si", item)


def _line(item: Thing, quantity: int = 0) -> Line:
    """A period of an item: paid ahead, or by `quantity` where a meter tells it."""
    price = item["price"]
    count = item.get("quantity", quantity)
    period = (item["current_period_start"], item["current_period_end"])
    return Line(price, count, price["unit_amount"] * count, period)


def _draw(state: State, subscription: Thing, reason: str, lines: list[Line]) -> Thing:
    invoice = draw(state, lines, Reason(reason, subscription["customer"], subscription))
    subscription["latest_invoice"] = invoice["id"]
    return invoice


def _next_period(state: State, subscription: Thing, status: str) -> Thing:
    """Begin the next period. The invoice over it, and over what the meters tell of the last."""
    before = copy.deepcopy(subscription)
    lines = []
    for item in subscription["items"]["data"]:
        price, begin, end = item["price"], item["current_period_start"], item["current_period_end"]
        if is_metered(price):
            meter = state.find("billing.meter", price["recurring"]["meter"])
            count = used(state, meter["event_name"], subscription["customer"], begin, end)
            lines.append(_line(item, count))
        item.update(current_period_start=end, current_period_end=end + period_of(price))
        if not is_metered(price):
            lines.append(_line(item))
    subscription["status"] = status
    invoice = _draw(state, subscription, "subscription_cycle", lines)
    state.record("customer.subscription.updated", subscription, before)
    return invoice


def renew(state: State, subscription_id: str) -> None:
    """Begin the next period and pay for it.

    A subscription that is past due pays what it owes instead, and one that was to be canceled
    at the end of its period is canceled.
    """
    subscription = _running(state, subscription_id)
    if subscription["cancel_at_period_end"]:
        cancel(state, subscription_id)
    elif subscription["status"] == "past_due" or _is_draft(state, subscription):
        invoice = state.find("invoice", subscription["latest_invoice"])
        update(state, subscription, {"status": "active"})
        collect(state, invoice)
    else:
        collect(state, _next_period(state, subscription, "active"))


def draft_renewal(state: State, subscription_id: str) -> None:
    """Begin the next period; its invoice can still be changed, and is paid later."""
    _next_period(state, _running(state, subscription_id), "active")["status"] = "draft"


def _is_draft(state: State, subscription: Thing) -> bool:
    return bool(state.find("invoice", subscription["latest_invoice"])["status"] == "draft")


def fail_renewal(state: State, subscription_id: str) -> None:
    """Begin the next period without a payment for it."""
    subscription = _running(state, subscription_id)
    if subscription["status"] == "past_due":
        fail(state, state.find("invoice", subscription["latest_invoice"]))
    else:
        fail(state, _next_period(state, subscription, "past_due"))


def cancel(state: State, subscription_id: str) -> None:
    """End a subscription now."""
    subscription = _running(state, subscription_id)
    now = state.now()
    subscription.update(status="canceled", canceled_at=now, ended_at=now)
    state.record("customer.subscription.deleted", subscription)


def cancel_later(state: State, subscription_id: str) -> None:
    """Let a subscription end with its period."""
    subscription = _running(state, subscription_id)
    ends = subscription["items"]["data"][0]["current_period_end"]
    changes = {"cancel_at_period_end": True, "cancel_at": ends, "canceled_at": state.now()}
    update(state, subscription, changes)


def change_price(
    state: State, subscription_id: str, price_id: str, *, at_once: bool = False
) -> None:
    """Put a subscription on another price, from now on.

    What is left of the period is credited and charged anew: now, or with the next invoice.
    """
    subscription = _running(state, subscription_id)
    price = state.find("price", price_id, "price")
    if price["recurring"] is None:
        raise Refusal(f"The price {price_id} is not a recurring one.", param="price")
    before = copy.deepcopy(subscription)
    item = subscription["items"]["data"][0]
    lines = _rest(item, -1, state.now())
    if begins := period_of(price) != period_of(item["price"]):
        now = state.now()
        item.update(current_period_start=now, current_period_end=now + period_of(price))
    item["price"] = price
    if is_metered(price):
        item.pop("quantity", None)
    else:
        item.setdefault("quantity", 1)
    lines += _rest(item, 1, state.now(), is_part=not begins)
    if lines and (at_once or begins):
        invoice = _draw(state, subscription, "subscription_update", lines)
        state.record("customer.subscription.updated", subscription, before)
        collect(state, invoice)
        return
    shaped = [shape(line, subscription_id) for line in lines]
    state.pending.setdefault(subscription_id, []).extend(shaped)
    state.record("customer.subscription.updated", subscription, before)


def _rest(item: Thing, sign: int, now: int, *, is_part: bool = True) -> list[Line]:
    """The rest of its period, credited or charged; nothing for what a meter tells."""
    price, end = item["price"], item["current_period_end"]
    if is_metered(price):
        return []
    count = item["quantity"]
    whole = sign * price["unit_amount"] * count
    length = end - item["current_period_start"]
    amount = whole * min(length, max(0, end - now)) // length
    return [Line(price, count, amount, (now, end), is_part)]


def update(state: State, subscription: Thing, changes: Thing) -> None:
    """Change fields of a subscription, and tell it."""
    before = copy.deepcopy(subscription)
    subscription.update(changes)
    state.record("customer.subscription.updated", subscription, before)


def _running(state: State, subscription_id: str) -> Thing:
    subscription = state.find("subscription", subscription_id)
    if subscription["status"] == "canceled":
        raise Refusal(f"The subscription {subscription_id} is canceled.")
    return subscription


def _list(state: State, asked: Thing) -> Thing:
    wanted = {"customer": asked["customer"]} if "customer" in asked else {}
    if wanted:
        state.find("customer", asked["customer"], "customer")
    status = asked.get("status", "")
    found = [
        one
        for one in state.every("subscription", **wanted)
        if status in ("all", one["status"]) or (not status and one["status"] != "canceled")
    ]
    return listed(found, asked, "/v1/subscriptions")


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/subscriptions",
        _list,
        {**LISTED, "customer": str, "status": ("all", *STATUSES)},
    ),
    shown("/v1/subscriptions/<id>", "subscription"),
]
