"""What plans include: granted once a period is paid, used up first, taken back when it is over.

A change of plan or interval gives and takes what Stripe charges and credits for it: the difference
for the time that is left, once it is paid. So whoever changes to and fro has what they paid for.
All of it runs inside a transaction.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from tollkeeper_billing.customers import GOOD, standing
from tollkeeper_billing.models import Customer
from tollkeeper_billing.purchases import add_credit
from tollkeeper_billing.purses import Drawn, read_purse, with_allowances, write_purse

NOTHING = ("", "")
"""Subscription and status of whoever has none."""
GRACE = 3 * 86400
"""Seconds that the rest of an allowance stays while the next period is not paid yet."""


class Due(msgspec.Struct, frozen=True):
    """What a period that is paid includes."""

    org: str
    subscription: str
    plan: str
    start: int
    end: int
    amount: int
    """Nano-USD."""


def grant_all(database: Any, due: Sequence[Due], now: int) -> set[str]:  # noqa: ANN401
    """`grant` for many. Whose money is another now."""
    return {each.org for each in due if grant(database, each, now)}


def grant(database: Any, due: Due, now: int) -> bool:  # noqa: ANN401
    """Give what a period includes, or what a change of plan within it comes to.

    False where nobody's money changes. What is taken back comes from bought credit where the
    allowance is used up: Stripe credits it.
    """
    purse = read_purse(database, due.org)
    is_same = due.subscription == purse.included_of
    if is_same and due.start == purse.included_start:
        source = f"included:{secrets.token_hex(12)}"
        change = _difference(purse, due, now)
    else:
        if is_same and due.start < purse.included_start:
            return False
        source = f"included:{due.subscription}:{due.start}"
        unused = _unused(purse, due.start) if is_same else 0
        change = due.amount - unused
        purse.lapsing = max(0, purse.included - unused)
        purse.included_until = due.end
    purse.included = max(0, purse.included + change)
    purse.lapsing = min(purse.lapsing, purse.included)
    if due.plan != purse.included_plan or due.start != purse.included_start:
        purse.included_amount = due.amount
    purse.included_of, purse.included_plan = due.subscription, due.plan
    purse.included_start = due.start
    kind = "included" if change > 0 else "lapse"
    if change and not add_credit(database, (due.org, kind, change), source, "of the plan", now):
        return False  # of two subscriptions the other, whose period was granted before
    write_purse(database, due.org, purse)
    return bool(change)


def _difference(purse: Drawn, due: Due, now: int) -> int:
    """What another plan makes of the rest of a period; nothing where only its settings changed."""
    if due.plan == purse.included_plan:
        return 0
    left = max(0, due.end - max(now, due.start))
    return (due.amount - purse.included_amount) * left // (due.end - due.start)


def _unused(purse: Drawn, moment: int) -> int:
    """Of what a period included, the share of the time that it did not last."""
    left = max(0, purse.included_until - moment)
    return purse.included_amount * left // max(1, purse.included_until - purse.included_start)


def lapsing(database: Any, now: int) -> dict[str, int]:  # noqa: ANN401
    """What is to be taken back of whom, in nano-USD."""
    columns = (Customer.org, Customer.subscription, Customer.status)
    has = {org: now_has for org, *now_has in Customer.select(*columns).tuples().execute(database)}
    due = {
        org: _over(purse, has.get(org, NOTHING), now) for org, purse in with_allowances(database)
    }
    return {org: amount for org, amount in due.items() if amount}


def _over(purse: Drawn, has: Sequence[str], now: int) -> int:
    """Of what is left the part whose time is over.

    All of it where its subscription is ended, or its period, and the next one is not paid in time.
    """
    subscription, status = has
    is_awaited = status in GOOD and now < purse.included_until + GRACE
    stays = subscription == purse.included_of and (now < purse.included_until or is_awaited)
    return purse.lapsing if stays else purse.included


def lapse(database: Any, org: str, amount: int, now: int) -> None:  # noqa: ANN401
    """Take back up to so much of an allowance, of what is over as things stand by now."""
    purse, customer = read_purse(database, org), standing(database, org)
    has = (customer.subscription, customer.status) if customer else NOTHING
    amount = min(amount, _over(purse, has, now))
    if amount <= 0:
        return
    source = f"lapse:{secrets.token_hex(12)}"
    add_credit(database, (org, "lapse", -amount), source, "not used in its period", now)
    purse.included -= amount
    purse.lapsing = max(0, purse.lapsing - amount)
    write_purse(database, org, purse)
