"""What plans include: granted once a period is paid, used up first, taken back when it is over.

A window lasts as long as the period that an allowance was granted for. Within it only a better plan
adds something: the difference for the time that is left, once however often plans, intervals or
subscriptions are changed, but before anybody has paid for it. What lapsed within a window does not
come back in it. All of it runs inside a transaction.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from tollkeeper_billing.models import Purse
from tollkeeper_billing.purchases import add_credit
from tollkeeper_billing.purses import read_purse, write_purse

GRACE = 3 * 86400
"""Seconds that the rest of an allowance stays while the next period is not paid yet."""

Due = tuple[str, tuple[int, int], int]
"""Organization, begin and end of the period that is paid, nano-USD that it includes."""


def grant_all(database: Any, due: Sequence[Due], now: int) -> set[str]:  # noqa: ANN401
    """`grant` for many. Whose money is another now."""
    return {org for org, period, amount in due if grant(database, (org, period, amount), now)}


def grant(database: Any, due: Due, now: int) -> bool:  # noqa: ANN401
    """Give what a plan includes for a period. False where there is nothing to give."""
    org, (start, end), amount = due
    purse = read_purse(database, org)
    left = max(0, end - max(now, start))
    if now >= purse.included_until:
        given = amount if start >= purse.included_until else amount * left // (end - start)
        purse.lapsing = purse.included
    else:
        given = max(0, amount - purse.included_most) * left // (end - start)
    if not left or given <= 0:
        return False
    source = f"included:{secrets.token_hex(12)}"
    add_credit(database, (org, "included", given), source, "of the plan", now)
    purse.included += given
    purse.included_most = amount
    purse.included_until = max(end, purse.included_until)
    write_purse(database, org, purse)
    return True


def lapsing(database: Any, is_good: Callable[[str], bool], now: int) -> dict[str, int]:  # noqa: ANN401
    """What is to be taken back of whom, in nano-USD.

    All of it where no plan is in good standing; else what was left when a new window began, and
    what the grace is over for.
    """
    columns = (Purse.org, Purse.included_nanousd, Purse.lapsing_nanousd, Purse.included_until)
    rows = Purse.select(*columns).where(Purse.included_nanousd > 0).tuples().execute(database)
    due = {
        org: old if is_good(org) and now < until + GRACE else rest for org, rest, old, until in rows
    }
    return {org: amount for org, amount in due.items() if amount}


def lapse(database: Any, org: str, amount: int, now: int) -> None:  # noqa: ANN401
    """Take back so much of an allowance."""
    purse = read_purse(database, org)
    amount = min(amount, purse.included)
    if amount <= 0:
        return
    source = f"lapse:{secrets.token_hex(12)}"
    add_credit(database, (org, "lapse", -amount), source, "not used in its period", now)
    purse.included -= amount
    purse.lapsing = max(0, purse.lapsing - amount)
    write_purse(database, org, purse)
