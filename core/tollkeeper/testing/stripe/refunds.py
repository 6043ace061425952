"""Money that goes back: refunds and disputes."""

import copy

from tollkeeper.testing.stripe.endpoints import Endpoint, shown
from tollkeeper.testing.stripe.forms import FREE
from tollkeeper.testing.stripe.payments import charge_of
from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import State, Thing


def refund(state: State, intent_id: str, amount: int | None = None) -> Thing:
    """Give back an amount, or all that is left. Raises `Refusal` for more than that."""
    return _create(
        state, {"payment_intent": intent_id, **({} if amount is None else {"amount": amount})}
    )


def _create(state: State, asked: Thing) -> Thing:
    charge = charge_of(state, asked["payment_intent"])
    left = charge["amount"] - charge["amount_refunded"]
    amount = asked.get("amount", left)
    if charge["refunded"]:
        raise Refusal(
            f"The charge {charge['id']} has already been refunded.", code="charge_already_refunded"
        )
    if any(one["status"] != "won" for one in state.every("dispute", charge=charge["id"])):
        raise Refusal(f"The charge {charge['id']} is disputed.", code="charge_disputed")
    if amount < 1:
        raise Refusal("Invalid positive integer", code="parameter_invalid_integer", param="amount")
    if amount > left:
        raise Refusal(
            f"The refund of {amount} is greater than the unrefunded amount of the charge, {left}.",
            param="amount",
        )
    made = state.add(
        "refund",
        "re",
        {
            "amount": amount,
            "charge": charge["id"],
            "currency": charge["currency"],
            "failure_reason": None,
            "metadata": asked.get("metadata", {}),
            "payment_intent": charge["payment_intent"],
            "reason": asked.get("reason"),
            "status": "pending" if state.slow_refunds else "succeeded",
        },
    )
    _move(charge, amount)
    state.record("refund.created", made)
    state.record("charge.refunded", charge)
    return made


def _move(charge: Thing, amount: int) -> None:
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]


def settle_refund(state: State, refund_id: str) -> None:
    """Let a pending refund arrive."""
    found = state.find("refund", refund_id)
    if found["status"] != "pending":
        raise Refusal(f"The refund {refund_id} is {found['status']}.")
    before = copy.deepcopy(found)
    found["status"] = "succeeded"
    state.record("refund.updated", found, before)


def fail_refund(state: State, refund_id: str) -> None:
    """Let a refund fail, also one that had succeeded: the money comes back."""
    found = state.find("refund", refund_id)
    if found["status"] not in ("pending", "succeeded"):
        raise Refusal(f"The refund {refund_id} is {found['status']}.")
    before = copy.deepcopy(found)
    found.update(status="failed", failure_reason="expired_or_canceled_card")
    _move(state.find("charge", found["charge"]), -found["amount"])
    state.record("refund.updated", found, before)
    state.record("refund.failed", found)


def dispute(state: State, intent_id: str, amount: int | None = None) -> Thing:
    """Let the payer's bank take an amount back, by default all that was not refunded."""
    charge = charge_of(state, intent_id)
    left = charge["amount"] - charge["amount_refunded"]
    if charge["disputed"]:
        raise Refusal(f"The charge {charge['id']} is disputed already.")
    if not 0 < (amount if amount is not None else left) <= charge["amount"]:
        raise Refusal(f"There is no such amount to dispute on the charge {charge['id']}.")
    made = state.add(
        "dispute",
        "dp",
        {
            "amount": left if amount is None else amount,
            "charge": charge["id"],
            "currency": charge["currency"],
            "is_charge_refundable": False,
            "metadata": {},
            "payment_intent": charge["payment_intent"],
            "reason": "fraudulent",
            "status": "needs_response",
        },
    )
    charge["disputed"] = True
    state.record("charge.dispute.created", made)
    return made


def close_dispute(state: State, dispute_id: str, status: str) -> None:
    """Decide a dispute: `won` by the one who charged, or `lost`."""
    found = state.find("dispute", dispute_id)
    if status not in ("won", "lost") or found["status"] != "needs_response":
        raise Refusal(f"The dispute {dispute_id} is {found['status']}; it cannot be {status}.")
    found["status"] = status
    state.record("charge.dispute.closed", found)


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/refunds",
        _create,
        {
            "payment_intent!": str,
            "amount": int,
            "reason": ("duplicate", "fraudulent", "requested_by_customer"),
            "metadata": FREE,
        },
    ),
    shown("/v1/refunds/<id>", "refund"),
]
