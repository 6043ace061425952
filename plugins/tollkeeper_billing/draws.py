"""What charges are drawn from: a plan's allowance first, then bought credit, then a meter.

The ledger's sums per organization and day only ever grow, so what is new of them is drawn exactly
once, however often it is looked at. All of it runs inside a transaction.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tollkeeper import PluginError
from tollkeeper_billing.models import Draw, MeterEvent, State
from tollkeeper_billing.purchases import add_credit
from tollkeeper_billing.purses import Drawn, credits_of, read_purse, write_purse
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
    begin: int = 0
    """Unix seconds: of the period that is billed next. What is told as of earlier never is."""
    exempt: bool = False
    """Whether they are drawn from nothing at all."""


def begin(database: Any, now: int, *, livemode: bool) -> int:  # noqa: ANN401
    """From when on charges are drawn from balances: the hour in which billing ran first.

    Raises `PluginError` where what is stored is of the other mode of Stripe.
    """
    mode = _state(database, "livemode")
    if mode is None:
        State.insert(name="livemode", value=int(livemode)).execute(database)
    elif bool(mode) != livemode:
        there, here = ("live", "test") if mode else ("test", "live")
        raise PluginError(
            f"this database has the customers and credits of Stripe's {there} mode, and secret_key"
            f" is of its {here} mode; use another database"
        )
    if (moment := since(database)) is None:
        moment = now // 3600 * 3600
        State.insert(name="since", value=moment).execute(database)
    return moment


def since(database: Any) -> int | None:  # noqa: ANN401
    """From when on charges are drawn from balances; None where billing never ran."""
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


def undrawn(database: Any, day: int, charged: Mapping[str, int]) -> list[tuple[str, int]]:  # noqa: ANN401
    """Of the charges of a day those that are not drawn yet, or not all."""
    rows = Draw.select(Draw.org, Draw.charged_nanousd).where(Draw.day == day)
    before = dict(rows.tuples().execute(database))
    return [(org, charge) for org, charge in charged.items() if charge > before.get(org, 0)]


def draw(
    database: Any,  # noqa: ANN401
    day: int,
    charged: Sequence[tuple[str, int]],
    terms: Callable[[str], Terms],
    now: int,
) -> set[str]:
    """Draw what is new of the charges of a day. Whose money is another now."""
    changed = set()
    for org, charge in charged:
        so_far = _drawn_of(database, org, day)
        if (new := charge - so_far.charged) > 0:
            purse, granted = read_purse(database, org), terms(org)
            _draw_one(database, (org, day), new, so_far, (purse, granted))
            _count_cents(database, (org, day), purse, granted, now)
            write_purse(database, org, purse)
            changed.add(org)
    last = max(day, _state(database, "drawn") or 0)
    State.insert(name="drawn", value=last).on_conflict_replace().execute(database)
    return changed


def _drawn_of(database: Any, org: str, day: int) -> Drawn:  # noqa: ANN401
    columns = (Draw.charged_nanousd, Draw.metered_nanousd, Draw.included_nanousd)
    rows = Draw.select(*columns).where((Draw.org == org) & (Draw.day == day))
    for charged, metered, included in rows.tuples().execute(database):
        return Drawn(charged=charged, metered=metered, included=included)
    return Drawn()


def _draw_one(
    database: Any,  # noqa: ANN401
    where: tuple[str, int],
    new: int,
    so_far: Drawn,
    of: tuple[Drawn, Terms],
) -> None:
    """Draw from a purse by its terms."""
    (org, day), (purse, terms) = where, of
    included = 0 if terms.exempt else min(new, purse.included)
    beyond = purse.metered + purse.exempt
    # Less than nothing is a debt, which a meter bills too.
    credit = credits_of(database, org) - purse.included + beyond - purse.charged
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
    purse.lapsing = max(0, purse.lapsing - included)


def _count_cents(
    database: Any,  # noqa: ANN401
    where: tuple[str, int],
    purse: Drawn,
    terms: Terms,
    now: int,
) -> None:
    """Put whole cents of what is metered into a meter event; the rest goes into the next.

    One that was never tried takes them along: a long outage makes one event per day.
    """
    org, day = where
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
        "at": max(terms.begin, day, min(now, day + DAY - 1)),
    }
    if known:
        MeterEvent.update(event).where(MeterEvent.id == known[0][0]).execute(database)
    else:
        event |= {"org": org, "day": day, "meter": terms.meter, "customer": terms.customer}
        MeterEvent.insert(event | NEW).execute(database)
    purse.units = last


def _state(database: Any, name: str) -> int | None:  # noqa: ANN401
    rows = State.select(State.value).where(State.name == name).tuples().execute(database)
    return next((int(value) for (value,) in rows), None)
