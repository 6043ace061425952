"""What charges are drawn from: a plan's allowance first, then bought credit, then a meter.

The ledger's sums per organization and day only ever grow, so what is new of them is drawn exactly
once, however often it is looked at. All of it runs inside a transaction.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tollkeeper_billing.models import Credit, Draw, MeterEvent, Purse, State, total
from tollkeeper_billing.purchases import add_credit
from tollkeeper_billing.settings import CENT

DAY = 86400
NEW: dict[str, Any] = {
    "state": "waiting",
    "first_try": 0,
    "last_try": 0,
    "next_try": 0,
    "tries": 0,
    "error": "",
}
"""A meter event that was never tried."""
LOOK_BACK = 3
"""Days whose sums may still grow: a call counts on the day in which it began."""


class Terms(msgspec.Struct, frozen=True):
    """What an organization's charges may be drawn from besides credit."""

    customer: str = ""
    """At Stripe."""
    meter: str = ""
    """Event name; empty where there is no meter."""
    exempt: bool = False
    """Whether they are drawn from nothing at all."""


class Drawn(msgspec.Struct):
    """A purse, as it stands."""

    charged: int = 0
    metered: int = 0
    exempt: int = 0
    units: int = 0
    included: int = 0
    included_until: int = 0


def begin(database: Any, now: int) -> int:  # noqa: ANN401
    """From when on charges are drawn from balances: the hour in which billing ran first."""
    if (moment := since(database)) is None:
        moment = now // 3600 * 3600
        State.insert(name="since", value=moment).execute(database)
    return moment


def since(database: Any) -> int | None:  # noqa: ANN401
    """The same, None where billing never ran."""
    return _state(database, "since")


def write_off(database: Any, charges: Mapping[str, int], now: int) -> None:  # noqa: ANN401
    """Once, when billing has just begun: nobody owes for the part of the hour before it."""
    if _state(database, "opened") is not None:
        return
    State.insert(name="opened", value=now).execute(database)
    for org, charge in charges.items():
        add_credit(database, (org, "opening", charge), f"opening:{org}", "before billing", now)


def first_day(database: Any, begun: int, now: int) -> int:  # noqa: ANN401
    """The first day whose charges may not all be drawn yet."""
    last = _state(database, "drawn") or begun
    return max(begun, min(last, now) - LOOK_BACK * DAY) // DAY * DAY


def draw(
    database: Any,  # noqa: ANN401
    day: int,
    charged: Mapping[str, int],
    terms: Callable[[str], Terms],
    now: int,
) -> set[str]:
    """Draw what is new of the charges of a day. Whose money is another now."""
    columns = (Draw.org, Draw.charged_nanousd, Draw.metered_nanousd, Draw.included_nanousd)
    rows = Draw.select(*columns).where(Draw.day == day).tuples().execute(database)
    before = {
        org: Drawn(charged=sums, metered=metered, included=included)
        for org, sums, metered, included in rows
    }
    changed = set()
    for org, sum_of_day in charged.items():
        so_far = before.get(org, Drawn())
        if (new := sum_of_day - so_far.charged) > 0:
            _draw_one(database, (org, day), new, so_far, terms(org))
            _count_cents(database, (org, day), terms(org), now)
            changed.add(org)
    State.insert(
        name="drawn", value=max(day, _state(database, "drawn") or 0)
    ).on_conflict_replace().execute(database)
    return changed


def _draw_one(
    database: Any,  # noqa: ANN401
    where: tuple[str, int],
    new: int,
    so_far: Drawn,
    terms: Terms,
) -> None:
    org, day = where
    purse = read_purse(database, org)
    included = 0 if terms.exempt else min(new, purse.included)
    beyond = purse.metered + purse.exempt
    credit = max(0, credits_of(database, org) - purse.included + beyond - purse.charged)
    metered = max(0, new - included - credit) if terms.meter and not terms.exempt else 0
    Draw.insert(
        org=org,
        day=day,
        charged_nanousd=so_far.charged + new,
        included_nanousd=so_far.included + included,
        metered_nanousd=so_far.metered + metered,
    ).on_conflict_replace().execute(database)
    purse.charged += new
    purse.metered += metered
    purse.exempt += new if terms.exempt else 0
    purse.included -= included
    write_purse(database, org, purse)


def _count_cents(database: Any, where: tuple[str, int], terms: Terms, now: int) -> None:  # noqa: ANN401
    """Put whole cents of what is metered into a meter event; the rest goes into the next.

    One that was never tried takes them along: a long outage makes one event per day.
    """
    org, day = where
    purse = read_purse(database, org)
    units = purse.metered // CENT - purse.units
    if units <= 0 or not terms.meter:
        return
    last = purse.units + units
    untried = (MeterEvent.state == "waiting") & (MeterEvent.tries == 0)
    same = untried & (MeterEvent.org == org) & (MeterEvent.day == day)
    same &= (MeterEvent.meter == terms.meter) & (MeterEvent.customer == terms.customer)
    rows = MeterEvent.select(MeterEvent.id, MeterEvent.units).where(same)
    known = list(rows.order_by(MeterEvent.id.desc()).limit(1).tuples().execute(database))
    before = known[0][1] if known else 0
    event = {
        "units": before + units,
        "identifier": f"{org}-{day}-{purse.units - before}-{last}"[-100:],
        "at": max(day, min(now, day + DAY - 1)),
    }
    if known:
        MeterEvent.update(event).where(MeterEvent.id == known[0][0]).execute(database)
    else:
        event |= {"org": org, "day": day, "meter": terms.meter, "customer": terms.customer}
        MeterEvent.insert(event | NEW).execute(database)
    purse.units = last
    write_purse(database, org, purse)


def grant_allowances(
    database: Any,  # noqa: ANN401
    due: Sequence[tuple[str, tuple[str, int, int], int]],
    now: int,
) -> set[str]:
    """`grant_allowance` for many: organization, period, amount. Whose money is another now."""
    return {
        org for org, period, amount in due if grant_allowance(database, org, period, amount, now)
    }


def grant_allowance(
    database: Any,  # noqa: ANN401
    org: str,
    period: tuple[str, int, int],
    amount: int,
    now: int,
) -> bool:
    """Give what a plan includes for a period (subscription, begin, end), once.

    A better plan in the middle of one adds the difference. False where there is nothing to give.
    """
    subscription, start, end = period
    source = f"included:{subscription}:{start}"
    mine = (Credit.org == org) & Credit.source.startswith(f"{source}:")
    rows = Credit.select(total(Credit.amount_nanousd)).where(mine).tuples().execute(database)
    given = next((amount or 0 for (amount,) in rows), 0)
    if amount <= given:
        return False
    source = f"{source}:{amount}"
    if not add_credit(database, (org, "included", amount - given), source, "of the plan", now):
        return False
    purse = read_purse(database, org)
    purse.included += amount - given
    purse.included_until = end
    write_purse(database, org, purse)
    return True


def lapsing(database: Any, now: int) -> dict[str, int]:  # noqa: ANN401
    """What is left in nano-USD of allowances whose period is over."""
    over = (Purse.included_nanousd > 0) & (Purse.included_until <= now)
    rows = Purse.select(Purse.org, Purse.included_nanousd).where(over)
    return dict(rows.tuples().execute(database))


def lapse(database: Any, org: str, amount: int, now: int) -> None:  # noqa: ANN401
    """Take back so much of an allowance."""
    purse = read_purse(database, org)
    amount = min(amount, purse.included)
    if amount <= 0:
        return
    source = f"lapse:{secrets.token_hex(12)}"
    add_credit(database, (org, "lapse", -amount), source, "not used in its period", now)
    purse.included -= amount
    write_purse(database, org, purse)


def credits_of(database: Any, org: str) -> int:  # noqa: ANN401
    """The sum of an organization's credits, in nano-USD."""
    ours = Credit.select(total(Credit.amount_nanousd)).where(Credit.org == org)
    return next((amount or 0 for (amount,) in ours.tuples().execute(database)), 0)


def read_purse(database: Any, org: str) -> Drawn:  # noqa: ANN401
    """How far an organization's charges were drawn."""
    rows = Purse.select(
        Purse.charged_nanousd,
        Purse.metered_nanousd,
        Purse.exempt_nanousd,
        Purse.units,
        Purse.included_nanousd,
        Purse.included_until,
    ).where(Purse.org == org)
    return next((Drawn(*row) for row in rows.tuples().execute(database)), Drawn())


def write_purse(database: Any, org: str, purse: Drawn) -> None:  # noqa: ANN401
    """Store that."""
    Purse.insert(
        org=org,
        charged_nanousd=purse.charged,
        metered_nanousd=purse.metered,
        exempt_nanousd=purse.exempt,
        units=purse.units,
        included_nanousd=purse.included,
        included_until=purse.included_until,
    ).on_conflict_replace().execute(database)


def _state(database: Any, name: str) -> int | None:  # noqa: ANN401
    rows = State.select(State.value).where(State.name == name).tuples().execute(database)
    return next((int(value) for (value,) in rows), None)
