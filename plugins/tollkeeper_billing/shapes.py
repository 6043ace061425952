"""What goes to Stripe and what comes from there, in its shape. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tollkeeper_billing.allowances import Invoice, Line
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


def read_subscription(told: Mapping[str, Any]) -> Subscription:
    """Older API versions have the period at the whole, and call a price a plan."""
    items = told["items"]["data"]
    first = items[0] if items else {}
    return Subscription(
        id=told["id"],
        status=told["status"],
        prices=tuple((item.get("price") or item["plan"])["id"] for item in items),
        period_start=int(first.get("current_period_start") or told.get("current_period_start", 0)),
        period_end=int(first.get("current_period_end") or told.get("current_period_end", 0)),
        created=int(told["created"]),
    )


def read_invoice(told: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Invoice:
    """An invoice with all its lines, of which older API versions told in other words."""
    parent = (told.get("parent") or {}).get("subscription_details") or told
    subscription = str(parent.get("subscription") or "")
    read = tuple(_line(line, subscription) for line in lines)
    return Invoice(id=told["id"], status=told["status"], subscription=subscription, lines=read)


def _line(told: Mapping[str, Any], subscription: str) -> Line:
    parent = told.get("parent") or {}
    kinds = ("subscription_item_details", "invoice_item_details")
    details = next((parent[kind] for kind in kinds if parent.get(kind)), told)
    priced = (told.get("pricing") or {}).get("price_details") or told
    price = priced.get("price") or told.get("plan") or ""
    is_part = bool(details.get("proration"))
    # The rest of what cost nothing is neither charged nor credited.
    sign = -1 if told["amount"] < 0 else int(bool(told["amount"]) or not is_part)
    return Line(
        price=price if isinstance(price, str) else price["id"],
        subscription=str(details.get("subscription") or subscription),
        sign=sign,
        start=int(told["period"]["start"]),
        end=int(told["period"]["end"]),
        is_part=is_part,
        is_free=not told["amount"],
    )


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
