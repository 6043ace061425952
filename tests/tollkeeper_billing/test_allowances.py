"""What plans include: once for a period that was paid, however often plans are changed."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.storage import Database, make_database
from tollkeeper_billing import allowances
from tollkeeper_billing.allowances import Due
from tollkeeper_billing.customers import begin_customer
from tollkeeper_billing.draws import DAY, credits_of
from tollkeeper_billing.models import Customer
from tollkeeper_billing.purses import read_purse, write_purse

NOW = 1_795_564_800
MONTH = 30 * DAY
PERIOD = (NOW, NOW + MONTH)
NEXT = (NOW + MONTH, NOW + 2 * MONTH)


def grant(
    db: Any, amount: int, period: tuple[int, int] = PERIOD, now: int = NOW, of: str = "sub"
) -> int:
    """What it gives; a plan is known by what it includes."""
    before = credits_of(db, "acme")
    due = Due("acme", of, f"plan{amount}", *period, amount)
    assert allowances.grant(db, due, now) is (credits_of(db, "acme") != before)
    return credits_of(db, "acme") - before


def stands(db: Any, subscription: str = "sub", status: str = "active") -> None:
    """How Stripe showed it last."""
    begin_customer(db, "acme", "")
    Customer.update(subscription=subscription, status=status).execute(db)


def due(db: Any, now: int) -> int:
    return allowances.lapsing(db, now).get("acme", 0)


def use(db: Any, amount: int) -> None:
    """Draw from the allowance."""
    purse = read_purse(db, "acme")
    purse.included -= amount
    write_purse(db, "acme", purse)


def test_an_allowance_is_granted_once_in_a_period(database: Database) -> None:
    with database.transaction() as db:
        assert [grant(db, 20) for _ in range(3)] == [20, 0, 0]
        assert grant(db, 20, now=NOW + MONTH - 1) == 0
        assert [grant(db, 20, NEXT, NOW + MONTH + 9) for _ in range(3)] == [20, 0, 0]
        assert grant(db, 20) == 0  # a look at Stripe that comes late


def test_a_better_plan_adds_the_difference_for_the_time_that_is_left(database: Database) -> None:
    with database.transaction() as db:
        assert grant(db, 2000) == 2000
        assert grant(db, 5000, now=NOW + MONTH // 2) == 1500
        assert grant(db, 5000, now=NOW + MONTH - 10) == 0
        assert grant(db, 5000, NEXT, NOW + MONTH) == 5000


def test_a_lesser_plan_takes_the_difference_also_of_what_is_used_up(database: Database) -> None:
    with database.transaction() as db:
        assert grant(db, 5000) == 5000
        use(db, 4000)
        assert grant(db, 2000, now=NOW + MONTH // 2) == -1500
        assert read_purse(db, "acme").included == 0
        assert grant(db, 5000, now=NOW + MONTH // 2) == 1500


def test_what_a_plan_includes_is_not_changed_within_a_period(database: Database) -> None:
    with database.transaction() as db:
        assert grant(db, 20) == 20
        for amount in (30, 10):
            assert not allowances.grant(db, Due("acme", "sub", "plan20", *PERIOD, amount), NOW)
        assert allowances.grant(db, Due("acme", "sub", "plan20", *NEXT, 30), NOW + MONTH)
        assert credits_of(db, "acme") == 50


def test_another_interval_credits_what_is_left_of_the_old_one(database: Database) -> None:
    with database.transaction() as db:
        assert grant(db, 3000) == 3000
        at = NOW + MONTH // 2
        assert grant(db, 36000, (at, at + 12 * MONTH), at + 60) == 36000 - 1500
        assert read_purse(db, "acme").included == 37500
        assert due_of_old(db) == 1500
        use(db, 37500)
        back = at + 6 * MONTH
        assert grant(db, 3000, (back, back + MONTH), back) == 3000 - 18000
        assert read_purse(db, "acme").included == 0


def due_of_old(db: Any) -> int:
    """What lapses of an earlier period while the plan goes on."""
    stands(db)
    return due(db, NOW + MONTH // 2)


def test_whoever_ends_a_plan_and_buys_another_has_what_that_includes(database: Database) -> None:
    with database.transaction() as db:
        stands(db)
        assert grant(db, 3000) == 3000
        stands(db, "", "")
        assert due(db, NOW + 5 * DAY) == 3000
        allowances.lapse(db, "acme", 10**9, NOW + 5 * DAY)
        again = (NOW + 5 * DAY, NOW + 5 * DAY + MONTH)
        assert grant(db, 3000, again, NOW + 5 * DAY, "other") == 3000
        assert grant(db, 3000, now=NOW + 6 * DAY) == 0  # the old one does not come back
        assert grant(db, 3000, again, NOW + 6 * DAY, "other") == 0
        assert credits_of(db, "acme") == 3000


def test_what_is_left_of_a_period_lapses_when_the_next_one_begins(database: Database) -> None:
    with database.transaction() as db:
        stands(db)
        grant(db, 20)
        assert due(db, NOW + MONTH - 1) == 0
        assert due(db, NOW + MONTH + 60) == 0  # the next is being paid
        grant(db, 30, NEXT, NOW + MONTH + 3600)
        assert due(db, NOW + MONTH + 3600) == 20
        allowances.lapse(db, "acme", 15, NOW + MONTH + 3600)
        assert due(db, NOW + MONTH + 3600) == 5
        allowances.lapse(db, "acme", 50, NOW + MONTH + 3600)
        assert due(db, NOW + MONTH + 3600) == 0
        assert credits_of(db, "acme") == 30


def test_what_is_paid_stays_until_its_period_is_over_whatever_else_is_owed(
    database: Database,
) -> None:
    with database.transaction() as db:
        grant(db, 20)
        for status in ("past_due", "unpaid", "paused", "incomplete"):
            stands(db, status=status)
            assert (due(db, NOW + 1), due(db, NOW + MONTH)) == (0, 20)
        stands(db)
        assert due(db, NOW + MONTH + allowances.GRACE - 1) == 0
        assert due(db, NOW + MONTH + allowances.GRACE) == 20


def test_nothing_more_lapses_than_there_is_or_than_is_over_by_now(database: Database) -> None:
    with database.transaction() as db:
        stands(db)
        grant(db, 20)
        allowances.lapse(db, "acme", 500, NOW)  # looked up before it was granted
        assert credits_of(db, "acme") == 20
        stands(db, "", "")
        for _ in range(3):
            allowances.lapse(db, "acme", 500, NOW)
        allowances.lapse(db, "other", 5, NOW)
        assert credits_of(db, "acme") == credits_of(db, "other") == 0


def test_many_are_granted_together_and_those_that_got_something_are_told(
    database: Database,
) -> None:
    with database.transaction() as db:
        some = [
            Due(org, f"sub_{org}", "pro", *PERIOD, amount)
            for org, amount in (("acme", 20), ("other", 0), ("third", 5))
        ]
        assert allowances.grant_all(db, some, NOW) == {"acme", "third"}
        assert allowances.grant_all(db, some, NOW) == set()


PLANS = ((20_000, MONTH), (100_000, MONTH), (0, MONTH), (240_000, 12 * MONTH))


@given(st.lists(st.tuples(st.sampled_from(PLANS), st.integers(0, 40 * 86400)), max_size=20))
def test_changing_to_and_fro_gives_what_stripe_charges_for(
    steps: list[tuple[tuple[int, int], int]],
) -> None:
    opened = make_database("sqlite:///:memory:", Path("/"))
    opened.open()
    opened.migrate_package("billing", "tollkeeper_billing")
    amount, length = PLANS[0]
    now = start = NOW
    with opened.transaction() as db:
        given_so_far = grant(db, amount)
        earned = 0.0
        for (then, lasts), passed in steps:
            while start + length <= now + passed:  # renewals
                earned += amount * (start + length - now) / length
                passed -= start + length - now
                now = start = start + length
                given_so_far += grant(db, amount, (start, start + length), now)
            earned += amount * passed / length
            now += passed
            if lasts != length:
                start = now
            amount, length = then, lasts
            given_so_far += grant(db, amount, (start, start + length), now)
            ahead = amount * (start + length - now) / length
            assert abs(given_so_far - earned - ahead) <= 2 * (len(steps) + 1)
            purse = read_purse(db, "acme")
            assert purse.included >= purse.lapsing >= 0
    opened.close()
