"""What plans include: given by paid invoices, used up first, taken back when its time is over.

Each line of an invoice gives what the plan of its price includes for its time, and takes that where
it credits the price, as after a change of plan or interval. So allowances follow what is paid,
however often plans are changed, and whatever is owed. All of it runs inside a transaction.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from tollkeeper_billing.customers import GOOD, Standing, standing, standings
from tollkeeper_billing.models import Credit
from tollkeeper_billing.purchases import add_credit
from tollkeeper_billing.purses import Drawn, bound, read_purse, with_allowances, write_purse

DAY = 86400
GRACE = 3 * DAY
"""Seconds that the rest of an allowance stays while the next period is not paid yet."""
MONTH = 31 * DAY
"""The length of a period of which nothing is known."""


class Line(msgspec.Struct, frozen=True):
    """What an invoice charges for one price and a time, or credits."""

    price: str
    subscription: str
    sign: int
    """1 where it is charged, -1 where it is credited, 0 where it costs nothing to begin with."""
    start: int
    end: int
    is_part: bool
    """Whether it is for the rest of a period, after a change."""


class Invoice(msgspec.Struct, frozen=True):
    """An invoice as Stripe shows it now."""

    id: str
    status: str
    subscription: str
    lines: tuple[Line, ...]


class Offer(msgspec.Struct, frozen=True):
    """What the plan of a price includes."""

    amount: int
    """Nano-USD in a whole period."""
    is_metered: bool = False
    """Whether the price is charged when its period is over: what is included begins the next."""


class Seen(msgspec.Struct, frozen=True):
    """What Stripe showed of an organization."""

    has: Standing
    invoices: Sequence[Invoice]
    """The oldest first."""
    alive: Collection[str]
    """Ids of the subscriptions that are not ended."""


def grant(database: Any, seen: Seen, offers: Mapping[str, Offer], now: int) -> None:  # noqa: ANN401
    """Give and take what paid invoices charge and credit, each once; `offers` are by price.

    What is taken comes from bought credit where the allowance is used up: Stripe pays it back.
    """
    has = seen.has
    for invoice in seen.invoices:
        source = f"included:{invoice.id}"
        lines = [_shifted(line, offers, has) for line in invoice.lines if line.price in offers]
        is_known = Credit.select().where(Credit.source == source).count(database)
        if invoice.status != "paid" or not lines or is_known:
            continue
        purse = read_purse(database, has.org)
        whole = [line for line in lines if line.sign > 0 and _is_whole(line, has)]
        change = sum(_worth(line, offers, has, purse) for line in lines if line not in whole)
        rest, purse.included = purse.included, max(0, purse.included + change)
        for line in whole:
            _begin(purse, line, seen.alive, min(rest, purse.included))
            purse.included += offers[line.price].amount
            change += offers[line.price].amount
        kind = "included" if change >= 0 else "lapse"
        add_credit(database, (has.org, kind, change), source, "of the plan", now)
        write_purse(database, has.org, bound(database, has.org, purse))


def _shifted(line: Line, offers: Mapping[str, Offer], has: Standing) -> Line:
    """A line with the period that it gives something for."""
    if not offers[line.price].is_metered or line.subscription != has.subscription:
        return line
    return msgspec.structs.replace(line, start=has.period_start, end=has.period_end)


def _is_whole(line: Line, has: Standing) -> bool:
    return not line.is_part or (line.start, line.end) == (has.period_start, has.period_end)


def _worth(line: Line, offers: Mapping[str, Offer], has: Standing, purse: Drawn) -> int:
    """Nano-USD that a line for a part of a period gives, or takes."""
    if line.end == purse.included_until:
        length = line.end - purse.included_start
    elif line.end == has.period_end:
        length = line.end - has.period_start
    else:
        length = max(MONTH, line.end - line.start)
    part = min(line.end - line.start, length)
    return line.sign * (offers[line.price].amount * part // max(1, length))


def _begin(purse: Drawn, line: Line, alive: Collection[str], rest: int) -> None:
    """Begin the period that a line is for, unless it is an older one that was paid late.

    The rest of the one before lapses.
    """
    is_same = line.subscription == purse.included_of
    is_known = is_same and line.end == purse.included_until
    if line.start < purse.included_start or (is_known and line.start == purse.included_start):
        return
    if is_same or purse.included_of not in alive:
        purse.lapsing, purse.included_until = rest, line.end
    else:  # a second subscription beside the first
        purse.included_until = max(line.end, purse.included_until)
    purse.included_of, purse.included_start = line.subscription, line.start


def lapsing(database: Any, now: int) -> dict[str, int]:  # noqa: ANN401
    """What is to be taken back of whom, in nano-USD."""
    purses = with_allowances(database)
    has = {each.org: each for each in standings(database)} if purses else {}
    due = {org: _over(purse, has.get(org), now) for org, purse in purses}
    return {org: amount for org, amount in due.items() if amount}


def _over(purse: Drawn, has: Standing | None, now: int) -> int:
    """Of what is left the part whose time is over.

    All of it where no subscription is left, or its period is over and the next not paid in time.
    """
    if has is None or not has.subscription:
        return purse.included
    is_period = (has.subscription, has.period_start) == (purse.included_of, purse.included_start)
    until = has.period_end if is_period else purse.included_until  # a trial may be extended
    is_awaited = has.status in GOOD and now < until + GRACE
    return purse.lapsing if now < until or is_awaited else purse.included


def lapse(database: Any, org: str, amount: int, now: int) -> None:  # noqa: ANN401
    """Take back up to so much of an allowance, of what is over as things stand by now."""
    purse = read_purse(database, org)
    amount = min(amount, _over(purse, standing(database, org), now))
    if amount > 0:
        source = f"lapse:{secrets.token_hex(12)}"
        add_credit(database, (org, "lapse", -amount), source, "not used in its period", now)
        purse.included -= amount
        purse.lapsing = max(0, purse.lapsing - amount)
    write_purse(database, org, purse)
