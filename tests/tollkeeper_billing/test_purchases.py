"""Credits: each source once, and of a payment that went back the right share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.storage import Database
from tollkeeper_billing import purchases
from tollkeeper_billing.balances import Funds
from tollkeeper_billing.purchases import Offer, share

NOW = 1_795_564_800


@given(st.integers(0, 10**18), st.integers(0, 10**8), st.integers(1, 10**8))
def test_the_share_is_all_of_it_for_all_of_the_money_and_never_more(
    credit: int, back: int, paid: int
) -> None:
    found = share(credit, back, paid)
    assert 0 <= found <= credit
    assert share(credit, paid, paid) == credit
    assert share(credit, 0, paid) == 0
    assert found * paid >= min(credit * back, credit * paid)  # in doubt for whoever sold it


def test_nothing_was_paid_so_nothing_goes_back() -> None:
    assert share(100, 100, 0) == 0


def test_a_source_counts_once(database: Database) -> None:
    with database.transaction() as db:
        assert purchases.add_credit(db, ("acme", "grant", 5), "one", "", NOW)
        assert not purchases.add_credit(db, ("acme", "grant", 5), "one", "", NOW)
        assert purchases.add_credit(db, ("acme", "grant", -2), "two", "", NOW)
        assert purchases.read_funds(db) == [Funds("acme", 3, 2, 0)]
        assert purchases.read_funds(db, ["other"]) == []


def test_a_checkout_is_found_by_its_session_before_its_own_id(database: Database) -> None:
    with database.transaction() as db:
        first = purchases.open_checkout(db, ("acme", "cus_1"), Offer("pack", "small"), "u", NOW).id
        other = purchases.open_checkout(db, ("acme", "cus_1"), Offer("pack", "small"), "u", NOW).id
        purchases.note_session(db, first, "cs_1")
        found = purchases.find_checkout(db, session="cs_1", checkout=other)
        assert found is not None
        assert found.id == first
        found = purchases.find_checkout(db, session="cs_2", checkout=other)
        assert found is not None
        assert found.id == other
        assert purchases.find_checkout(db, session="cs_2") is None
        assert purchases.find_checkout(db) is None
        with pytest.raises(LookupError):
            purchases.get_checkout(db, "co_none")


def test_what_was_closed_counts_as_paid_should_it_be_paid_after_all(database: Database) -> None:
    with database.transaction() as db:
        offer = Offer("pack", "small", 1000, 7)
        checkout = purchases.open_checkout(db, ("acme", "cus_1"), offer, "u", NOW).id
        purchases.close_checkout(db, checkout)
        closed = purchases.get_checkout(db, checkout)
        assert closed.status == "closed"
        assert purchases.settle_payment(db, closed, "pi_1", 1000, NOW)
        paid = purchases.get_checkout(db, checkout)
        assert not purchases.settle_payment(db, paid, "pi_1", 1000, NOW)
        purchases.close_checkout(db, checkout)
        assert purchases.get_checkout(db, checkout).status == "paid"
        assert purchases.read_funds(db)[0].credits == 7
