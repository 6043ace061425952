"""What plans include: once for a period that was paid, however often plans are changed."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.storage import Database, make_database
from tollkeeper_billing import allowances
from tollkeeper_billing.draws import DAY, credits_of
from tollkeeper_billing.purses import read_purse

NOW = 1_795_564_800
MONTH = 30 * DAY
PERIOD = (NOW, NOW + MONTH)
YEAR = (NOW, NOW + 360 * DAY)


def grant(db: Any, amount: int, period: tuple[int, int] = PERIOD, now: int = NOW) -> int:
    """What it gives."""
    before = credits_of(db, "acme")
    assert allowances.grant(db, ("acme", period, amount), now) is (credits_of(db, "acme") > before)
    return credits_of(db, "acme") - before


def due(db: Any, now: int, *, good: bool = True) -> int:
    return allowances.lapsing(db, lambda _: good, now).get("acme", 0)


def test_an_allowance_is_granted_once_in_a_period(database: Database) -> None:
    with database.transaction() as db:
        assert [grant(db, 20) for _ in range(3)] == [20, 0, 0]
        assert grant(db, 20, now=NOW + MONTH - 1) == 0
        assert grant(db, 20, now=NOW + MONTH) == 0  # of a period that is over
        assert grant(db, 20, (NOW + MONTH, NOW + 2 * MONTH), NOW + MONTH + 9) == 20


def test_a_better_plan_adds_the_difference_for_the_time_that_is_left(database: Database) -> None:
    with database.transaction() as db:
        assert grant(db, 2000) == 2000
        assert grant(db, 5000, now=NOW + MONTH // 2) == 1500
        assert grant(db, 2000, now=NOW + MONTH // 2) == 0
        assert grant(db, 5000, now=NOW + MONTH - 10) == 0
        assert grant(db, 10**9, now=NOW + MONTH - 1) == (10**9 - 5000) // MONTH


def test_changing_intervals_to_and_fro_gives_the_better_one_once(database: Database) -> None:
    with database.transaction() as db:
        total = grant(db, 20)
        for hour in range(1, 20):
            at = NOW + hour * 3600
            total += grant(db, 240, (at, at + 360 * DAY), at)
            total += grant(db, 20, (at + 1800, at + 1800 + MONTH), at + 1800)
        assert total == 240
        assert read_purse(db, "acme").included_until == NOW + 3600 + 360 * DAY


def test_whoever_ends_a_plan_and_begins_anew_gets_what_is_left_of_the_time(
    database: Database,
) -> None:
    with database.transaction() as db:
        assert grant(db, 3000) == 3000
        allowances.lapse(db, "acme", 10**9, NOW + 5 * DAY)
        again = (NOW + 5 * DAY, NOW + 5 * DAY + MONTH)
        assert grant(db, 3000, again, NOW + 5 * DAY) == 0
        assert grant(db, 3000, again, NOW + MONTH) == 500
        assert grant(db, 3000, (again[1], again[1] + MONTH), again[1]) == 3000


def test_what_is_left_of_a_window_lapses_when_the_next_one_begins(database: Database) -> None:
    with database.transaction() as db:
        grant(db, 20)
        assert due(db, NOW + MONTH - 1) == 0
        assert due(db, NOW + MONTH + 60) == 0  # the next is being paid
        grant(db, 30, (NOW + MONTH, NOW + 2 * MONTH), NOW + MONTH + 3600)
        assert due(db, NOW + MONTH + 3600) == 20
        allowances.lapse(db, "acme", 15, NOW + MONTH + 3600)
        assert due(db, NOW + MONTH + 3600) == 5
        allowances.lapse(db, "acme", 5, NOW + MONTH + 3600)
        assert due(db, NOW + MONTH + 3600) == 0
        assert credits_of(db, "acme") == 30


def test_what_is_not_paid_in_time_lapses_and_so_does_what_has_no_plan(database: Database) -> None:
    with database.transaction() as db:
        grant(db, 20)
        assert due(db, NOW + 1, good=False) == 20
        assert due(db, NOW + MONTH + allowances.GRACE - 1) == 0
        assert due(db, NOW + MONTH + allowances.GRACE) == 20


def test_nothing_more_lapses_than_there_is(database: Database) -> None:
    with database.transaction() as db:
        grant(db, 20)
        for _ in range(3):
            allowances.lapse(db, "acme", 500, NOW)
        allowances.lapse(db, "other", 5, NOW)
        assert credits_of(db, "acme") == credits_of(db, "other") == 0


def test_many_are_granted_together_and_those_that_got_something_are_told(
    database: Database,
) -> None:
    with database.transaction() as db:
        some = [("acme", PERIOD, 20), ("other", PERIOD, 0), ("third", PERIOD, 5)]
        assert allowances.grant_all(db, some, NOW) == {"acme", "third"}
        assert allowances.grant_all(db, some, NOW) == set()


@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.integers(0, 60), st.integers(1, 400), st.integers(0, 40)),
        max_size=20,
    )
)
def test_no_more_is_given_in_a_window_than_the_best_plan_includes(
    steps: list[tuple[int, int, int, int]],
) -> None:
    opened = make_database("sqlite:///:memory:", Path("/"))
    opened.open()
    opened.migrate_package("billing", "tollkeeper_billing")
    now, given_in = NOW, 0
    with opened.transaction() as db:
        for amount, back, days, passed in steps:
            now += passed * DAY
            before = read_purse(db, "acme")
            given = grant(db, amount, (now - back * DAY, now - back * DAY + days * DAY), now)
            after = read_purse(db, "acme")
            given_in = given if now >= before.included_until and given else given_in + given
            assert given_in <= after.included_most or not given
            assert after.included - before.included == given
            assert after.included >= after.lapsing >= 0
    opened.close()
