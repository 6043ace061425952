"""One budget: what it covers, what is spent and held of it. Never more in sum than its amount."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from tollkeeper import Notice, Principal, Refused
from tollkeeper.amounts import dollars
from tollkeeper.ledger import Hold
from tollkeeper_budgets.settings import LimitSettings

FOREVER = 2**62


def period_at(at: int, period: str, zone: tzinfo) -> tuple[int, int]:
    """Unix seconds of the begin and end of the calendar period in which `at` falls."""
    if period == "total":
        return 0, FOREVER
    day = datetime.fromtimestamp(at, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        end = day + timedelta(days=1)
    elif period == "week":
        day -= timedelta(days=day.weekday())
        end = day + timedelta(days=7)
    else:
        day = day.replace(day=1)
        end = (day + timedelta(days=32)).replace(day=1)
    return int(day.timestamp()), int(end.timestamp())


class _Spending:
    """What one key, org or gateway has spent and holds in one period."""

    __slots__ = ("held", "spent", "warned")

    def __init__(self) -> None:
        self.held = self.spent = 0
        self.warned = False


class Budget:
    """A limit, as an account that holds are reserved on. See `tollkeeper.ledger.Account`."""

    def __init__(
        self, limit: LimitSettings, now: int, warn: Callable[[Notice], None] = lambda _: None
    ) -> None:
        self._limit = limit
        self._scope = limit.scope
        self._most = limit.nanousd
        self._warn_at = limit.warn_nanousd
        self._warn = warn
        self._zone = UTC if limit.timezone == "UTC" else ZoneInfo(limit.timezone)
        self._begin, self._end = period_at(now, limit.period, self._zone)
        self.since = self._begin
        """Unix seconds: the begin of the period that was running when this was made."""
        self._of: dict[tuple[int, str], _Spending] = {}

    def covers(self, principal: Principal) -> bool:
        """Whether calls of this caller count. Callers without a key share one limit of keys."""
        scope, wanted = self._limit.scope, self._limit.id
        if scope == "gateway" or wanted == "*":
            return True
        return wanted == (principal.org if scope == "org" else principal.key)

    def reserve(self, hold: Hold) -> None:
        """Take the hold's amount, or raise `Refused` 429 and take nothing."""
        spending = self._spending(hold)
        if spending.spent + spending.held + hold.amount > self._most:
            raise self._refusal(hold, spending)
        spending.held += hold.amount

    def adopt(self, hold: Hold) -> None:
        """Count a hold that was open before: it fits or not, it is there."""
        self._spending(hold).held += hold.amount

    def settle(self, hold: Hold, charge: int) -> None:
        """Give the hold back and book its charge."""
        spending = self._spending(hold)
        spending.held -= hold.amount
        spending.spent += charge
        if self._warn_at is not None and spending.spent >= self._warn_at and not spending.warned:
            spending.warned = True
            self._warn(self._notice(hold, spending))

    def book(self, org: str, key: str, charge: int) -> None:
        """Add what was charged in the running period before this budget was attached."""
        where = (self.since, self._subject(org, key))
        spending = self._of.setdefault(where, _Spending())
        spending.spent += charge
        spending.warned = self._warn_at is not None and spending.spent >= self._warn_at

    def left(self, org: str, key: str) -> int:
        """Nano-USD that the newest period has left for somebody."""
        spending = self._of.get((self._begin, self._subject(org, key)))
        return self._most if spending is None else self._most - spending.spent - spending.held

    def _subject(self, org: str, key: str) -> str:
        scope = self._scope
        return key if scope == "key" else org if scope == "org" else ""

    def _spending(self, hold: Hold) -> _Spending:
        begin = self._begin if self._begin <= hold.at < self._end else self._begin_of(hold.at)
        where = (begin, self._subject(hold.org, hold.key))
        if (spending := self._of.get(where)) is None:
            spending = self._of[where] = _Spending()
        return spending

    def _begin_of(self, at: int) -> int:
        """Of another period than the newest; what is newer yet becomes the newest."""
        at = max(at, self.since)  # what was before is not known, should the clock go back
        begin, end = period_at(at, self._limit.period, self._zone)
        if begin > self._begin:
            self._turn(begin, end)
        return begin

    def _turn(self, begin: int, end: int) -> None:
        """A new period: what is neither of it nor of the last one, nor held, is forgotten."""
        last, self._begin, self._end = self._begin, begin, end
        self._of = {w: s for w, s in self._of.items() if w[0] >= last or s.held}

    @property
    def _name(self) -> str:
        limit = self._limit
        whose = (
            limit.scope
            if limit.id == "*" or limit.scope == "gateway"
            else (f"{limit.scope} {limit.id}")
        )
        often = "in total" if limit.period == "total" else f"per {limit.period}"
        return f"{dollars(self._most)} USD {often} for this {whose}"

    def _refusal(self, hold: Hold, spending: _Spending) -> Refused:
        left = self._most - spending.spent - spending.held
        headers = {"x-should-retry": "false"}
        resets = "It does not reset."
        if self._limit.period != "total":
            end = datetime.fromtimestamp(self._end, UTC)
            resets = f"It resets at {end:%Y-%m-%dT%H:%M:%SZ}."
            headers["retry-after"] = str(max(1, self._end - hold.at))
        return Refused(
            429,
            "rate_limit",
            f"Budget exceeded: {self._name}. This call may cost up to {dollars(hold.amount)} USD,"
            f" and {dollars(left)} USD are left. {resets}",
            headers=headers,
        )

    def _notice(self, hold: Hold, spending: _Spending) -> Notice:
        scope = self._limit.scope
        return Notice(
            "budget_warning",
            f"{dollars(spending.spent)} USD are spent of the budget of {self._name}",
            org="" if scope == "gateway" else hold.org,
            key=hold.key if scope == "key" else "",
        )
