"""What charges are drawn from, exactly once and in the right order."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper import PluginError
from tollkeeper.storage import Database, make_database
from tollkeeper_billing import allowances, draws
from tollkeeper_billing.customers import Standing
from tollkeeper_billing.draws import DAY, Terms
from tollkeeper_billing.models import Draw, MeterEvent
from tollkeeper_billing.purchases import add_credit, read_funds
from tollkeeper_billing.purses import credits_of, read_purse
from tollkeeper_billing.settings import CENT

NOW = 1_795_564_800 + 10 * 3600
TODAY = 1_795_564_800
PREPAID = Terms()
METERED = Terms("cus_1", "usd_cents")
PERIOD = (TODAY - 5 * DAY, TODAY + 25 * DAY)


def buy(db: Any, amount: int, source: str = "co_1") -> None:
    assert add_credit(db, ("acme", "pack", amount), source, "", NOW)


def include(db: Any, amount: int, at: int = 0) -> None:
    start, end = PERIOD[0] + at, PERIOD[1] + at
    has = Standing("acme", "", "", status="active", period_start=start, period_end=end)
    line = allowances.Line("price", f"sub_{at % 3}", 1, start, end, is_part=False)
    invoice = allowances.Invoice(f"in_{at}", "paid", "sub", (line,))
    seen = allowances.Seen(has, [invoice], ())
    allowances.grant(db, seen, {"price": allowances.Offer(amount)}, NOW)


def draw(db: Any, charged: int, terms: Terms = PREPAID, day: int = TODAY) -> bool:
    return draws.draw(db, day, [("acme", charged)], lambda _: terms, NOW) == {"acme"}


def left(db: Any) -> int:
    (funds,) = read_funds(db)
    return funds.credits + funds.beyond - read_purse(db, "acme").charged


def events(db: Any) -> list[tuple[Any, ...]]:
    columns = (MeterEvent.units, MeterEvent.identifier, MeterEvent.at)
    return list(MeterEvent.select(*columns).order_by(MeterEvent.id).tuples().execute(db))


def test_what_is_looked_at_again_is_not_drawn_again(database: Database) -> None:
    with database.transaction() as db:
        buy(db, 100)
        assert draw(db, 30)
        assert not draw(db, 30)
        assert not draw(db, 20)  # an older look that comes late
        assert draw(db, 31)
        assert left(db) == 69


def test_an_allowance_goes_first_then_credit_then_the_meter(database: Database) -> None:
    with database.transaction() as db:
        buy(db, 5 * CENT)
        include(db, 3 * CENT)
        draw(db, 2 * CENT, METERED)
        assert (read_purse(db, "acme").included, left(db)) == (CENT, 6 * CENT)
        draw(db, 8 * CENT, METERED)
        purse = read_purse(db, "acme")
        assert (purse.included, purse.metered, left(db)) == (0, 0, 0)
        draw(db, 10 * CENT + 5, METERED)
        assert read_purse(db, "acme").metered == 2 * CENT + 5
        assert left(db) == 0
        assert events(db) == [(2, f"acme-{TODAY}-0-2", NOW)]


def test_what_is_less_than_a_cent_goes_into_the_next_event(database: Database) -> None:
    with database.transaction() as db:
        for tenths in range(1, 26):
            draw(db, tenths * CENT // 10, METERED)
            MeterEvent.update(tries=1).execute(db)
        assert [units for units, _, _ in events(db)] == [1, 1]
        purse = read_purse(db, "acme")
        assert (purse.units, purse.metered) == (2, 25 * CENT // 10)


def test_what_was_never_tried_takes_along_what_comes_after_it(database: Database) -> None:
    with database.transaction() as db:
        draw(db, 3 * CENT, METERED)
        draw(db, 5 * CENT, METERED)
        assert events(db) == [(5, f"acme-{TODAY}-0-5", NOW)]
        for state in ({"state": "unsure", "tries": 1}, {"state": "dead", "tries": 0}):
            MeterEvent.update(state).execute(db)
            draw(db, read_purse(db, "acme").charged + CENT, METERED)
        assert [units for units, _, _ in events(db)] == [5, 1, 1]


def test_without_a_meter_what_credit_does_not_pay_for_is_a_debt(database: Database) -> None:
    with database.transaction() as db:
        buy(db, 10)
        draw(db, 25)
        assert left(db) == -15
        buy(db, 20, "co_2")
        draw(db, 30, METERED)
        assert left(db) == 0
        assert read_purse(db, "acme").metered == 0


def test_a_debt_is_billed_by_a_meter_that_comes_later(database: Database) -> None:
    with database.transaction() as db:
        buy(db, 10)
        draw(db, 25)
        assert left(db) == -15
        draw(db, 40, METERED)
        assert read_purse(db, "acme").metered == 30
        assert left(db) == 0


def test_usage_of_a_period_that_was_billed_is_told_as_of_the_next(database: Database) -> None:
    with database.transaction() as db:
        draw(db, 2 * CENT, Terms("cus_1", "usd_cents", begin=TODAY + 60), TODAY - DAY)
        assert [at for _, _, at in events(db)] == [TODAY + 60]


def test_only_what_is_new_is_to_be_drawn(database: Database) -> None:
    with database.transaction() as db:
        draw(db, 5)
        charged = {"acme": 5, "other": 1}
        assert draws.undrawn(db, TODAY, charged) == [("other", 1)]
        assert draws.undrawn(db, TODAY - DAY, {"acme": 1}) == [("acme", 1)]


def test_one_database_is_of_one_mode_of_stripe(database: Database) -> None:
    with database.transaction() as db:
        draws.begin(db, NOW, livemode=False)
        draws.begin(db, NOW, livemode=False)
        with pytest.raises(PluginError, match=r"test mode.*live mode.*another database"):
            draws.begin(db, NOW, livemode=True)


def test_whoever_is_exempt_is_drawn_from_nothing(database: Database) -> None:
    with database.transaction() as db:
        draw(db, 500, Terms(exempt=True))
        assert left(db) == 0
        buy(db, 100)
        draw(db, 530)
        assert left(db) == 70
        assert events(db) == []


def test_a_late_charge_counts_on_the_day_in_which_its_call_began(database: Database) -> None:
    with database.transaction() as db:
        draw(db, 3 * CENT, METERED, TODAY - DAY)
        draw(db, 2 * CENT, METERED)
        draw(db, 4 * CENT, METERED, TODAY - DAY)
        assert [(units, at) for units, _, at in events(db)] == [(4, TODAY - 1), (2, NOW)]
        days = dict(Draw.select(Draw.day, Draw.charged_nanousd).tuples().execute(db))
        assert days == {TODAY - DAY: 4 * CENT, TODAY: 2 * CENT}


def test_nobody_owes_for_the_part_of_the_hour_before_billing_began(database: Database) -> None:
    with database.transaction() as db:
        assert draws.since(db) is None
        assert draws.begin(db, NOW + 1800, livemode=False) == NOW
        assert draws.begin(db, NOW + 99_999, livemode=False) == NOW
        draws.write_off(db, {"acme": 42}, NOW)
        draws.write_off(db, {"acme": 43, "other": 1}, NOW)
        draw(db, 42)
        assert left(db) == 0


def test_days_are_looked_at_again_while_they_may_grow(database: Database) -> None:
    with database.transaction() as db:
        begun = TODAY - 100 * DAY
        assert draws.first_day(db, begun, NOW) == begun
        draw(db, 5)
        assert draws.first_day(db, begun, NOW) == TODAY - 3 * DAY
        assert draws.first_day(db, begun, NOW + 30 * DAY) == TODAY - 3 * DAY
        assert draws.first_day(db, NOW, NOW) == TODAY


AMOUNTS = st.lists(
    st.one_of(
        st.tuples(st.just("buy"), st.integers(1, 10 * CENT)),
        st.tuples(st.just("use"), st.integers(0, 10 * CENT)),
        st.tuples(st.just("grant"), st.integers(1, 10 * CENT)),
        st.tuples(st.just("lapse"), st.integers(1, 10 * CENT)),
    ),
    max_size=25,
)


@given(steps=AMOUNTS)
def test_every_nano_dollar_is_drawn_from_one_place(steps: list[tuple[str, int]]) -> None:
    opened = make_database("sqlite:///:memory:", Path("/"))
    opened.open()
    opened.migrate_package("billing", "tollkeeper_billing")
    credits = charged = granted = lapsed = 0
    with opened.transaction() as db:
        for at, (what, amount) in enumerate(steps):
            if what == "buy":
                buy(db, amount, f"co_{at}")
                credits += amount
            elif what == "use":
                charged += amount
                draw(db, charged, METERED)
            elif what == "grant":
                before = credits_of(db, "acme")
                include(db, amount, at)
                granted += credits_of(db, "acme") - before
            else:
                before = credits_of(db, "acme")
                allowances.lapse(db, "acme", amount, NOW)
                lapsed += before - credits_of(db, "acme")
            purse = read_purse(db, "acme")
            assert purse.charged == charged
            assert purse.included >= 0
            assert purse.included >= purse.lapsing >= 0
            assert credits_of(db, "acme") == credits + granted - lapsed
            assert sum(units for units, _, _ in events(db)) == purse.metered // CENT
            identifiers = [name for _, name, _ in events(db)]
            assert len(set(identifiers)) == len(identifiers)
    opened.close()
