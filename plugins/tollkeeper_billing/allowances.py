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
from tollkeeper_billing.draws import DAY
from tollkeeper_billing.models import Credit
from tollkeeper_billing.purchases import add_credit
from tollkeeper_billing.purses import Drawn, bound, read_purse, with_allowances, write_purse

GRACE = 3 * DAY
"""Seconds that the rest of an allowance stays while the next period is not paid yet."""
MONTH = 31 * DAY
"""The length of a period of which nothing is known."""
WAITING = frozenset({"draft", "open"})
"""Statuses of an invoice that is still to be paid."""


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
    is_free: bool = False
    """Whether it costs nothing."""


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


Starts = Mapping[tuple[str, int], int]
"""When a period began, by its subscription and its end."""


class Seen(msgspec.Struct, frozen=True):
    """What Stripe showed of an organization."""

    has: Standing
    invoices: Sequence[Invoice]
    """The oldest first."""
    alive: Collection[str]
    """Ids of the subscriptions that are not ended."""


def grant(database: Any, seen: Seen, offers: Mapping[str, Offer], now: int) -> None:  # noqa: ANN401
    """Give and take what paid invoices charge and credit, each once; `offers` are by price.

    What is taken comes from bought credit where the allowance is used up: Stripe pays it back. What
    follows an invoice for a plan that is still to be paid waits for that one.
    """
    starts = _starts(seen)
    for invoice in seen.invoices:
        if not any(line.price in offers for line in invoice.lines):
            continue
        if invoice.status in WAITING and invoice.subscription == seen.has.subscription:
            break
        source = f"included:{invoice.id}"
        is_known = Credit.select().where(Credit.source == source).count(database)
        if invoice.status == "paid" and not is_known:
            purse = read_purse(database, seen.has.org)
            change = _apply(purse, _shifted(invoice, offers, seen.has), seen, offers, starts)
            kind = "included" if change >= 0 else "lapse"
            add_credit(database, (seen.has.org, kind, change), source, "of the plan", now)
            write_purse(database, seen.has.org, bound(database, seen.has.org, purse))


def _starts(seen: Seen) -> Starts:
    """When each period began that an invoice tells of: its whole line begins first."""
    starts = {(seen.has.subscription, seen.has.period_end): seen.has.period_start}
    for line in (line for invoice in seen.invoices for line in invoice.lines):
        period = (line.subscription, line.end)
        starts[period] = min(line.start, starts.get(period, line.start))
    return starts


def _shifted(invoice: Invoice, offers: Mapping[str, Offer], has: Standing) -> list[Line]:
    """Its lines for plans, with the periods that they give something for."""
    lines = []
    for line in invoice.lines:
        if line.price in offers and offers[line.price].is_metered:
            if line.subscription == has.subscription:
                start, end = has.period_start, has.period_end
                lines.append(msgspec.structs.replace(line, start=start, end=end))
        elif line.price in offers:
            lines.append(line)
    return lines


def _apply(
    purse: Drawn, lines: Sequence[Line], seen: Seen, offers: Mapping[str, Offer], starts: Starts
) -> int:
    """Nano-USD that an invoice gives or takes; the purse is changed with it."""
    now_runs = (seen.has.period_start, seen.has.period_end)
    whole = [line for line in lines if line.sign > 0 and _is_whole(line, purse, now_runs)]
    change = 0
    for line in (line for line in lines if line not in whole):
        length = line.end - starts.get((line.subscription, line.end), line.end - MONTH)
        part = min(line.end - line.start, length)
        change += line.sign * (offers[line.price].amount * part // max(1, length))
    rest, purse.included = purse.included, max(0, purse.included + change)
    for line in whole:
        if _begin(purse, line, seen.alive, min(rest, purse.included)):
            purse.included += offers[line.price].amount
            change += offers[line.price].amount
    return change


def _is_whole(line: Line, purse: Drawn, now_runs: tuple[int, int]) -> bool:
    """Whether a line begins a period: one for all of the one that runs may be called a part."""
    begins = (line.start, line.end) == now_runs and not _is_known(line, purse)
    return not line.is_part or begins


def _is_known(line: Line, purse: Drawn) -> bool:
    period = (purse.included_of, purse.included_start, purse.included_until)
    return (line.subscription, line.start, line.end) == period


def _begin(purse: Drawn, line: Line, alive: Collection[str], rest: int) -> bool:
    """Begin the period that a line is for; what is left of the one before lapses.

    Whether something is given for it: once, however many lines tell of it, and not for nothing
    within a period that was given something before.
    """
    if _is_known(line, purse):
        return False
    if line.start < purse.included_start:
        return True  # an older one that was paid late
    is_covered = line.start < purse.included_until
    if purse.included_of == line.subscription or purse.included_of not in alive:
        purse.lapsing, purse.included_until = rest, line.end
    else:  # a second subscription beside the first
        purse.included_until = max(line.end, purse.included_until)
    purse.included_of, purse.included_start = line.subscription, line.start
    return not (line.is_free and is_covered)


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
