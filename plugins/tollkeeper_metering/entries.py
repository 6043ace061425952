"""How an attempt ended, in money. Pure."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from tollkeeper import Attempt, Usage
from tollkeeper.ledger import Account, Hold
from tollkeeper.seen import count_text
from tollkeeper_metering.prices import UNKNOWN, Price

State = Literal["posted", "estimated", "voided", "expired"]
NOTHING = Usage(0, 0, evidence="estimated")


class OpenHold(Hold):
    """A hold that has not ended, and what its end must know."""

    rate: Price = UNKNOWN
    covers: tuple[Account, ...] = ()
    """The accounts it is reserved on."""
    bounded: bool = False
    """Whether it certainly is all that the call can cost."""
    queued: float = 0.0
    """Monotonic seconds."""
    task: Any = None
    """Who waits for it to be written."""
    failure: Exception | None = None
    """Why it could not be written."""
    expired: bool = False
    """Whether nobody waits for it any more: it need not be written."""
    written: bool = False
    """Whether its row is in the table, or in the transaction that is being made."""


class Entry(msgspec.Struct, frozen=True):
    """The one end of a hold. Amounts are nano-USD."""

    hold: OpenHold
    state: State
    usage: Usage = NOTHING
    cost: int = 0
    """What the upstream asks for, as far as it is known."""
    charge: int = 0
    """What the org owes."""
    exposure: int = 0
    """What the upstream may ask for beyond the charge."""
    at: int = 0
    """Unix seconds."""


def judge(attempt: Attempt, hold: OpenHold, markup: Callable[[int], int], at: int) -> Entry:
    """The end of an attempt. Never charges more than was seen, nor more than a covered hold."""
    if not attempt.sent:
        return Entry(hold, "voided" if hold.failure is None else "expired", at=at)
    if attempt.status >= 400:
        return Entry(hold, "voided", at=at)
    usage = attempt.usage
    if usage is not None and usage.evidence == "provider":
        cost = hold.rate.cost(usage)
        charge = markup(cost)
        most = min(charge, hold.amount) if hold.bounded else charge
        return Entry(hold, "posted", usage, cost, most, charge - most, at)
    if usage is None:
        usage = count(attempt)
    cost = hold.rate.cost(usage)
    charge = min(markup(cost), hold.amount)
    return Entry(hold, "estimated", usage, cost, charge, hold.amount - charge, at)


def count(attempt: Attempt) -> Usage:
    """Usage by what passed, where the provider's own never came whole."""
    if not attempt.answered:
        return NOTHING
    return Usage(count_text(attempt.body), attempt.seen_tokens, evidence="counted")


def orphaned(hold: OpenHold, at: int) -> Entry:
    """The end of a hold whose process died: nothing was seen, all of it may be asked for."""
    return Entry(hold, "estimated", NOTHING, 0, 0, hold.amount, at)
