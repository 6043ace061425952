"""Which accounts refuse a hold, and which only count it."""

from decimal import Decimal

import pytest

from tollkeeper import PriceSettings, Principal, Refused
from tollkeeper.ledger import Hold
from tollkeeper_metering import accounts as module
from tollkeeper_metering.accounts import Accounts, Attached
from tollkeeper_metering.entries import OpenHold
from tollkeeper_metering.prices import make_price

PRICE = make_price(PriceSettings(input=Decimal(1), output=Decimal(1)), "toml")
WHO = Principal("acme", "key_1")


class Purse:
    """An account that says what became of it."""

    since = 0

    def __init__(self, most: int = 10**9, org: str = "acme") -> None:
        self.most, self.org = most, org
        self.held = self.spent = 0

    def covers(self, principal: Principal) -> bool:
        return principal.org == self.org

    def reserve(self, hold: Hold) -> None:
        if self.held + self.spent + hold.amount > self.most:
            raise Refused(429, "rate_limit", "too much")
        self.held += hold.amount

    def adopt(self, hold: Hold) -> None:
        self.held += hold.amount

    def settle(self, hold: Hold, charge: int) -> None:
        self.held -= hold.amount
        self.spent += charge

    def book(self, org: str, key: str, charge: int) -> None:
        self.spent += charge


def hold_for(accounts: Accounts, amount: int = 10) -> OpenHold:
    named = ("acme", "key_1", "m", "up/m", PRICE.version)
    covers = accounts.covering(WHO)
    return OpenHold(1, "att", "req", 1, *named, amount, 0, PRICE, covers, bool(covers))


def attach(accounts: Accounts, owner: str, *purses: Purse, ready: bool = True) -> Attached:
    attached = Attached(owner, purses)
    accounts.attach(attached, ())
    if ready:
        accounts.make_ready(attached)
    return attached


def test_a_hold_is_taken_on_every_account_that_covers_it_and_given_back() -> None:
    accounts, mine, other = Accounts(), Purse(), Purse(org="other")
    attach(accounts, "a", mine, other)
    hold = hold_for(accounts)
    accounts.reserve(hold)
    assert (mine.held, other.held) == (10, 0)
    accounts.settle(hold, 7)
    assert (mine.held, mine.spent, other.spent) == (0, 7, 0)


def test_where_one_account_refuses_none_keeps_anything() -> None:
    accounts, rich, poor = Accounts(), Purse(), Purse(5)
    attach(accounts, "a", rich)
    attach(accounts, "b", poor)
    with pytest.raises(Refused):
        accounts.reserve(hold_for(accounts))
    assert (rich.held, poor.held) == (0, 0)


def test_accounts_that_do_not_know_the_past_yet_count_and_do_not_refuse() -> None:
    accounts, new = Accounts(), Purse(5)
    attached = attach(accounts, "a", new, ready=False)
    accounts.reserve(hold_for(accounts))
    assert new.held == 10
    accounts.make_ready(attached)
    with pytest.raises(Refused):
        accounts.reserve(hold_for(accounts))


def test_the_newest_accounts_of_an_owner_refuse_and_older_ones_go_on_counting() -> None:
    accounts, old, new = Accounts(), Purse(15), Purse(100)
    attach(accounts, "a", old)
    newer = attach(accounts, "a", new)
    holds = [hold_for(accounts) for _ in range(2)]
    for hold in holds:
        accounts.reserve(hold)
    assert (old.held, new.held) == (20, 20)
    accounts.detach(newer)
    with pytest.raises(Refused):
        accounts.reserve(hold_for(accounts))


def test_an_account_that_is_attached_adopts_what_it_covers_of_what_is_open() -> None:
    accounts, late, other = Accounts(), Purse(), Purse(org="other")
    hold = hold_for(accounts)
    accounts.reserve(hold)
    accounts.attach(Attached("a", (late, other)), [hold])
    assert (late.held, other.held) == (10, 0)
    assert not hold.bounded
    accounts.settle(hold, 3)
    assert (late.held, late.spent) == (0, 3)


def test_who_covers_a_caller_is_asked_again_only_once_the_accounts_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MANY_CALLERS", 2)
    accounts, mine = Accounts(), Purse()
    asked: list[str | None] = []

    def covers(principal: Principal) -> bool:
        asked.append(principal.key)
        return True

    monkeypatch.setattr(mine, "covers", covers)
    attached = attach(accounts, "a", mine)
    for key in ["1", "1", "2", "2", "3", "1"]:
        assert accounts.covering(Principal("acme", key)) == (mine,)
    assert asked == ["1", "2", "3", "1"]  # only so many callers are remembered
    accounts.detach(attached)
    assert accounts.covering(Principal("acme", "1")) == ()
