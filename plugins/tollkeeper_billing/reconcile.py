"""Whether the ledger, our books and Stripe say the same of each organization and day."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tollkeeper import Database
from tollkeeper.amounts import dollars
from tollkeeper.ledger import UsageQuery, UsageSource
from tollkeeper_billing import draws, inbox, purchases
from tollkeeper_billing.models import Draw, MeterEvent, total
from tollkeeper_billing.outbox import SETTLED
from tollkeeper_billing.processor import Declined, Processor

DAY = draws.DAY

Metered = dict[str, dict[tuple[str, str], tuple[int, int]]]


class Day(msgspec.Struct, frozen=True):
    """One organization on one day of UTC. Amounts are US dollars but for the cents."""

    org: str
    day: int
    ledger: str
    """Charged, by the ledger."""
    drawn: str
    """Of it, drawn from allowance, credit and meter."""
    metered_cents: int
    """In meter events."""
    unsent_cents: int
    """Of those, not confirmed by Stripe."""
    stripe_cents: int | None
    """Counted by Stripe; None where nothing was metered."""
    ok: bool


class Unpaid(msgspec.Struct, frozen=True):
    """A checkout that was paid at Stripe, and whose credit was not given."""

    checkout: str
    org: str
    session: str
    fixed: bool


async def compare_days(
    database: Database, usage: UsageSource, stripe: Processor, days: int, now: int
) -> list[Day]:
    """Every organization and day on which something was charged, newest day last.

    What is not drawn yet of today or yesterday, and cents on their way, are no mistake.
    """
    since = await database.read(draws.since)
    found: list[Day] = []
    if since is None:
        return found
    today = now // DAY * DAY
    for day in range(max(since // DAY * DAY, today - (days - 1) * DAY), today + DAY, DAY):
        drawn = await database.read(_drawn, day)  # first: what is charged may grow meanwhile
        span = UsageQuery(by="org", since=max(day, since), until=day + DAY)
        charged = {each.key: each.charge for each in await usage.usage(span) if each.charge}
        sent = await database.read(_metered, day, now)
        for org in sorted({*charged, *drawn, *sent}):
            cents = await _counted(stripe, sent.get(org, {}), day)
            sums = (charged.get(org, 0), drawn.get(org, 0))
            found.append(
                _judge((org, day), sums, sent.get(org, {}), cents, late=day >= today - DAY)
            )
    return found


def _judge(
    where: tuple[str, int],
    sums: tuple[int, int],
    sent: Mapping[tuple[str, str], tuple[int, int]],
    counted: int | None,
    *,
    late: bool,
) -> Day:
    charge, drawn = sums
    metered = sum(cents for cents, _ in sent.values())
    unsent = sum(cents for _, cents in sent.values())
    fits = counted is None or metered - unsent <= counted <= metered
    return Day(
        *where,
        dollars(charge),
        dollars(drawn),
        metered,
        unsent,
        counted,
        (charge == drawn or (late and drawn <= charge)) and fits,
    )


async def _counted(
    stripe: Processor, sent: Mapping[tuple[str, str], tuple[int, int]], day: int
) -> int | None:
    counts = [await stripe.usage_of(meter, who, day, day + DAY) for meter, who in sent]
    return sum(counts) if counts else None


async def find_unpaid(
    database: Database, stripe: Processor, days: int, now: int, *, fix: bool
) -> list[Unpaid]:
    """Checkouts of these days that Stripe says are paid: their webhook never came.

    `fix` credits them.
    """
    found = []
    for bought in await database.read(purchases.unpaid, now - days * DAY):
        paid, effect = await _look_up(stripe, bought), None
        if paid is None:
            continue
        if fix:
            give = inbox.paid_topup if bought.session is None else inbox.paid_session
            effect = await database.write(give, paid, now)
        fixed = effect is not None and effect.outcome == "done"
        found.append(Unpaid(bought.id, bought.org, str(paid["id"]), fixed))
    return found


async def _look_up(stripe: Processor, bought: purchases.Bought) -> dict[str, Any] | None:
    """The session or payment of a checkout, where it is paid."""
    if bought.kind == purchases.TOPUP:
        payment = await stripe.find_payment(bought)
        return payment if payment and payment.get("status") == "succeeded" else None
    if bought.session is None:
        return None
    try:
        session = await stripe.read_session(bought.session)
    except Declined as declined:
        if declined.code == "resource_missing":
            return None  # of another account or mode
        raise
    free = bought.kind == purchases.PLAN and session.get("payment_status") == "no_payment_required"
    is_paid = session.get("payment_status") == "paid" or (free and session["status"] == "complete")
    return session if is_paid else None


def _drawn(database: Any, day: int) -> dict[str, int]:  # noqa: ANN401
    rows = Draw.select(Draw.org, Draw.charged_nanousd).where(Draw.day == day)
    return dict(rows.tuples().execute(database))


def _metered(database: Any, day: int, now: int) -> Metered:  # noqa: ANN401
    """By organization, meter and customer: cents in events of a day, and those not confirmed."""
    columns = (MeterEvent.org, MeterEvent.meter, MeterEvent.customer)
    on_day = (MeterEvent.at >= day) & (MeterEvent.at < day + DAY)
    found: Metered = {}
    # Stripe counts a little later. What it will never get is not under way.
    under_way = MeterEvent.state.in_(("waiting", "unsure"))
    under_way |= (MeterEvent.state == "sent") & (MeterEvent.last_try > now - SETTLED)
    for unconfirmed in (False, True):
        rows = MeterEvent.select(*columns, total(MeterEvent.units)).where(on_day)
        rows = rows.where(under_way) if unconfirmed else rows
        for org, meter, customer, cents in rows.group_by(*columns).tuples().execute(database):
            before = found.setdefault(org, {}).get((meter, customer), (0, 0))
            both = (before[0], cents) if unconfirmed else (cents, 0)
            found[org][meter, customer] = both
    return found
