"""Webhook events: proven on their raw bytes, stored once together with their effect, in any order.

What an event says is never believed alone: organization, price and credit are those of our own
checkout, and a subscription's event only says that Stripe should be asked.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from tollkeeper import Refused, invalid_request
from tollkeeper_billing.customers import note_change, org_of
from tollkeeper_billing.models import Event
from tollkeeper_billing.processor import is_signed
from tollkeeper_billing.purchases import (
    PLAN,
    TOPUP,
    Bought,
    close_checkout,
    find_checkout,
    note_reversal,
    reverse,
    settle_payment,
)
from tollkeeper_billing.shapes import CURRENCY, METADATA

TOLERANCE = 300
"""Seconds that a signature may be old, or ahead of our clock."""
KEPT_SECONDS = 90 * 86400
"""How long an event is known again; Stripe sends none that is older than 30 days."""

_TIME = re.compile(r"[0-9]{1,12}")

Outcome = Literal["done", "known", "ignored", "foreign", "mismatch"]


class _Data(msgspec.Struct):
    object: dict[str, Any]


class Delivered(msgspec.Struct):
    """An event as it was delivered."""

    id: str
    type: str
    livemode: bool
    data: _Data


class Effect(msgspec.Struct, frozen=True):
    """What came of an event."""

    outcome: Outcome
    org: str = ""
    """Whose balance may be another now."""
    asks: bool = False
    """Whether Stripe is to be asked for a subscription."""
    why: str = ""
    """What did not match."""


def prove(body: bytes, header: str, secret: str, now: float) -> None:
    """Raise `Refused` 401 unless this body was signed with the secret, and just now.

    The scheme is v1 of https://docs.stripe.com/webhooks/signature.
    """
    parts = [part.partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name.strip() == "t"]
    if len(times) != 1 or not _TIME.fullmatch(times[0]):
        raise _unproven("The Stripe-Signature header is missing or malformed.")
    if not is_signed(body, header, secret):
        raise WrongSignature
    if abs(now - int(times[0])) > TOLERANCE:
        raise _unproven("The signature is too old, or from the future: look at the clocks.")


class WrongSignature(Refused):
    """A signature that this body and the secret set here do not make."""

    def __init__(self) -> None:
        message = "The signature is not of this body and of the secret set here."
        super().__init__(401, "auth_error", message)


def _unproven(message: str) -> Refused:
    return Refused(401, "auth_error", message)


def read_event(body: bytes, *, livemode: bool) -> Delivered:
    """The event in a proven body. Raises `Refused` for what is none, or of the other mode."""
    try:
        event = msgspec.json.decode(body, type=Delivered)
    except msgspec.DecodeError as error:
        raise invalid_request(f"This is no event: {error}") from None
    if event.livemode != livemode:
        here = "live" if livemode else "test"
        raise invalid_request(f"This gateway is in {here} mode, and the event is not.")
    return event


def receive(database: Any, event: Delivered, now: int) -> Effect:  # noqa: ANN401
    """Store an event with its effect, in the transaction that runs; nothing where it was before.

    Raises `Refused` for an object that is not as Stripe documents it.
    """
    apply = _EFFECTS.get(event.type)
    if apply is None:
        return Effect("ignored")
    if Event.select().where(Event.id == event.id).count(database):
        return Effect("known")
    try:
        effect = apply(database, event.data.object, now)
    except msgspec.ValidationError as error:
        raise invalid_request(f"The object of this event is malformed: {error}") from None
    Event.insert(id=event.id, type=event.type, outcome=effect.outcome, received_at=now).execute(
        database
    )
    return effect


def delete_old(database: Any, now: int) -> None:  # noqa: ANN401
    """Forget events that cannot come again."""
    Event.delete().where(Event.received_at < now - KEPT_SECONDS).execute(database)


class _Session(msgspec.Struct):
    id: str
    payment_status: str
    customer: str | None = None
    client_reference_id: str | None = None
    currency: str | None = None
    amount_subtotal: int | None = None
    amount_total: int | None = None
    payment_intent: str | None = None


class _Payment(msgspec.Struct):
    id: str
    amount_received: int = 0
    currency: str = ""
    customer: str | None = None
    metadata: dict[str, str] = {}


class _Refund(msgspec.Struct):
    id: str
    amount: int
    currency: str
    status: str | None = None
    payment_intent: str | None = None


class _OfCustomer(msgspec.Struct):
    customer: str | None = None


def paid_session(database: Any, document: object, now: int) -> Effect:  # noqa: ANN401
    """A checkout session that is complete, as Stripe shows it: give what it sold, once."""
    session = msgspec.convert(document, _Session)
    reference = session.client_reference_id or ""
    bought = find_checkout(database, session=session.id, checkout=reference)
    if bought is None:
        return Effect("foreign")
    if (why := _session_is_not(session, bought)) is not None:
        return Effect("mismatch", bought.org, why=why)
    if bought.kind == PLAN:
        settle_payment(database, bought, None, session.amount_total or 0, now)
        note_change(database, bought.org)
        return Effect("done", bought.org, asks=True)
    if session.payment_status != "paid":
        return Effect("ignored")  # the money is still under way; another event will tell
    paid = session.amount_total or 0
    settle_payment(database, bought, session.payment_intent, paid, now)
    return Effect("done", bought.org)


def _session_is_not(session: _Session, bought: Bought) -> str | None:
    """What of a session is not as we offered it."""
    if bought.session not in (None, session.id):
        return "another session"
    if session.client_reference_id != bought.id:
        return "another checkout"
    if session.customer != bought.customer:
        return "another customer"
    if bought.kind == PLAN:
        return None
    if session.currency != CURRENCY:
        return "another currency"
    if session.amount_subtotal != bought.cents or (session.amount_total or 0) < bought.cents:
        return "another amount"
    return None


def _failed_session(database: Any, document: object, now: int) -> Effect:  # noqa: ANN401
    session = msgspec.convert(document, _Session)
    bought = find_checkout(database, session=session.id)
    if bought is None:
        return Effect("foreign")
    close_checkout(database, bought.id)
    return Effect("done", bought.org)


def paid_topup(database: Any, document: object, now: int) -> Effect:  # noqa: ANN401
    """A payment that succeeded: give the credit of the pack that we had bought with it, once."""
    payment = msgspec.convert(document, _Payment)
    bought = find_checkout(database, checkout=payment.metadata.get(METADATA, ""))
    if bought is None or bought.kind != TOPUP:
        return Effect("foreign")  # of a checkout, whose session tells, or of somebody else
    right = (bought.customer, bought.cents, CURRENCY)
    if (payment.customer, payment.amount_received, payment.currency) != right:
        return Effect("mismatch", bought.org, why="another customer, amount or currency")
    settle_payment(database, bought, payment.id, payment.amount_received, now)
    return Effect("done", bought.org)


_REFUNDS = {"pending": (0, True), "requires_action": (0, True), "succeeded": (1, True)}
_REFUNDS |= {"failed": (2, False), "canceled": (2, False)}
_DISPUTES = {"needs_response": (1, True), "under_review": (1, True), "lost": (2, True)}
_DISPUTES |= {"won": (2, False), "prevented": (2, False)}
"""Of each state: how late it comes, and whether the money is back with the customer then."""
_INQUIRY = (0, False)


def _refund(database: Any, document: object, now: int) -> Effect:  # noqa: ANN401
    refund = msgspec.convert(document, _Refund)
    return _reversal(database, refund, _REFUNDS.get(refund.status or "", (0, True)), now)


def _dispute(database: Any, document: object, now: int) -> Effect:  # noqa: ANN401
    dispute = msgspec.convert(document, _Refund)
    return _reversal(database, dispute, _DISPUTES.get(dispute.status or "", _INQUIRY), now)


def _reversal(database: Any, back: _Refund, state: tuple[int, bool], now: int) -> Effect:  # noqa: ANN401
    if back.payment_intent is None:
        return Effect("foreign")
    if back.amount < 0:
        raise msgspec.ValidationError("a negative amount")
    rank, counts = state
    reversal = (back.id, back.payment_intent, back.amount)
    if not note_reversal(database, reversal, rank, counts=counts, now=now):
        return Effect("ignored")
    org = reverse(database, back.payment_intent, now)
    return Effect("foreign") if org is None else Effect("done", org)


def _change(database: Any, document: object, now: int) -> Effect:  # noqa: ANN401
    customer = msgspec.convert(document, _OfCustomer).customer
    org = org_of(database, customer) if customer else None
    if org is None:
        return Effect("foreign")
    note_change(database, org)
    return Effect("done", org, asks=True)


_EFFECTS: dict[str, Callable[[Any, object, int], Effect]] = {
    "checkout.session.completed": paid_session,
    "checkout.session.async_payment_succeeded": paid_session,
    "checkout.session.async_payment_failed": _failed_session,
    "checkout.session.expired": _failed_session,
    "payment_intent.succeeded": paid_topup,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.refund.updated": _refund,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.closed": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
    "customer.subscription.created": _change,
    "customer.subscription.updated": _change,
    "customer.subscription.deleted": _change,
    "customer.subscription.paused": _change,
    "customer.subscription.resumed": _change,
    "invoice.paid": _change,
    "invoice.payment_failed": _change,
}
EVENT_TYPES = tuple(_EFFECTS)
"""What the webhook endpoint at Stripe has to send."""
