"""What the routes take and answer, as the API document shows it."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import StringConstraints

from tollkeeper.settings import Table

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2}Z)?)?"
When = Annotated[str, StringConstraints(pattern=rf"^([0-9]{{1,6}}[dh]|{_DATE})$")]
Amount = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,2})?$")]
"""US dollars as a decimal."""


class NewCheckout(Table):
    """What to buy: a pack of credit, or a plan."""

    pack: Name | None = None
    plan: Name | None = None


class Checkout(Table):
    """Where to pay."""

    id: str
    """Of the checkout session at Stripe."""
    url: str


class Portal(Table):
    """Where to see invoices, change cards and end subscriptions."""

    url: str


class Status(Table):
    """How an organization stands."""

    plan: str | None
    """Null without one."""
    status: str
    """Of the subscription in Stripe's words; `none` without one."""
    balance: str
    """US dollars: bought credit and what is left of a plan's allowance."""
    held: str
    """US dollars of it that calls under way may still cost."""
    currency: Literal["usd"] = "usd"
    hard_stop: bool
    """Whether calls are refused for want of balance."""


class UsageQuery(Table):
    """Which part of the ledger, and how to group it."""

    since: When | None = None
    """From this hour on: `2026-11-25`, `2026-11-25T10:00` (UTC), `7d` or `24h`."""
    until: When | None = None
    """Before this hour, written likewise."""
    by: Literal["day", "model", "key"] = "day"
    """One sum for each of them; days are of UTC."""


class Usage(Table):
    """What was used on a day, of a model or by a key."""

    key: str
    """The day, the name of the model or the id of the key."""
    requests: int
    input_tokens: int
    output_tokens: int
    cost: str
    """US dollars that providers ask for."""
    charge: str
    """US dollars that are drawn from the balance."""


class NewTopup(Table):
    """Which pack to buy whenever the balance falls below an amount."""

    pack: Name | None
    """Null to buy none any more."""
    below: Amount = "0.00"

    @property
    def amount(self) -> Decimal:
        """The amount."""
        return Decimal(self.below)


class Topup(Table):
    """What is bought whenever the balance falls below an amount."""

    pack: str | None
    below: str
    error: str | None
    """Why the last purchase failed. None is made until this is set anew."""


class Received(Table):
    """The event is in force, or was before."""

    received: bool = True
