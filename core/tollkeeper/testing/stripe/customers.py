"""Customers, their cards, and the portal they look at."""

from tollkeeper.testing.stripe.endpoints import LISTED, Endpoint, check_urls, listed, shown
from tollkeeper.testing.stripe.forms import FREE
from tollkeeper.testing.stripe.state import State, Thing


def _create(state: State, asked: Thing) -> Thing:
    blank: Thing = {"address": None, "balance": 0, "currency": None, "delinquent": False}
    blank |= {"email": None, "name": None, "description": None, "phone": None, "metadata": {}}
    return state.add("customer", "cus", {**blank, **asked})


def _cards(state: State, asked: Thing) -> Thing:
    customer = state.find("customer", asked["id"])["id"]
    cards = state.every("payment_method", customer=customer)
    return listed(cards, asked, f"/v1/customers/{customer}/payment_methods")


def _open_portal(state: State, asked: Thing) -> Thing:
    state.find("customer", asked["customer"], "customer")
    check_urls(asked, "return_url")
    portal = state.add("billing_portal.session", "bps", {"return_url": None, "flow": None, **asked})
    portal["url"] = f"{state.url}/portal/{portal['id']}"
    return portal


def new_card(state: State, customer: str | None = None) -> Thing:
    """A card, saved on the customer where one is given."""
    card = {"brand": "visa", "country": "US", "exp_month": 12, "exp_year": 2040, "last4": "4242"}
    return state.add(
        "payment_method",
        "pm",
        {"card": card, "customer": customer, "metadata": {}, "type": "card"},
    )


def card_of(state: State, customer: str) -> Thing:
    """The newest card of a customer; one is saved where there is none."""
    cards = state.every("payment_method", customer=customer)
    return cards[0] if cards else new_card(state, customer)


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/customers",
        _create,
        {"name": str, "email": str, "description": str, "phone": str, "metadata": FREE},
    ),
    shown("/v1/customers/<id>", "customer"),
    Endpoint("GET", "/v1/customers/<id>/payment_methods", _cards, {**LISTED, "type": ("card",)}),
    Endpoint(
        "POST",
        "/v1/billing_portal/sessions",
        _open_portal,
        {"customer!": str, "return_url": str, "configuration": str, "locale": str},
    ),
]
