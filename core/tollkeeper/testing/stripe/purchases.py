"""What happens to a checkout session when somebody pays it."""

from tollkeeper.testing.stripe.checkout import find_session, open_session
from tollkeeper.testing.stripe.customers import new_card
from tollkeeper.testing.stripe.invoices import Line, Reason, collect, draw
from tollkeeper.testing.stripe.payments import fail_intent, open_intent, settle
from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import Order, State, Thing
from tollkeeper.testing.stripe.subscriptions import start


def pay(state: State, session_id: str) -> Thing:
    """Pay a session by a card that works. The session."""
    session = open_session(state, session_id)
    order = state.orders[session_id]
    if session["mode"] == "subscription":
        made = start(state, session["customer"], order)
        session.update(subscription=made["id"], invoice=made["latest_invoice"])
    else:
        _settle(state, session, order, _intent(state, session, order))
    session.update(payment_status="paid")
    return _complete(state, session)


def pay_later(state: State, session_id: str) -> Thing:
    """Complete a session by a way of paying that takes days, as a bank's debit does."""
    session = open_session(state, session_id)
    if session["mode"] != "payment":
        raise Refusal("Only a payment can be settled later here, not a subscription.")
    intent = _intent(state, session, state.orders[session_id])
    intent["status"] = "processing"
    return _complete(state, session)


def settle_later(state: State, session_id: str, ok: bool = True) -> Thing:
    """Let the payment of a session arrive that was completed before, or fail."""
    session = find_session(state, session_id)
    if session["payment_intent"] is None or session["payment_status"] != "unpaid":
        raise Refusal("The checkout session does not wait for a payment.")
    intent = state.find("payment_intent", session["payment_intent"])
    if intent["status"] != "processing":
        raise Refusal("The payment of this checkout session has failed.")
    if ok:
        _settle(state, session, state.orders[session_id], intent)
        session["payment_status"] = "paid"
        state.record("checkout.session.async_payment_succeeded", session)
    else:
        fail_intent(state, intent, "insufficient_funds")
        state.record("checkout.session.async_payment_failed", session)
    return session


def _intent(state: State, session: Thing, order: Order) -> Thing:
    wanted = {"amount": session["amount_total"], "currency": session["currency"]}
    intent = open_intent(state, {**wanted, "customer": session["customer"], **order.intent})
    session["payment_intent"] = intent["id"]
    return intent


def _settle(state: State, session: Thing, order: Order, intent: Thing) -> None:
    """Take the money; the card is saved where that was asked for."""
    saved = intent["setup_future_usage"] is not None
    settle(state, intent, new_card(state, session["customer"] if saved else None))
    if order.invoice:
        now = state.now()
        lines = [
            Line(price, count, price["unit_amount"] * count, (now, now))
            for price, count in order.lines
        ]
        invoice = draw(state, lines, Reason("manual", session["customer"]))
        collect(state, invoice, intent)
        session["invoice"] = invoice["id"]


def _complete(state: State, session: Thing) -> Thing:
    session.update(status="complete", url=None)
    state.record("checkout.session.completed", session)
    return session
