"""Checkout sessions: what is bought, and whether it may be."""

from tollkeeper.testing.stripe.endpoints import Endpoint, check_urls
from tollkeeper.testing.stripe.forms import FREE, missing
from tollkeeper.testing.stripe.prices import (
    INTERVALS,
    PRODUCT,
    is_metered,
    keep_price,
    make_price,
)
from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import DAY, MINIMUM, Order, State, Thing

_AUTO = ("auto", "never")
_PRICE_DATA = {
    "currency!": str,
    "unit_amount!": int,
    "product_data": PRODUCT,
    "product": str,
    "recurring": {"interval!": tuple(INTERVALS), "interval_count": int},
    "tax_behavior": ("exclusive", "inclusive", "unspecified"),
}
TAKES = {
    "mode!": ("payment", "subscription"),
    "customer!": str,
    "success_url!": str,
    "cancel_url": str,
    "client_reference_id": str,
    "metadata": FREE,
    "line_items!": [{"price": str, "price_data": _PRICE_DATA, "quantity": int}],
    "payment_intent_data": {
        "metadata": FREE,
        "setup_future_usage": ("on_session", "off_session"),
        "description": str,
    },
    "subscription_data": {"metadata": FREE, "description": str},
    "automatic_tax": {"enabled!": bool},
    "adaptive_pricing": {"enabled": bool},
    "invoice_creation": {"enabled!": bool},
    "customer_update": {"address": _AUTO, "name": _AUTO, "shipping": _AUTO},
    "tax_id_collection": {"enabled!": bool},
    "billing_address_collection": ("auto", "required"),
    "allow_promotion_codes": bool,
}
NOT_OPEN = "The checkout session is {}, not open."


def _create(state: State, asked: Thing) -> Thing:
    state.find("customer", asked["customer"], "customer")
    check_urls(asked, "success_url", "cancel_url")
    _check_mode(asked)
    _check_tax(asked)
    items = asked["line_items"]
    lines = [_line(state, item, f"line_items[{at}]") for at, item in enumerate(items)]
    total = _check_prices(asked["mode"], lines)
    kept = [_keep(state, item, price) for item, (price, _) in zip(items, lines, strict=True)]
    session = state.add("checkout.session", "cs_test", _fields(state, asked, total))
    session["currency"] = kept[0]["currency"]
    session["url"] = f"{state.url}/pay/{session['id']}"
    state.orders[session["id"]] = Order(
        [(price, quantity) for price, (_, quantity) in zip(kept, lines, strict=True)],
        asked.get("payment_intent_data", {}),
        asked.get("subscription_data", {}).get("metadata", {}),
        asked.get("invoice_creation", {}).get("enabled", False),
    )
    return session


def _fields(state: State, asked: Thing, total: int) -> Thing:
    tax = asked.get("automatic_tax", {"enabled": False})
    return {
        "allow_promotion_codes": asked.get("allow_promotion_codes"),
        "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": {**tax, "status": None},
        "billing_address_collection": asked.get("billing_address_collection"),
        "cancel_url": asked.get("cancel_url"),
        "client_reference_id": asked.get("client_reference_id"),
        "customer": asked["customer"],
        "expires_at": state.now() + DAY,
        "invoice": None,
        "metadata": asked.get("metadata", {}),
        "mode": asked["mode"],
        "payment_intent": None,
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "setup_intent": None,
        "status": "open",
        "subscription": None,
        "success_url": asked["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    }


def _check_mode(asked: Thing) -> None:
    foreign = {
        "payment": ("subscription_data",),
        "subscription": ("payment_intent_data", "invoice_creation"),
    }
    for name in foreign[asked["mode"]]:
        if name in asked:
            raise Refusal(f"You can not pass {name} in {asked['mode']} mode.", param=name)


def _check_tax(asked: Thing) -> None:
    """What Stripe asks of a customer it knows: customers here have no address yet."""
    update = asked.get("customer_update", {})
    taxed = asked.get("automatic_tax", {}).get("enabled")
    if taxed and "auto" not in (update.get("address"), update.get("shipping")):
        raise Refusal(
            "Automatic tax needs an address of the customer: set customer_update[address] to auto.",
            code="customer_tax_location_invalid",
            param="automatic_tax",
        )
    if asked.get("tax_id_collection", {}).get("enabled") and update.get("name") != "auto":
        raise Refusal(
            "Collecting a tax id needs customer_update[name] to be auto.",
            param="tax_id_collection",
        )


def _line(state: State, item: Thing, path: str) -> tuple[Thing, int]:
    """The price and the quantity of an item, 0 for a metered one."""
    if ("price" in item) == ("price_data" in item):
        raise Refusal(f"Give either price or price_data in {path}.", param=path)
    if "price" in item:
        price = state.find("price", item["price"], f"{path}[price]")
    else:
        data = item["price_data"]
        if ("product" in data) == ("product_data" in data):
            raise Refusal("Give either product or product_data.", param=f"{path}[price_data]")
        price = make_price(state, data)
    if is_metered(price):
        if "quantity" in item:
            raise Refusal(
                f"You cannot specify quantity for metered prices: remove it from {path}.",
                param=f"{path}[quantity]",
            )
        return price, 0
    if "quantity" not in item:
        raise missing(f"{path}[quantity]")
    if item["quantity"] < 1:
        raise Refusal("A quantity is at least 1.", param=f"{path}[quantity]")
    return price, item["quantity"]


def _keep(state: State, item: Thing, price: Thing) -> Thing:
    if "price" in item:
        return price
    data = item["price_data"]
    return keep_price(state, price, data.get("product_data", {}).get("name", ""))


def _check_prices(mode: str, lines: list[tuple[Thing, int]]) -> int:
    """What it comes to. Raises `Refusal` for prices that do not go with the mode or each other."""
    recurring = [price["recurring"] is not None for price, _ in lines]
    if mode == "payment" and any(recurring):
        raise Refusal("You passed a recurring price in payment mode.", param="line_items")
    if mode == "subscription" and not all(recurring):
        raise Refusal("Every price has to be a recurring one here.", param="line_items")
    if len({price["currency"] for price, _ in lines}) > 1:
        raise Refusal("All prices have to be in one currency.", param="line_items")
    total = sum(int(price["unit_amount"]) * count for price, count in lines)
    metered = all(is_metered(price) for price, _ in lines)
    if total < MINIMUM and not (metered and mode == "subscription"):
        raise Refusal(
            "The total of a checkout session has to be at least 50 cents.",
            code="amount_too_small",
        )
    return total


def find_session(state: State, session_id: str) -> Thing:
    """A session, expired if its day is over."""
    session = state.find("checkout.session", session_id)
    if session["status"] == "open" and state.clock.time() >= session["expires_at"]:
        _expire(state, session)
    return session


def open_session(state: State, session_id: str) -> Thing:
    """A session that can be paid or expired. Raises `Refusal` for any other."""
    session = find_session(state, session_id)
    if session["status"] != "open":
        raise Refusal(NOT_OPEN.format(session["status"]))
    return session


def _expire(state: State, session: Thing) -> Thing:
    session.update(status="expired", url=None)
    state.record("checkout.session.expired", session)
    return session


ENDPOINTS = [
    Endpoint("POST", "/v1/checkout/sessions", _create, TAKES),
    Endpoint(
        "GET",
        "/v1/checkout/sessions/<id>",
        lambda state, asked: find_session(state, asked["id"]),
    ),
    Endpoint(
        "POST",
        "/v1/checkout/sessions/<id>/expire",
        lambda state, asked: _expire(state, open_session(state, asked["id"])),
    ),
]
