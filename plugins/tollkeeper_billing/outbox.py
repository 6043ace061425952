"""Meter events on their way to Stripe: each arrives exactly once, whatever happens in between.

Stripe knows an event again by its identifier for 24 hours. For so long one that may have arrived
is simply sent again; after that Stripe is asked what it has counted. An organization's events go
one after another, so that the answer tells.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from tollkeeper_billing.draws import DAY
from tollkeeper_billing.models import Lease, MeterEvent, total

WINDOW = 23 * 3600
"""Seconds after the first try in which the same event may be sent again."""
SETTLED = 3600
"""Seconds after the last try until Stripe has counted what arrived."""
OLDEST = 34 * DAY
"""Stripe takes no event that is older than 35 days."""
ASKED = 1_000
MOST_ASKED = ASKED + 24
"""Tries from `ASKED` on are questions, of which so many may be answered by what fits nothing."""
LEASE_SECONDS = 120
PAUSES = (10, 30, 60, 300, 600, 1800)
"""Seconds between tries, the last for all that follow."""

Step = Literal["wait", "send", "ask", "give up"]


class Pending(msgspec.Struct, frozen=True):
    """A meter event that Stripe has not confirmed."""

    id: int
    org: str
    day: int
    units: int
    meter: str
    identifier: str
    customer: str
    at: int
    state: str
    first_try: int
    last_try: int
    next_try: int
    tries: int


_COLUMNS = (
    MeterEvent.id,
    MeterEvent.org,
    MeterEvent.day,
    MeterEvent.units,
    MeterEvent.meter,
    MeterEvent.identifier,
    MeterEvent.customer,
    MeterEvent.at,
    MeterEvent.state,
    MeterEvent.first_try,
    MeterEvent.last_try,
    MeterEvent.next_try,
    MeterEvent.tries,
)
_PENDING = MeterEvent.state.in_(("waiting", "unsure"))


def next_step(event: Pending, now: int, begin: int = 0) -> Step:
    """What is to be done about an event now. Pure.

    One of before `begin`, that of the period which is billed next, is on no invoice any more if it
    arrives now: where it may have arrived, Stripe is asked first.
    """
    if event.state == "unsure" and (now >= event.first_try + WINDOW or event.at < begin):
        return "ask" if now >= max(event.last_try + SETTLED, event.next_try) else "wait"
    if now < event.next_try:
        return "wait"
    if event.state == "waiting" and event.at < now - OLDEST:
        return "give up"
    return "send"


def payload(event: Pending) -> dict[str, Any]:
    """What goes to Stripe."""
    return {
        "event_name": event.meter,
        "identifier": event.identifier,
        "timestamp": event.at,
        "payload": {"stripe_customer_id": event.customer, "value": str(event.units)},
    }


def heads(
    database: Any,  # noqa: ANN401
    now: int,
    begin_of: Callable[[Pending], int] = lambda _: 0,
) -> list[Pending]:
    """Of each organization the first event that is not confirmed, if it is due."""
    rows = MeterEvent.select(*_COLUMNS).where(_PENDING).order_by(MeterEvent.id)
    first: dict[str, Pending] = {}
    for row in rows.tuples().execute(database):
        event = Pending(*row)
        first.setdefault(event.org, event)
    return [event for event in first.values() if next_step(event, now, begin_of(event)) != "wait"]


def note_try(database: Any, event: Pending, begin: int, now: int) -> Pending | None:  # noqa: ANN401
    """Before it is sent: from now on it may have arrived, also if nothing more is noted.

    What cannot have arrived is told as of no earlier than `begin`, that of the period which is
    billed next: the invoice over the one before may be final. None where it is not any more what
    it was, and must not be sent as such.
    """
    at = event.at if event.first_try else max(event.at, begin)
    same = (MeterEvent.id == event.id) & (MeterEvent.identifier == event.identifier)
    noted = MeterEvent.update(
        state="unsure",
        first_try=event.first_try or now,
        last_try=now,
        tries=event.tries + 1,
        next_try=now + _pause(event.tries),
        at=at,
    ).where(same & (MeterEvent.tries == event.tries))
    return msgspec.structs.replace(event, at=at) if noted.execute(database) else None


def note_sent(database: Any, event: Pending) -> None:  # noqa: ANN401
    """Stripe has it."""
    MeterEvent.update(state="sent", error="").where(MeterEvent.id == event.id).execute(database)


def note_not_sent(database: Any, event: Pending, error: str, now: int) -> None:  # noqa: ANN401
    """The last try did not arrive, for certain; one before it still may have."""
    MeterEvent.update(
        state=event.state,
        first_try=event.first_try,
        error=error,
        next_try=now + _pause(event.tries),
    ).where(MeterEvent.id == event.id).execute(database)


def note_unsure(database: Any, event: Pending, error: str) -> None:  # noqa: ANN401
    """It may have arrived."""
    MeterEvent.update(error=error).where(MeterEvent.id == event.id).execute(database)


def note_absent(database: Any, event: Pending) -> None:  # noqa: ANN401
    """It has not arrived, by Stripe's own count: it may be sent anew."""
    MeterEvent.update(state="waiting", first_try=0, next_try=0, tries=0).where(
        MeterEvent.id == event.id
    ).execute(database)


def note_unclear(database: Any, event: Pending, error: str, now: int) -> bool:  # noqa: ANN401
    """Stripe's count fits neither: ask again later. False once it was asked often enough."""
    if event.tries >= MOST_ASKED:
        give_up(database, event, error)
        return False
    MeterEvent.update(error=error, tries=max(event.tries, ASKED) + 1, next_try=now + SETTLED).where(
        MeterEvent.id == event.id
    ).execute(database)
    return True


def give_up(database: Any, event: Pending, error: str) -> None:  # noqa: ANN401
    """It cannot be billed any more, or nobody knows whether it is; those behind it go on."""
    MeterEvent.update(state="dead", error=error).where(MeterEvent.id == event.id).execute(database)


def sent_units(database: Any, event: Pending) -> int:  # noqa: ANN401
    """Units that Stripe is known to have for the customer, meter and day of an event."""
    begin, end = day_of(event)
    same = (MeterEvent.customer == event.customer) & (MeterEvent.meter == event.meter)
    sent = (MeterEvent.state == "sent") & (MeterEvent.at >= begin) & (MeterEvent.at < end)
    rows = MeterEvent.select(total(MeterEvent.units)).where(same & sent)
    return next((units or 0 for (units,) in rows.tuples().execute(database)), 0)


def day_of(event: Pending) -> tuple[int, int]:
    """The midnights of UTC around the moment that an event is of."""
    begin = event.at // DAY * DAY
    return begin, begin + DAY


def take_lease(database: Any, holder: str, now: int) -> bool:  # noqa: ANN401
    """Whether this holder may send now, and nobody else for a while."""
    rows = Lease.select(Lease.holder, Lease.until).where(Lease.name == "sender")
    for other, until in rows.tuples().execute(database):
        if other != holder and now < until:
            return False
    Lease.insert(
        name="sender", holder=holder, until=now + LEASE_SECONDS
    ).on_conflict_replace().execute(database)
    return True


def give_lease(database: Any, holder: str) -> None:  # noqa: ANN401
    """Let others send."""
    Lease.delete().where((Lease.name == "sender") & (Lease.holder == holder)).execute(database)


def _pause(tries: int) -> int:
    return PAUSES[min(tries, len(PAUSES) - 1)]
