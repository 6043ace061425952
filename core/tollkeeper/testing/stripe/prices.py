"""Prices: one-time, monthly, and by a meter."""

from tollkeeper.testing.stripe.endpoints import Endpoint, shown
from tollkeeper.testing.stripe.forms import FREE, missing
from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import DAY, State, Thing

INTERVALS = {"day": DAY, "week": 7 * DAY, "month": 30 * DAY, "year": 365 * DAY}
"""How long a period is; every month has 30 days here."""
RECURRING = {
    "interval!": tuple(INTERVALS),
    "interval_count": int,
    "usage_type": ("licensed", "metered"),
    "meter": str,
}
PRODUCT = {"name!": str, "description": str, "metadata": FREE, "tax_code": str}


def make_price(state: State, asked: Thing) -> Thing:
    """A price as the API shows it. Nothing keeps it yet; raises `Refusal` where it cannot be."""
    if asked["unit_amount"] < 0:
        raise Refusal("Invalid non-negative integer", param="unit_amount")
    recurring: Thing | None = None
    if "recurring" in asked:
        recurring = {"interval_count": 1, "meter": None, "usage_type": "licensed"}
        recurring |= asked["recurring"]
        if recurring["usage_type"] == "metered":
            if not recurring["meter"]:
                raise Refusal("A metered price needs a meter.", param="recurring[meter]")
            state.find("billing.meter", recurring["meter"], "recurring[meter]")
    given: Thing = {name: asked[name] for name in ("id", "metadata", "nickname") if name in asked}
    return {
        "active": True,
        "billing_scheme": "per_unit",
        "currency": asked["currency"].lower(),
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": asked.get("product"),
        "recurring": recurring,
        "type": "recurring" if recurring else "one_time",
        "unit_amount": asked["unit_amount"],
        "unit_amount_decimal": str(asked["unit_amount"]),
        **given,
    }


def keep_price(state: State, price: Thing, name: str) -> Thing:
    """Keep a price that was made, with a product of its own where it names none."""
    if price["product"] is None:
        product: Thing = {"active": True, "description": None, "metadata": {}, "name": name}
        price["product"] = state.add("product", "prod", product)["id"]
    return state.add("price", "price", price)


def name_of(state: State, price: Thing) -> str:
    """What it is that costs this."""
    product = state.objects.get(price["product"])
    return str(product["name"]) if product else str(price["product"])


def is_metered(price: Thing) -> bool:
    """Whether a meter says how much is to be paid."""
    return bool(price["recurring"]) and price["recurring"]["usage_type"] == "metered"


def period_of(price: Thing) -> int:
    """The seconds of one period of a recurring price."""
    return INTERVALS[price["recurring"]["interval"]] * int(price["recurring"]["interval_count"])


def _create(state: State, asked: Thing) -> Thing:
    if "product" not in asked and "product_data" not in asked:
        raise missing("product")
    if "product" in asked and "product_data" in asked:
        raise Refusal("Give a product or the data of one, not both.", param="product")
    name = asked.get("product_data", {}).get("name", "")
    return keep_price(state, make_price(state, asked), name)


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/prices",
        _create,
        {
            "currency!": str,
            "unit_amount!": int,
            "recurring": RECURRING,
            "product": str,
            "product_data": PRODUCT,
            "nickname": str,
            "metadata": FREE,
        },
    ),
    shown("/v1/prices/<id>", "price"),
]
