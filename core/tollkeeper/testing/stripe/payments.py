"""Payment intents and their charges."""

from tollkeeper.testing.stripe.customers import new_card
from tollkeeper.testing.stripe.endpoints import LISTED, Endpoint, listed, shown
from tollkeeper.testing.stripe.forms import FREE
from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import MINIMUM, State, Thing

MESSAGES = {
    "authentication_required": "This transaction requires authentication.",
    "expired_card": "The card has expired.",
    "insufficient_funds": "The card has insufficient funds.",
}
OWN_CODES = ("authentication_required", "expired_card", "incorrect_cvc", "processing_error")
"""Reasons that are codes themselves; any other is a decline code of `card_declined`."""


def open_intent(state: State, wanted: Thing) -> Thing:
    """A payment that is to be made; `wanted` is what differs from an empty one."""
    blank: Thing = {
        "amount_received": 0,
        "canceled_at": None,
        "capture_method": "automatic",
        "customer": None,
        "description": None,
        "last_payment_error": None,
        "latest_charge": None,
        "metadata": {},
        "payment_method": None,
        "payment_method_types": ["card"],
        "setup_future_usage": None,
        "status": "requires_payment_method",
    }
    return state.add("payment_intent", "pi", {**blank, **wanted})


def settle(state: State, intent: Thing, card: Thing) -> Thing:
    """Let a payment succeed by a card. The charge."""
    charge = state.add(
        "charge",
        "ch",
        {
            "amount": intent["amount"],
            "amount_captured": intent["amount"],
            "amount_refunded": 0,
            "captured": True,
            "currency": intent["currency"],
            "customer": intent["customer"],
            "description": intent["description"],
            "disputed": False,
            "failure_code": None,
            "metadata": dict(intent["metadata"]),
            "paid": True,
            "payment_intent": intent["id"],
            "payment_method": card["id"],
            "refunded": False,
            "status": "succeeded",
        },
    )
    intent.update(
        amount_received=intent["amount"],
        latest_charge=charge["id"],
        payment_method=card["id"],
        status="succeeded",
    )
    state.record("charge.succeeded", charge)
    state.record("payment_intent.succeeded", intent)
    return charge


def fail_intent(state: State, intent: Thing, code: str) -> Refusal:
    """Let a payment fail. What a client is told who asked for it."""
    own = code in OWN_CODES
    error = {
        "type": "card_error",
        "code": code if own else "card_declined",
        "decline_code": "generic_decline" if code == "card_declined" else code,
        "message": f"Your card was declined. {MESSAGES.get(code, '')}".strip(),
    }
    intent.update(status="requires_payment_method", last_payment_error=error)
    state.record("payment_intent.payment_failed", intent)
    return Refusal(str(error["message"]), status=402, extra={**error, "payment_intent": intent})


def charge_of(state: State, intent_id: str) -> Thing:
    """The charge of a payment intent that succeeded."""
    intent = state.find("payment_intent", intent_id, "payment_intent")
    if intent["latest_charge"] is None:
        raise Refusal(f"The payment intent '{intent_id}' has no successful charge.")
    return state.find("charge", intent["latest_charge"])


def _create(state: State, asked: Thing) -> Thing:
    confirm, off_session = asked.pop("confirm", False), asked.pop("off_session", False)
    if asked["amount"] < MINIMUM:
        raise Refusal(
            "The amount has to be at least 50 cents.", code="amount_too_small", param="amount"
        )
    if off_session and not confirm:
        raise Refusal("off_session goes with confirm=true only.", param="off_session")
    if "customer" in asked:
        state.find("customer", asked["customer"], "customer")
    card = _card(state, asked)
    if confirm and card is None:
        raise Refusal(
            "You cannot confirm a payment intent without a payment method.",
            code="payment_intent_unexpected_state",
        )
    wanted = {name: value for name, value in asked.items() if name in TAKES_OVER}
    wanted["currency"] = asked["currency"].lower()
    wanted["status"] = "requires_confirmation" if card else "requires_payment_method"
    intent = open_intent(state, wanted)
    if confirm and card is not None:
        if state.declining:
            raise fail_intent(state, intent, state.declining)
        settle(state, intent, card)
    return intent


def _card(state: State, asked: Thing) -> Thing | None:
    if "payment_method" not in asked:
        return None
    if asked["payment_method"] == "pm_card_visa":  # the name of a test card that always works
        asked["payment_method"] = new_card(state)["id"]
        return state.find("payment_method", asked["payment_method"])
    card = state.find("payment_method", asked["payment_method"], "payment_method")
    if card["customer"] != asked.get("customer"):
        raise Refusal("The payment method belongs to another customer.", param="payment_method")
    return card


TAKES_OVER = ("amount", "customer", "payment_method", "metadata", "description")


def _list(state: State, asked: Thing) -> Thing:
    wanted = {"customer": asked["customer"]} if "customer" in asked else {}
    return listed(state.every("payment_intent", **wanted), asked, "/v1/payment_intents")


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/payment_intents",
        _create,
        {
            "amount!": int,
            "currency!": str,
            "customer": str,
            "payment_method": str,
            "off_session": bool,
            "confirm": bool,
            "metadata": FREE,
            "description": str,
            "return_url": str,
            "payment_method_types": [str],
            "automatic_payment_methods": {
                "enabled!": bool,
                "allow_redirects": ("always", "never"),
            },
        },
    ),
    Endpoint("GET", "/v1/payment_intents", _list, {**LISTED, "customer": str}),
    shown("/v1/payment_intents/<id>", "payment_intent"),
]
