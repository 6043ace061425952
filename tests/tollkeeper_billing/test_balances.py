"""The balances in memory: exact, never below nothing, whatever the order of what happens."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tollkeeper import Notice, Principal, Refused
from tollkeeper.amounts import NANO
from tollkeeper.ledger import Account, Hold
from tollkeeper_billing.balances import Balances, Funds


def hold(amount: int, org: str = "acme") -> Hold:
    return Hold(1, "att_1", "req_1", 1, org, "key_1", "m", "p/m", "v", amount, 1000)


def funded(credits: int, beyond: int = 0, **more: object) -> Balances:
    balances = Balances(0, ("default",), **more)  # type: ignore[arg-type]
    balances.load([Funds("acme", credits, 1, beyond)])
    return balances


def test_balances_are_an_account() -> None:
    assert isinstance(funded(1), Account)


def test_whoever_is_exempt_is_not_covered() -> None:
    balances = funded(1)
    assert balances.covers(Principal("acme", "key_1"))
    assert not balances.covers(Principal("default", "key_2"))
    balances.book("default", "key_2", 5)
    assert balances.balance("default") == (0, 0)


def test_what_is_held_and_spent_never_exceeds_the_funds() -> None:
    balances = funded(100)
    balances.reserve(hold(60))
    with pytest.raises(Refused) as refused:
        balances.reserve(hold(41))
    assert refused.value.status == 429
    assert refused.value.headers == {"x-should-retry": "false"}
    balances.reserve(hold(40))
    balances.settle(hold(60), 10)
    assert balances.balance("acme") == (90, 40)
    balances.reserve(hold(50))


def test_an_organization_that_is_not_known_has_nothing() -> None:
    balances = funded(100)
    with pytest.raises(Refused, match=r"0\.00 USD are left"):
        balances.reserve(hold(1, "other"))
    assert balances.is_stopped("other")
    assert not balances.is_stopped("acme")


def test_a_meter_pays_for_what_the_funds_do_not() -> None:
    balances = funded(1)
    balances.grant_postpaid({"acme"})
    balances.reserve(hold(1000))
    balances.settle(hold(1000), 900)
    assert balances.balance("acme") == (-899, 0)
    assert not balances.is_stopped("acme")
    balances.load([Funds("acme", 1, 1, 899)])
    assert balances.balance("acme") == (0, 0)
    balances.grant_postpaid(set())
    with pytest.raises(Refused):
        balances.reserve(hold(1))


def test_what_is_stored_is_taken_over_whatever_the_order_in_which_it_comes() -> None:
    balances = funded(100)
    balances.load([Funds("acme", 300, 3, 7)])
    balances.load([Funds("acme", 200, 2, 5)])
    assert balances.balance("acme") == (307, 0)


def test_what_is_set_aside_is_never_what_calls_hold() -> None:
    balances = funded(100)
    balances.reserve(hold(70))
    assert balances.set_aside("acme", 50) == 30
    with pytest.raises(Refused):
        balances.reserve(hold(1))
    balances.load([Funds("acme", 70, 2, 0)])
    balances.release("acme", 30)
    balances.settle(hold(70), 70)
    assert balances.balance("acme") == (0, 0)


def test_a_refund_can_leave_a_debt_that_stops_calls() -> None:
    balances = funded(100)
    balances.reserve(hold(80))
    balances.settle(hold(80), 80)
    balances.load([Funds("acme", 0, 2, 0)])
    assert balances.balance("acme") == (-80, 0)
    assert balances.is_stopped("acme")
    with pytest.raises(Refused, match=r" 0\.00 USD are left"):
        balances.reserve(hold(1))


def test_a_low_balance_is_told_once_until_it_rises() -> None:
    told: list[Notice] = []
    balances = funded(10 * NANO, low=5 * NANO, warn=told.append)
    for _ in range(3):
        balances.reserve(hold(2 * NANO))
        balances.settle(hold(2 * NANO), 2 * NANO)
    (notice,) = told
    assert (notice.kind, notice.org) == ("balance_low", "acme")
    assert "4.00 USD" in notice.message
    balances.load([Funds("acme", 20 * NANO, 2, 0)])
    balances.reserve(hold(10 * NANO))
    balances.settle(hold(10 * NANO), 10 * NANO)
    assert len(told) == 2


def test_an_alarm_rings_below_its_amount_and_when_it_is_set_there() -> None:
    rung: list[str] = []
    balances = funded(100, fell=rung.append)
    balances.set_alarms({"acme": 50})
    assert not rung
    balances.reserve(hold(51))
    assert not rung  # it may come back
    balances.settle(hold(51), 51)
    assert rung == ["acme"]
    balances.set_alarms({"acme": 49})
    assert rung == ["acme"]
    balances.set_alarms({"acme": 60})
    assert rung == ["acme", "acme"]


class BalanceMachine(RuleBasedStateMachine):
    """Any order of credits, holds, settlements and of what is set aside, beside a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.balances = Balances(0, ())
        self.credits = self.charged = self.newest = self.aside = 0
        self.holds: list[int] = []

    @rule(amount=st.integers(0, 50))
    def credit(self, amount: int) -> None:
        self.credits += amount
        self.newest += 1
        self.balances.load([Funds("acme", self.credits, self.newest, 0)])

    @rule(amount=st.integers(0, 30))
    def reserve(self, amount: int) -> None:
        fits = self.charged + self.aside + sum(self.holds) + amount <= self.credits
        try:
            self.balances.reserve(hold(amount))
        except Refused:
            assert not fits
        else:
            assert fits
            self.holds.append(amount)

    @precondition(lambda self: self.holds)
    @rule(share=st.floats(0, 1))
    def settle(self, share: float) -> None:
        amount = self.holds.pop()
        self.balances.settle(hold(amount), int(amount * share))
        self.charged += int(amount * share)

    @precondition(lambda self: not self.aside)
    @rule(amount=st.integers(0, 100))
    def set_aside(self, amount: int) -> None:
        self.aside = self.balances.set_aside("acme", amount)

    @precondition(lambda self: self.aside)
    @rule()
    def lapse(self) -> None:
        self.credits -= self.aside
        self.newest += 1
        self.balances.load([Funds("acme", self.credits, self.newest, 0)])
        self.balances.release("acme", self.aside)
        self.aside = 0

    @invariant()
    def nothing_is_spent_that_is_not_there(self) -> None:
        funds, held = self.balances.balance("acme")
        assert funds == self.credits - self.charged
        assert 0 <= held <= funds


TestBalances = BalanceMachine.TestCase
