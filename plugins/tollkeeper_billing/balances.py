"""The balances in memory: what each organization may still spend, as an account of the ledger.

funds = credits + beyond - charged, and never is more held than there are funds.
"""

from collections.abc import Callable, Collection, Iterable

import msgspec

from tollkeeper import Notice, Principal, Refused
from tollkeeper.amounts import dollars
from tollkeeper.ledger import Hold


class Funds(msgspec.Struct, frozen=True):
    """What is stored of an organization's money, as of one moment."""

    org: str
    credits: int
    """Nano-USD: the sum of all credits, of those taken back too."""
    newest: int
    """Id of the newest of them."""
    beyond: int
    """Nano-USD of charges that no credit pays for: a meter bills them, or nobody."""


class _Purse:
    __slots__ = ("beyond", "charged", "credits", "held", "newest", "postpaid", "warned")

    def __init__(self) -> None:
        self.beyond = self.charged = self.credits = self.held = self.newest = 0
        self.postpaid = False
        """Whether what the funds do not pay for is billed by a meter."""
        self.warned = False

    @property
    def funds(self) -> int:
        return self.credits + self.beyond - self.charged


class Balances:
    """The `Account` of all organizations but those that are exempt."""

    def __init__(
        self,
        since: int,
        exempt: Collection[str],
        low: int = 0,
        warn: Callable[[Notice], None] = lambda _: None,
        fell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.since = since
        """Unix seconds: from when on charges are drawn from balances."""
        self._exempt = frozenset(exempt)
        self._low = low
        self._warn = warn
        self._fell = fell
        self._alarms: dict[str, int] = {}
        self._rung: set[str] = set()
        """Whose alarm was told, until their balance rises."""
        self._of: dict[str, _Purse] = {}

    def covers(self, principal: Principal) -> bool:
        """Whether calls of this caller need a balance."""
        return principal.org not in self._exempt

    def reserve(self, hold: Hold) -> None:
        """Take the hold's amount, or raise `Refused` 429 and take nothing."""
        purse = self._purse(hold.org)
        if purse.held + hold.amount > purse.funds and not purse.postpaid:
            self._look(hold.org, purse)
            raise _refusal(hold, purse.funds - purse.held)
        purse.held += hold.amount

    def adopt(self, hold: Hold) -> None:
        """Count a hold that was open before: it fits or not, it is there."""
        self._purse(hold.org).held += hold.amount

    def settle(self, hold: Hold, charge: int) -> None:
        """Give the hold back and book its charge."""
        purse = self._purse(hold.org)
        purse.held -= hold.amount
        purse.charged += charge
        self._look(hold.org, purse)

    def book(self, org: str, key: str, charge: int) -> None:
        """Add what was charged before these balances were attached."""
        if org not in self._exempt:
            self._purse(org).charged += charge

    def load(self, funds: Iterable[Funds]) -> None:
        """Take over what is stored, where it is newer than what is known."""
        for each in funds:
            purse = self._purse(each.org)
            if each.newest >= purse.newest:
                purse.credits, purse.newest = each.credits, each.newest
            if each.org not in self._exempt:  # their charges are not booked either
                purse.beyond = max(purse.beyond, each.beyond)
            if purse.funds >= self._low:
                purse.warned = False
            if purse.funds >= self._alarms.get(each.org, 0):
                self._rung.discard(each.org)

    def grant_postpaid(self, orgs: Collection[str]) -> None:
        """From now on exactly these have what their funds do not pay for billed by a meter."""
        for org in orgs:
            self._purse(org)
        for org, purse in self._of.items():
            purse.postpaid = org in orgs

    def set_alarms(self, alarms: dict[str, int]) -> None:
        """Tell whenever the balance of one of these falls below its amount in nano-USD."""
        self._rung -= {org for org in self._rung if alarms.get(org) != self._alarms.get(org)}
        self._alarms = alarms
        for org in alarms:
            self._look(org, self._purse(org))

    def balance(self, org: str) -> tuple[int, int]:
        """What an organization has in nano-USD, and what of it is held by calls under way."""
        purse = self._purse(org)
        return purse.funds, purse.held

    def is_stopped(self, org: str) -> bool:
        """Whether nothing is left for a call."""
        purse = self._purse(org)
        return not purse.postpaid and purse.funds - purse.held <= 0

    def charges(self) -> dict[str, int]:
        """What each was charged since `since`, in nano-USD."""
        return {org: purse.charged for org, purse in self._of.items() if purse.charged}

    def set_aside(self, org: str, most: int) -> int:
        """Take up to this much from what calls may still use, to take it back for good.

        What was taken is no longer held once `release` is called.
        """
        purse = self._purse(org)
        if not purse.postpaid:
            most = max(0, min(most, purse.funds - purse.held))
        purse.held += most
        return most

    def release(self, org: str, amount: int) -> None:
        """Give back what was set aside."""
        self._purse(org).held -= amount

    def _purse(self, org: str) -> _Purse:
        if (purse := self._of.get(org)) is None:
            purse = self._of[org] = _Purse()
        return purse

    def _look(self, org: str, purse: _Purse) -> None:
        if purse.funds < self._low and not purse.warned and not purse.postpaid:
            purse.warned = True
            message = f"the balance of {org} has fallen to {dollars(purse.funds)} USD"
            self._warn(Notice("balance_low", message, org=org))
        if purse.funds >= self._alarms.get(org, purse.funds):
            self._rung.discard(org)
        elif org not in self._rung:
            self._rung.add(org)
            self._fell(org)


def _refusal(hold: Hold, left: int) -> Refused:
    return Refused(
        429,
        "rate_limit",
        f"Balance exceeded: this call may cost up to {dollars(hold.amount)} USD, and"
        f" {dollars(max(0, left))} USD are left of the prepaid balance. Buy credit to go on.",
        headers={"x-should-retry": "false"},
    )
