"""Money as plugins speak of it: holds, the accounts they are reserved on, prices, sums of usage.

Amounts are whole nano-USD, 10**-9 US dollars. Whoever meters offers a `Ledger`; whoever refuses by
money, a budget or a balance, attaches an `Account` to it.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, runtime_checkable

import msgspec

from tollkeeper.exchange import Deployment, Principal
from tollkeeper.settings import PriceSettings


class Hold(msgspec.Struct):
    """What one attempt may cost its org at most, reserved before a byte of it goes upstream."""

    id: int
    """Of its row in the ledger."""
    attempt_id: str
    exchange_id: str
    number: int
    """Of the attempt in its exchange, from 1."""
    org: str
    key: str
    """Id of the virtual key, empty for an anonymous caller."""
    model: str
    """The name that the client asked for."""
    deployment: str
    """Provider and upstream model."""
    price: str
    """Version of the price it is counted by."""
    amount: int
    """Nano-USD."""
    at: int
    """Unix seconds: which period it counts in, and its charge too."""


@runtime_checkable
class Account(Protocol):
    """A budget or a balance: what may be held and spent by those it covers. It never waits."""

    since: int
    """Unix seconds: charges of holds made before this are none of its business."""

    def covers(self, principal: Principal) -> bool:
        """Whether calls of this caller are reserved here, by org and key: always the same."""

    def reserve(self, hold: Hold) -> None:
        """Take the amount from what is left, or raise `Refused` and take nothing."""

    def adopt(self, hold: Hold) -> None:
        """Count a hold that was open before this account was attached."""

    def settle(self, hold: Hold, charge: int) -> None:
        """Give a hold back and book its charge: no more than the hold, unless it was adopted."""

    def book(self, org: str, key: str, charge: int) -> None:
        """Add what was charged since `since`, before this account was attached."""


@runtime_checkable
class Ledger(Protocol):
    """The append-only account of every attempt. Offered by whoever meters."""

    def attached(
        self, owner: str, accounts: Sequence[Account]
    ) -> AbstractAsyncContextManager[None]:
        """Reserve on these accounts too, while the block lasts.

        On entry each adopts what is open and books what was charged since its `since`; from then
        on it misses nothing. Accounts that the same owner attached before take no more holds.
        """


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of the ledger to sum up, and how to group it."""

    by: Literal["day", "model", "key", "org"] = "day"
    since: int = 0
    """Unix seconds, down to the hour: attempts whose hold was made from then on."""
    until: int | None = None
    """Unix seconds, down to the hour: attempts before then."""
    org: str | None = None
    key: str | None = None
    model: str | None = None


class UsageSum(msgspec.Struct, frozen=True):
    """Usage of one day, model, key or org."""

    key: str
    """The day as `2026-11-25` (UTC), or the name of what is grouped by."""
    requests: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost: int
    """Nano-USD that upstreams ask for."""
    charge: int
    """Nano-USD that orgs owe."""
    exposure: int
    """Nano-USD that upstreams may ask for beyond what was charged."""


@runtime_checkable
class UsageSource(Protocol):
    """Sums of usage. Offered by whoever meters."""

    async def usage(self, query: UsageQuery) -> Sequence[UsageSum]:
        """The sums asked for, in the order of their keys."""


@runtime_checkable
class PriceSource(Protocol):
    """Prices beyond those of the TOML. Offered by whoever meters."""

    def price_of(self, deployment: Deployment) -> PriceSettings | None:
        """US dollars per million tokens, None where nobody knows."""
