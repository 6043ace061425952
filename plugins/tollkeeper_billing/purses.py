"""How far the charges of organizations were drawn, and from what. Inside a transaction."""

from typing import Any

import msgspec

from tollkeeper_billing.models import Purse


class Drawn(msgspec.Struct):
    """A purse, as it stands. Amounts are nano-USD."""

    charged: int = 0
    metered: int = 0
    exempt: int = 0
    units: int = 0
    """Cents of what is metered that stand in meter events."""
    included: int = 0
    """What is left of allowances."""
    included_most: int = 0
    """The best that was granted in the window."""
    included_until: int = 0
    """Unix seconds: the end of the window."""
    lapsing: int = 0
    """What is left of an earlier window."""


def read_purse(database: Any, org: str) -> Drawn:  # noqa: ANN401
    """The purse of an organization."""
    rows = Purse.select(
        Purse.charged_nanousd,
        Purse.metered_nanousd,
        Purse.exempt_nanousd,
        Purse.units,
        Purse.included_nanousd,
        Purse.included_most_nanousd,
        Purse.included_until,
        Purse.lapsing_nanousd,
    ).where(Purse.org == org)
    return next((Drawn(*row) for row in rows.tuples().execute(database)), Drawn())


def write_purse(database: Any, org: str, purse: Drawn) -> None:  # noqa: ANN401
    """Store it."""
    Purse.insert(
        org=org,
        charged_nanousd=purse.charged,
        metered_nanousd=purse.metered,
        exempt_nanousd=purse.exempt,
        units=purse.units,
        included_nanousd=purse.included,
        included_most_nanousd=purse.included_most,
        included_until=purse.included_until,
        lapsing_nanousd=purse.lapsing,
    ).on_conflict_replace().execute(database)
