"""What goes to Stripe and what comes from there, in its shape. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tollkeeper_billing.customers import Subscription
from tollkeeper_billing.purchases import Bought
from tollkeeper_billing.settings import BillingSettings

CURRENCY = "usd"
METADATA = "tollkeeper_checkout"
"""Under which name our checkout's id goes along with what is paid."""


def session_of(
    bought: Bought, prices: Sequence[tuple[str, bool]], settings: BillingSettings
) -> Any:  # noqa: ANN401 -- the library's parameters
    """What to ask for a page on which a checkout is paid; a plan's has its prices."""
    mine = {METADATA: bought.id, "tollkeeper_org": bought.org}
    params: dict[str, Any] = {
        "customer": bought.customer,
        "client_reference_id": bought.id,
        "metadata": mine,
        "success_url": settings.success_url,
        "cancel_url": settings.cancel_url,
    }
    if settings.automatic_tax:
        params["automatic_tax"] = {"enabled": True}
        params["customer_update"] = {"address": "auto"}
    if prices:
        items = [{"price": p, **({"quantity": 1} if piece else {})} for p, piece in prices]
        params |= {"mode": "subscription", "subscription_data": {"metadata": mine}}
        return params | {"line_items": items}
    product = {"name": f"Credit: {bought.name}"}
    price_data = {"currency": CURRENCY, "unit_amount": bought.cents, "product_data": product}
    # Paid in another currency it would not be what was offered.
    params["adaptive_pricing"] = {"enabled": False}
    params |= {"mode": "payment", "line_items": [{"price_data": price_data, "quantity": 1}]}
    if settings.auto_topup:
        params["payment_intent_data"] = {"setup_future_usage": "off_session"}
    if settings.invoices:
        params["invoice_creation"] = {"enabled": True}
    return params


def read_subscription(
    told: Mapping[str, Any], lines: Sequence[Mapping[str, Any]] = ()
) -> Subscription:
    """A subscription, and the lines of its newest invoice.

    Older API versions have the period at the whole, and call a price a plan.
    """
    items = told["items"]["data"]
    first = items[0] if items else {}
    return Subscription(
        id=told["id"],
        status=told["status"],
        prices=tuple((item.get("price") or item["plan"])["id"] for item in items),
        period_start=int(first.get("current_period_start") or told.get("current_period_start", 0)),
        period_end=int(first.get("current_period_end") or told.get("current_period_end", 0)),
        created=int(told["created"]),
        is_paid=is_paid_in(told),
        paid_for=paid_for(lines) if is_paid_in(told) else (),
    )


def is_paid_in(told: Mapping[str, Any]) -> bool:
    """Whether the newest invoice of a subscription is paid."""
    invoice = told.get("latest_invoice")
    return isinstance(invoice, dict) and invoice.get("status") == "paid"


def paid_for(lines: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The prices that an invoice charges for, that of the latest period first.

    What it credits, such as the rest of a period on another plan, is no charge.
    """
    charged = [line for line in lines if line["amount"] >= 0 and line.get("pricing")]
    charged.sort(key=lambda line: (line["period"]["end"], line["amount"]), reverse=True)
    return tuple(line["pricing"]["price_details"]["price"] for line in charged)


def payment_of(bought: Bought, card: str) -> Any:  # noqa: ANN401 -- the library's parameters
    """What to ask to have a checkout paid by a card that a customer left."""
    return {
        "amount": bought.cents,
        "currency": CURRENCY,
        "customer": bought.customer,
        "payment_method": card,
        "off_session": True,
        "confirm": True,
        # Without this Stripe wants to know where to send a browser back to.
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "metadata": {METADATA: bought.id},
        "description": f"Credit: {bought.name}",
    }
