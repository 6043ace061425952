"""The accounts that holds are reserved on: which of them refuse, and which only count."""

import logging
from collections.abc import Iterable, Sequence

from tollkeeper import Principal
from tollkeeper.ledger import Account
from tollkeeper_metering.entries import OpenHold

log = logging.getLogger("tollkeeper.metering")

MANY_CALLERS = 10_000


class Attached:
    """Accounts that one owner attached together."""

    def __init__(self, owner: str, accounts: Sequence[Account]) -> None:
        self.owner = owner
        self.accounts = accounts
        self.ready = False
        """Whether they know what was spent before."""


class Accounts:
    """All accounts that are attached. Those that an owner attached last refuse.

    Older ones of the same owner go on counting, for the newer may be taken back; so do new ones
    until they know what was spent before.
    """

    def __init__(self) -> None:
        self._attached: list[Attached] = []
        self._refusing: tuple[Account, ...] = ()
        self._counting: tuple[Account, ...] = ()
        self._covering: dict[tuple[str, str | None], tuple[Account, ...]] = {}
        """Of callers seen since these accounts were sorted."""

    def attach(self, attached: Attached, holds: Iterable[OpenHold]) -> None:
        """From now on these accounts miss nothing; they adopt the holds that are open."""
        self._attached.append(attached)
        for hold in holds:
            self._adopt(hold, attached.accounts)
        self._sort()

    def make_ready(self, attached: Attached) -> None:
        """They refuse, in the place of what their owner attached before."""
        attached.ready = True
        self._sort()

    def detach(self, attached: Attached) -> None:
        """They take no more holds, and settle those they have."""
        self._attached.remove(attached)
        self._sort()

    def _sort(self) -> None:
        newest = {each.owner: each for each in self._attached if each.ready}
        refusing = [each for each in self._attached if newest.get(each.owner) is each]
        counting = [each for each in self._attached if newest.get(each.owner) is not each]
        self._refusing = tuple([account for each in refusing for account in each.accounts])
        self._counting = tuple([account for each in counting for account in each.accounts])
        self._covering = {}

    def covering(self, principal: Principal) -> tuple[Account, ...]:
        """The accounts that may refuse a caller's holds."""
        who = principal.org, principal.key
        if (found := self._covering.get(who)) is None:
            if len(self._covering) >= MANY_CALLERS:
                self._covering.clear()
            found = tuple([account for account in self._refusing if account.covers(principal)])
            self._covering[who] = found
        return found

    def reserve(self, hold: OpenHold) -> None:
        """Take a hold on each account that covers it, or raise what one of them refuses it with."""
        taken = []
        try:
            for account in hold.covers:
                account.reserve(hold)
                taken.append(account)
        except BaseException:
            for account in taken:
                account.settle(hold, 0)
            raise
        if self._counting:
            self._adopt(hold, self._counting)

    def _adopt(self, hold: OpenHold, accounts: Iterable[Account]) -> None:
        principal = Principal(hold.org, hold.key or None)
        for account in accounts:
            if account.covers(principal):
                account.adopt(hold)
                hold.covers += (account,)

    def settle(self, hold: OpenHold, charge: int) -> None:
        """Give a hold back on each of its accounts, and book its charge."""
        for account in hold.covers:
            try:
                account.settle(hold, charge)
            except Exception:
                log.exception("an account crashed while a call was settled on it")
