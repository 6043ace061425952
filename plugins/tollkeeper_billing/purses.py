"""How far the charges of organizations were drawn, and from what. Inside a transaction."""

from typing import Any

import msgspec

from tollkeeper_billing.models import Credit, Purse, total


class Drawn(msgspec.Struct):
    """A purse, as it stands. Amounts are nano-USD."""

    charged: int = 0
    metered: int = 0
    exempt: int = 0
    units: int = 0
    """Cents of what is metered that stand in meter events."""
    included: int = 0
    """What is left of allowances."""
    lapsing: int = 0
    """Of it, what is left of an earlier period."""
    included_of: str = ""
    """The subscription of the newest one."""
    included_start: int = 0
    """Unix seconds: the begin of its period."""
    included_until: int = 0
    """Its end."""


_COLUMNS = (
    Purse.charged_nanousd,
    Purse.metered_nanousd,
    Purse.exempt_nanousd,
    Purse.units,
    Purse.included_nanousd,
    Purse.lapsing_nanousd,
    Purse.included_of,
    Purse.included_start,
    Purse.included_until,
)


def read_purse(database: Any, org: str) -> Drawn:  # noqa: ANN401
    """The purse of an organization."""
    rows = Purse.select(*_COLUMNS).where(Purse.org == org)
    purse = next((Drawn(*row) for row in rows.tuples().execute(database)), Drawn())
    return bound(database, org, purse)


def bound(database: Any, org: str, purse: Drawn) -> Drawn:  # noqa: ANN401
    """Nothing is left of an allowance but what is there at all: a debt has taken the rest."""
    funds = credits_of(database, org) + purse.metered + purse.exempt - purse.charged
    purse.included = max(0, min(purse.included, funds))
    purse.lapsing = min(purse.lapsing, purse.included)
    return purse


def credits_of(database: Any, org: str) -> int:  # noqa: ANN401
    """The sum of an organization's credits, in nano-USD."""
    ours = Credit.select(total(Credit.amount_nanousd)).where(Credit.org == org)
    return next((amount or 0 for (amount,) in ours.tuples().execute(database)), 0)


def with_allowances(database: Any) -> list[tuple[str, Drawn]]:  # noqa: ANN401
    """All in which something is left of one, by organization."""
    rows = Purse.select(Purse.org, *_COLUMNS).where(Purse.included_nanousd > 0)
    return [(org, Drawn(*row)) for org, *row in rows.tuples().execute(database)]


def write_purse(database: Any, org: str, purse: Drawn) -> None:  # noqa: ANN401
    """Store it."""
    Purse.insert(
        org=org,
        charged_nanousd=purse.charged,
        metered_nanousd=purse.metered,
        exempt_nanousd=purse.exempt,
        units=purse.units,
        included_nanousd=purse.included,
        lapsing_nanousd=purse.lapsing,
        included_of=purse.included_of,
        included_start=purse.included_start,
        included_until=purse.included_until,
    ).on_conflict_replace().execute(database)
