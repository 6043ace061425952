"""The pages a person would see: one to pay on, and one to look at what was bought."""

from html import escape

from tollkeeper.testing.stripe.checkout import find_session
from tollkeeper.testing.stripe.prices import is_metered, name_of
from tollkeeper.testing.stripe.purchases import pay
from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import State, Thing
from tollkeeper.testing.stripe.subscriptions import cancel, cancel_later

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 34rem; margin: 3rem auto; padding: 0 1rem; }
main { border: 1px solid #8884; border-radius: 12px; padding: 1rem 1.5rem 1.5rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin-top: 1.5rem; }
table { width: 100%; border-collapse: collapse; }
td { padding: .4rem 0; border-bottom: 1px solid #8883; } td:last-child { text-align: right; }
form { display: inline; }
button { font: inherit; padding: .4rem 1rem; border: 0; border-radius: 8px; cursor: pointer;
  background: #2f5bd7; color: #fff; }
button.plain { background: #8883; color: inherit; }
small { opacity: .7; }
"""


def pay_page(state: State, session_id: str) -> str:
    """What a session sells, and the button that pays it."""
    session = find_session(state, session_id)
    rows = "".join(
        _row(_what(state, price, quantity), _cost(price, quantity))
        for price, quantity in state.orders[session_id].lines
    )
    total = money(session["amount_total"], session["currency"])
    parts = [f"<table>{rows}{_row('Total', total)}</table>"]
    if session["status"] == "open":
        parts.append(f"<p>{_button(f'/pay/{session_id}', f'Pay {total}')}</p>")
        if session["cancel_url"]:
            parts.append(f'<p><a href="{escape(session["cancel_url"])}">Back</a></p>')
    else:
        parts.append(f"<p>This checkout is {escape(session['status'])}.</p>")
    return _page("Checkout", "".join(parts))


def pay_session(state: State, session_id: str) -> str:
    """Pay a session. Where the payer is sent to."""
    session = pay(state, session_id)
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session_id)


def portal_page(state: State, portal_id: str) -> str:
    """A customer, its subscriptions and its payments."""
    portal = state.find("billing_portal.session", portal_id)
    customer = state.find("customer", portal["customer"])
    who = customer["name"] or customer["email"] or customer["id"]
    plans = "".join(
        _plan(state, portal_id, one) for one in state.every("subscription", customer=customer["id"])
    )
    payments = "".join(
        _row(f"{one['id']} <small>{escape(_state_of(one))}</small>", _amount(one))
        for one in state.every("charge", customer=customer["id"])
    )
    parts = [
        f"<p>{escape(who)}<br><small>{escape(customer['id'])}</small></p>",
        f"<h2>Subscriptions</h2><table>{plans or _row('None', '')}</table>",
        f"<h2>Payments</h2><table>{payments or _row('None', '')}</table>",
    ]
    if portal["return_url"]:
        parts.append(f'<p><a href="{escape(portal["return_url"])}">Back</a></p>')
    return _page("Billing", "".join(parts))


def cancel_plan(state: State, portal_id: str, subscription_id: str, later: bool) -> str:
    """Cancel a subscription of the portal's customer. Where the customer is sent to."""
    portal = state.find("billing_portal.session", portal_id)
    subscription = state.find("subscription", subscription_id)
    if subscription["customer"] != portal["customer"]:
        raise Refusal(f"No such subscription: '{subscription_id}'", status=404)
    (cancel_later if later else cancel)(state, subscription_id)
    return f"/portal/{portal_id}"


def refusal_page(refusal: Refusal) -> str:
    """Why not."""
    return _page("This does not work", f"<p>{escape(refusal.message)}</p>")


def money(amount: int, currency: str) -> str:
    """An amount of cents, for people."""
    figures = f"{amount // 100:,}.{amount % 100:02}"
    return f"${figures}" if currency == "usd" else f"{figures} {currency.upper()}"


def _plan(state: State, portal_id: str, subscription: Thing) -> str:
    item = subscription["items"]["data"][0]
    told = str(subscription["status"])
    if subscription["cancel_at_period_end"]:
        told += ", ends with its period"
    what = _what(state, item["price"], item.get("quantity", 0))
    buttons = ""
    if subscription["status"] != "canceled":
        action = f"/portal/{portal_id}/cancel/{subscription['id']}"
        buttons = f" {_button(action, 'Cancel', 'plain')}"
        if not subscription["cancel_at_period_end"]:
            buttons += f" {_button(f'{action}?later=1', 'Cancel at period end', 'plain')}"
    return _row(f"{what}<br><small>{escape(told)}</small>", buttons)


def _state_of(charge: Thing) -> str:
    if charge["disputed"]:
        return "disputed"
    back = charge["amount_refunded"]
    return f"{money(back, charge['currency'])} refunded" if back else str(charge["status"])


def _amount(charge: Thing) -> str:
    return escape(money(charge["amount"], charge["currency"]))


def _what(state: State, price: Thing, quantity: int) -> str:
    times = f" &times; {quantity}" if quantity > 1 else ""
    return f"{escape(name_of(state, price))}{times}"


def _cost(price: Thing, quantity: int) -> str:
    each = money(price["unit_amount"] * (quantity or 1), price["currency"])
    unit = " a unit" if is_metered(price) else ""
    every = f" every {price['recurring']['interval']}" if price["recurring"] else ""
    return escape(each + unit + every)


def _row(left: str, right: str) -> str:
    return f"<tr><td>{left}</td><td>{right}</td></tr>"


def _button(action: str, label: str, look: str = "main") -> str:
    button = f'<button class="{look}">{escape(label)}</button>'
    return f'<form method="post" action="{escape(action)}">{button}</form>'


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<main><h1>{escape(title)}</h1>{body}</main>"
        "<p><small>A fake Stripe, for tests: no money moves here.</small></p></html>\n"
    )
