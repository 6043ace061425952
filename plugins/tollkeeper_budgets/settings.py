"""`[plugins.budgets]`."""

import zoneinfo
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tollkeeper import Money, PluginSettings
from tollkeeper.amounts import nanousd
from tollkeeper.settings import Table


def _known_zone(name: str) -> str:
    try:
        if name != "UTC":
            zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            'a time zone is named as in "Europe/Berlin"; this system knows none of that name'
        ) from None
    return name


class LimitSettings(Table):
    """One limit: who may spend how much, and how often anew."""

    scope: Literal["key", "org", "gateway"]
    """Whose spending counts: a virtual key's, an org's, or that of the whole gateway."""
    amount: Annotated[Money, Field(gt=0, le=1_000_000_000)]
    """US dollars."""
    period: Literal["day", "week", "month", "total"]
    """When it begins anew: at midnight, on Mondays, on the first of the month, or never."""
    id: str = "*"
    """Id of the key or org; `"*"` gives each of them a limit of its own."""
    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    """Whose midnight it is, as in `"Europe/Berlin"`."""
    warn: Annotated[Money, Field(gt=0, le=1)] | None = None
    """Share that may be spent before the operator is told, as in `"0.8"`."""

    @property
    def nanousd(self) -> int:
        """The amount in nano-USD."""
        return nanousd(self.amount)

    @property
    def warn_nanousd(self) -> int | None:
        """What may be spent before the operator is told, in nano-USD."""
        return None if self.warn is None else nanousd(self.amount * self.warn)


class BudgetsSettings(PluginSettings):
    """How much may be spent."""

    limits: tuple[LimitSettings, ...] = Field(default=(), strict=False)
    """Each on its own; a call must fit into all that cover it. As in `[{ scope = "key", id = "*",
    amount = "5.00", period = "day", timezone = "UTC", warn = "0.8" }]`."""
