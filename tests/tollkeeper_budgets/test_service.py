"""One budget, against a small model: never more spent and held than its amount."""

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tollkeeper import Notice, Principal, Refused
from tollkeeper.ledger import Account, Hold
from tollkeeper_budgets.service import FOREVER, Budget, period_at
from tollkeeper_budgets.settings import LimitSettings

NOON = int(datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp())  # a Wednesday
DAY = 86400


def limit(
    amount: str = "1", period: str = "day", scope: str = "gateway", **more: object
) -> LimitSettings:
    return LimitSettings.model_validate(
        {"scope": scope, "amount": amount, "period": period, **more}
    )


def hold(amount: int, *, at: int = NOON, org: str = "acme", key: str = "key_1") -> Hold:
    return Hold(1, "att_1", "req_1", 1, org, key, "m", "up/m", "toml:1", amount, at)


def unix(*date: int, zone: str = "UTC") -> int:
    return int(datetime(*date, tzinfo=ZoneInfo(zone)).timestamp())  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("at", "period", "zone", "begin", "end"),
    [
        (NOON, "day", "UTC", unix(2026, 11, 25), unix(2026, 11, 26)),
        (NOON, "week", "UTC", unix(2026, 11, 23), unix(2026, 11, 30)),
        (NOON, "month", "UTC", unix(2026, 11, 1), unix(2026, 12, 1)),
        (NOON, "total", "UTC", 0, FOREVER),
        (unix(2026, 12, 31, 23), "month", "UTC", unix(2026, 12, 1), unix(2027, 1, 1)),
        (unix(2024, 2, 29, 1), "month", "UTC", unix(2024, 2, 1), unix(2024, 3, 1)),
        (unix(2026, 11, 23), "week", "UTC", unix(2026, 11, 23), unix(2026, 11, 30)),
        (
            unix(2026, 11, 25, 19),
            "day",
            "Asia/Kolkata",
            unix(2026, 11, 26, zone="Asia/Kolkata"),
            unix(2026, 11, 27, zone="Asia/Kolkata"),
        ),
    ],
)
def test_periods_are_those_of_the_calendar(
    at: int, period: str, zone: str, begin: int, end: int
) -> None:
    assert period_at(at, period, ZoneInfo(zone)) == (begin, end)


def test_a_day_on_which_the_clock_changes_is_as_long_as_it_is() -> None:
    begin, end = period_at(unix(2026, 10, 25, 12), "day", ZoneInfo("Europe/Berlin"))
    assert end - begin == 25 * 3600
    begin, end = period_at(unix(2026, 3, 29, 12), "day", ZoneInfo("Europe/Berlin"))
    assert end - begin == 23 * 3600


def test_what_fits_is_taken_to_the_last_nano_usd_and_no_further() -> None:
    budget = Budget(limit("0.000000010"), NOON)
    budget.reserve(hold(4))
    budget.reserve(hold(6))
    with pytest.raises(Refused) as caught:
        budget.reserve(hold(1))
    assert (caught.value.status, caught.value.code) == (429, "rate_limit")
    budget.reserve(hold(0))


def test_a_refusal_names_the_budget_what_is_left_and_when_it_resets() -> None:
    budget = Budget(limit("5", scope="key", id="key_1"), NOON)
    budget.reserve(hold(4_500_000_000))
    with pytest.raises(Refused) as caught:
        budget.reserve(hold(600_000_000))
    assert caught.value.message == (
        "Budget exceeded: 5.00 USD per day for this key key_1. This call may cost up to 0.60 USD,"
        " and 0.50 USD are left. It resets at 2026-11-26T00:00:00Z."
    )
    assert caught.value.headers == {"x-should-retry": "false", "retry-after": "43200"}


def test_a_total_does_not_reset() -> None:
    budget = Budget(limit("1", "total"), NOON)
    with pytest.raises(Refused) as caught:
        budget.reserve(hold(2_000_000_000))
    assert caught.value.message.endswith("It does not reset.")
    assert "retry-after" not in caught.value.headers


def test_a_settled_hold_leaves_its_charge_and_gives_back_the_rest() -> None:
    budget = Budget(limit("0.000000010"), NOON)
    taken = hold(8)
    budget.reserve(taken)
    budget.settle(taken, 3)
    assert budget.left("", "") == 7


def test_a_charge_counts_in_the_period_in_which_its_call_began() -> None:
    budget = Budget(limit("0.000000010"), NOON)
    late = hold(8, at=NOON + DAY - 1)
    budget.reserve(hold(8))
    budget.reserve(late)
    assert budget.left("", "") == 2
    budget.settle(late, 8)
    assert budget.left("", "") == 2
    budget.reserve(hold(2, at=NOON + DAY))
    assert budget.left("", "") == 0


def test_what_is_forgotten_was_neither_held_nor_of_the_last_period() -> None:
    budget = Budget(limit("0.000000010"), NOON)
    kept = hold(5)
    budget.reserve(kept)
    for day in range(1, 4):
        budget.reserve(hold(1, at=NOON + day * DAY))
    budget.settle(kept, 5)
    assert budget.left("", "") == 9
    with pytest.raises(Refused):
        budget.reserve(hold(6))  # the clock went back three days: five are spent there


def test_before_its_first_period_a_budget_knows_nothing_and_counts_it_there() -> None:
    budget = Budget(limit("0.000000010"), NOON)
    budget.reserve(hold(10, at=NOON - 7 * DAY))
    assert budget.left("", "") == 0


@pytest.mark.parametrize(
    ("scope", "wanted", "principal", "covered"),
    [
        ("gateway", "*", Principal("acme"), True),
        ("org", "*", Principal("acme"), True),
        ("org", "acme", Principal("acme"), True),
        ("org", "acme", Principal("other"), False),
        ("key", "*", Principal("acme", "key_1"), True),
        ("key", "*", Principal("acme"), True),
        ("key", "key_1", Principal("acme", "key_1"), True),
        ("key", "key_1", Principal("acme", "key_2"), False),
        ("key", "key_1", Principal("acme"), False),
    ],
)
def test_a_budget_covers_whom_it_names(
    scope: str, wanted: str, principal: Principal, covered: bool
) -> None:
    assert Budget(limit(scope=scope, id=wanted), NOON).covers(principal) is covered


def test_each_key_and_org_has_an_amount_of_its_own() -> None:
    keys, orgs = (
        Budget(limit("0.000000010", scope="key"), NOON),
        Budget(limit("0.000000010", scope="org"), NOON),
    )
    for key in ("key_1", "key_2"):
        keys.reserve(hold(10, key=key))
    orgs.reserve(hold(10, key="key_1"))
    with pytest.raises(Refused):
        orgs.reserve(hold(1, key="key_2"))
    orgs.reserve(hold(10, org="other"))


def test_the_operator_is_told_once_in_a_period_when_enough_is_spent() -> None:
    told: list[Notice] = []
    budget = Budget(limit("0.000000010", scope="key", warn="0.5"), NOON, told.append)

    def spend(amount: int, at: int = NOON) -> None:
        taken = hold(amount, at=at)
        budget.reserve(taken)
        assert len(told) == told_before
        budget.settle(taken, amount)

    told_before = 0
    spend(4)
    spend(1)
    told_before = 1
    spend(5)
    assert [(notice.kind, notice.org, notice.key) for notice in told] == [
        ("budget_warning", "acme", "key_1")
    ]
    spend(5, NOON + DAY)
    assert len(told) == 2


def test_what_was_spent_before_is_not_told_again() -> None:
    told: list[Notice] = []
    budget = Budget(limit("0.000000010", warn="0.5"), NOON, told.append)
    budget.book("acme", "key_1", 6)
    taken = hold(1)
    budget.reserve(taken)
    budget.settle(taken, 1)
    assert told == []
    assert budget.left("", "") == 3


def test_a_budget_is_an_account() -> None:
    assert isinstance(Budget(limit(), NOON), Account)


MOST = 100


class BudgetMachine(RuleBasedStateMachine):
    """A budget of 100 nano-USD per key and day, beside a model that adds everything up."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.budget = Budget(limit("0.0000001", scope="key"), self.now)
        self.open: list[Hold] = []
        self.closed: list[tuple[Hold, int]] = []

    def model(self, at: int, key: str) -> tuple[int, int]:
        """What is spent and held of a key on the day of `at`."""
        day = max(at, self.budget.since) // DAY
        spent = sum(
            c for h, c in self.closed if (max(h.at, self.budget.since) // DAY, h.key) == (day, key)
        )
        held = sum(
            h.amount
            for h in self.open
            if (max(h.at, self.budget.since) // DAY, h.key) == (day, key)
        )
        return spent, held

    @rule(amount=st.integers(0, 60), key=st.sampled_from(["a", "b"]))
    def reserve(self, amount: int, key: str) -> None:
        asked = hold(amount, at=self.now, key=key)
        spent, held = self.model(self.now, key)
        try:
            self.budget.reserve(asked)
        except Refused:
            assert spent + held + amount > MOST, "what fits was refused"
        else:
            assert spent + held + amount <= MOST, "more than there is was taken"
            self.open.append(asked)

    @precondition(lambda self: bool(self.open))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        ended = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        charge = data.draw(st.integers(0, ended.amount))
        self.budget.settle(ended, charge)
        self.closed.append((ended, charge))

    @rule(seconds=st.sampled_from([1, 3600, DAY]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([1, 3600]))
    def step_back(self, seconds: int) -> None:
        self.now -= seconds

    @rule()
    def restart(self) -> None:
        """A new budget of the same limit, as after a reload: it adopts what it finds."""
        budget = Budget(limit("0.0000001", scope="key"), self.now)
        for taken in self.open:
            budget.adopt(taken)
        for ended, charge in self.closed:
            if ended.at >= budget.since:
                budget.book(ended.org, ended.key, charge)
        self.budget = budget
        self.closed = [(h, c) for h, c in self.closed if h.at >= budget.since]

    @invariant()
    def never_more_than_there_is(self) -> None:
        for key in ("a", "b"):
            spent, held = self.model(self.now, key)
            assert spent + held <= MOST or any(h.at < self.budget.since for h in self.open)


BudgetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBudget = BudgetMachine.TestCase


def test_amounts_finer_than_a_nano_usd_are_cut() -> None:
    assert limit("0.0000000019").nanousd == 1
    assert limit("1", warn="0.8").warn_nanousd == int(Decimal("0.8") * 10**9)
