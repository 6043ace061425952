"""What plans include: what paid invoices charge for, each once, until its time is over."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.storage import Database, make_database
from tollkeeper_billing import allowances
from tollkeeper_billing.allowances import Invoice, Line, Offer, Seen
from tollkeeper_billing.customers import Standing, begin_customer, standing
from tollkeeper_billing.draws import DAY
from tollkeeper_billing.models import Customer
from tollkeeper_billing.purchases import add_credit
from tollkeeper_billing.purses import credits_of, read_purse, write_purse

NOW = 1_795_564_800
MONTH = 30 * DAY
HALF = NOW + MONTH // 2
ONE, TWO, THREE = (((NOW + n * MONTH), NOW + (n + 1) * MONTH) for n in range(3))
OFFERS = {
    "pro": Offer(2000),
    "big": Offer(10_000),
    "yearly": Offer(24_000),
    "metered": Offer(500, is_metered=True),
}


SHOWN: dict[int, dict[str, Invoice]] = {}
"""What Stripe shows, by database."""


@pytest.fixture(autouse=True)
def _nothing_is_shown() -> None:
    SHOWN.clear()


def line(price: str, start: int, end: int, *, sign: int = 1, of: str = "sub") -> Line:
    return Line(price, of, sign, start, end, is_part=False)


def part(price: str, start: int, end: int, *, sign: int = 1) -> Line:
    return msgspec.structs.replace(line(price, start, end, sign=sign), is_part=True)


def stands(
    db: Any, period: tuple[int, int] = ONE, subscription: str = "sub", status: str = "active"
) -> Standing:
    """How Stripe shows it now."""
    begin_customer(db, "acme", "")
    start, end = period
    Customer.update(
        subscription=subscription, status=status, period_start=start, period_end=end
    ).execute(db)
    found = standing(db, "acme")
    assert found is not None
    return found


def pay(
    db: Any,
    name: str,
    *lines: Line,
    period: tuple[int, int] = ONE,
    now: int = NOW,
    status: str = "paid",
    alive: frozenset[str] = frozenset({"sub"}),
) -> int:
    """What an invoice gives."""
    before = credits_of(db, "acme")
    invoices = SHOWN.setdefault(id(db), {})
    invoices[name] = Invoice(name, status, "sub", lines)
    seen = Seen(stands(db, period), list(invoices.values()), alive)
    allowances.grant(db, seen, OFFERS, now)
    return credits_of(db, "acme") - before


def due(db: Any, now: int) -> int:
    return allowances.lapsing(db, now).get("acme", 0)


def use(db: Any, amount: int) -> None:
    """Draw from the allowance."""
    purse = read_purse(db, "acme")
    purse.included -= amount
    purse.charged += amount
    write_purse(db, "acme", purse)


def left(db: Any) -> int:
    return read_purse(db, "acme").included


def test_an_invoice_gives_what_its_plan_includes_once_it_is_paid(database: Database) -> None:
    with database.transaction() as db:
        for status in ("draft", "open", "uncollectible", "void"):
            assert pay(db, "in_1", line("pro", *ONE), status=status) == 0
        assert [pay(db, "in_1", line("pro", *ONE)) for _ in range(3)] == [2000, 0, 0]
        assert pay(db, "in_2", line("somebody elses", *ONE)) == 0
        assert pay(db, "in_3", line("pro", *TWO), period=TWO) == 2000


@pytest.mark.parametrize("is_paid_late", [False, True])
def test_a_better_plan_gives_the_difference_for_the_time_that_is_left(
    database: Database, is_paid_late: bool
) -> None:
    now = HALF + is_paid_late * 10 * DAY
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        lines = part("pro", HALF, ONE[1], sign=-1), part("big", HALF, ONE[1])
        assert pay(db, "in_2", *lines, now=now) == 4000
        assert left(db) == 6000


def test_a_lesser_plan_takes_the_difference_also_of_what_is_used_up(database: Database) -> None:
    with database.transaction() as db:
        add_credit(db, ("acme", "pack", 700), "co_1", "", NOW)
        pay(db, "in_1", line("big", *ONE))
        use(db, 9500)
        lines = part("big", HALF, ONE[1], sign=-1), part("pro", HALF, ONE[1])
        assert pay(db, "in_2", *lines, now=HALF) == -4000
        assert left(db) == 0
        assert credits_of(db, "acme") - read_purse(db, "acme").charged == 10_700 - 9500 - 4000


def test_a_debt_is_paid_by_the_next_allowance_and_not_taken_twice(database: Database) -> None:
    with database.transaction() as db:
        pay(db, "in_1", line("big", *ONE))
        use(db, 10_000)
        lines = part("big", HALF, ONE[1], sign=-1), part("pro", HALF, ONE[1])
        assert pay(db, "in_2", *lines, now=HALF) == -4000
        pay(db, "in_3", line("pro", *TWO), period=TWO)
        pay(db, "in_4", line("pro", *THREE), period=THREE)
        assert (left(db), due(db, THREE[0])) == (0, 0)
        four = (THREE[1], THREE[1] + MONTH)
        pay(db, "in_5", line("pro", *four), period=four)
        assert (left(db), due(db, four[0])) == (2000, 0)


def test_a_change_that_is_on_the_next_invoice_counts_then_and_does_not_lapse_with_the_rest(
    database: Database,
) -> None:
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        use(db, 500)
        change = part("pro", HALF, ONE[1], sign=-1), part("big", HALF, ONE[1])
        assert pay(db, "in_2", *change, line("big", *TWO), period=TWO, now=TWO[0]) == 14_000
        assert (left(db), due(db, TWO[0])) == (15_500, 1500)


def test_another_interval_begins_a_period_and_credits_the_rest_of_the_old_one(
    database: Database,
) -> None:
    year = (HALF, HALF + 12 * MONTH)
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        credit = part("pro", HALF, ONE[1], sign=-1)
        for_a_year = part("yearly", *year)  # whatever Stripe calls it, it is the whole period
        assert pay(db, "in_2", credit, for_a_year, period=year, now=HALF) == 24_000 - 1000
        assert (left(db), due(db, HALF)) == (25_000, 1000)
        use(db, 25_000)
        back = (HALF + 6 * MONTH, HALF + 7 * MONTH)
        credit = part("yearly", back[0], year[1], sign=-1)
        given = pay(db, "in_3", credit, line("pro", *back), period=back, now=back[0])
        assert given == 2000 - 12_000
        assert left(db) == 0


def test_what_costs_nothing_to_begin_with_is_not_credited(database: Database) -> None:
    with database.transaction() as db:
        assert pay(db, "in_1", line("big", *ONE)) == 10_000  # a trial
        free = part("big", HALF, ONE[1], sign=0), part("pro", HALF, ONE[1], sign=0)
        assert pay(db, "in_2", *free) == 0
        ends = (HALF, HALF + MONTH)
        assert pay(db, "in_3", line("big", *ends), period=ends, now=HALF) == 10_000
        assert due(db, HALF) == 10_000


def test_a_metered_price_is_charged_late_and_gives_for_the_period_that_runs(
    database: Database,
) -> None:
    with database.transaction() as db:
        assert pay(db, "in_1", line("metered", NOW, NOW)) == 500
        assert due(db, NOW + MONTH - 1) == 0
        assert pay(db, "in_2", line("metered", *ONE), period=TWO, now=TWO[0]) == 500
        assert (left(db), due(db, TWO[0]), due(db, TWO[1] + allowances.GRACE)) == (1000, 500, 1000)


def test_an_old_period_that_is_paid_late_gives_and_ends_nothing(database: Database) -> None:
    with database.transaction() as db:
        pay(db, "in_2", line("pro", *TWO), period=TWO)
        assert pay(db, "in_1", line("pro", *ONE), period=TWO) == 2000
        assert (left(db), due(db, TWO[0])) == (4000, 0)


@pytest.mark.parametrize("status", ["draft", "open"])
def test_what_follows_an_invoice_that_waits_to_be_paid_waits_for_it(
    database: Database, status: str
) -> None:
    change = part("big", TWO[0] + 60, TWO[1]), part("pro", TWO[0] + 60, TWO[1], sign=-1)
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        assert pay(db, "in_2", line("pro", *TWO), period=TWO, status=status) == 0
        assert pay(db, "in_3", *change, period=TWO) == 0
        assert pay(db, "in_2", line("pro", *TWO), period=TWO) == 10_000
        assert (left(db), due(db, TWO[0])) == (12_000, 2000)


def test_what_costs_nothing_is_given_nothing_within_a_period_that_had_something(
    database: Database,
) -> None:
    free = msgspec.structs.replace(line("pro", *ONE), is_free=True)
    again = msgspec.structs.replace(free, start=HALF, end=HALF + MONTH, subscription="other")
    after = msgspec.structs.replace(again, start=HALF + MONTH, end=HALF + 2 * MONTH)
    with database.transaction() as db:
        assert pay(db, "in_1", free) == 2000
        assert pay(db, "in_2", again, alive=frozenset({"other"})) == 0
        assert pay(db, "in_3", after, alive=frozenset({"other"})) == 2000


def test_several_lines_for_one_period_give_once(database: Database) -> None:
    with database.transaction() as db:
        assert pay(db, "in_1", line("pro", *ONE), line("pro", *ONE)) == 2000  # two tiers
        for name in ("in_2", "in_3"):  # as where a threshold bills in between
            assert pay(db, name, line("metered", *ONE)) == 0
        late = line("metered", *ONE, of="ended")
        assert pay(db, "in_4", late, period=TWO) == 0


def test_the_rest_of_a_year_is_its_share_of_the_year(database: Database) -> None:
    year = (NOW, NOW + 12 * MONTH)
    middle = NOW + 6 * MONTH
    with database.transaction() as db:
        pay(db, "in_1", line("yearly", *year), period=year)
        credit = part("yearly", middle, year[1], sign=-1)
        month = (middle, middle + MONTH)
        assert pay(db, "in_2", credit, line("pro", *month), period=month) == 2000 - 12_000


def test_what_a_debt_has_taken_of_an_allowance_does_not_come_back_with_credit(
    database: Database,
) -> None:
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        add_credit(db, ("acme", "reversal", -3000), "re_1", "", NOW)
        add_credit(db, ("acme", "pack", 3000), "co_1", "", NOW)
        assert (left(db), due(db, NOW + 9 * MONTH)) == (0, 0)
        assert credits_of(db, "acme") == 2000


def test_of_two_subscriptions_the_rest_stays_until_both_are_over(database: Database) -> None:
    both = frozenset({"sub", "other"})
    later = (HALF, HALF + MONTH)
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        pay(db, "in_2", line("big", *later, of="other"), period=later, alive=both)
        assert (left(db), due(db, later[1] - 1)) == (12_000, 0)
        stands(db, later, "other")
        assert due(db, later[1] - 1) == 0


def test_whoever_ends_a_plan_and_buys_another_has_what_that_includes(database: Database) -> None:
    later = (NOW + 5 * DAY, NOW + 5 * DAY + MONTH)
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        stands(db, (0, 0), "", "")
        assert due(db, NOW + 5 * DAY) == 2000
        allowances.lapse(db, "acme", 10**9, NOW + 5 * DAY)
        other = line("pro", *later, of="other")
        assert pay(db, "in_2", other, period=later, alive=frozenset({"other"})) == 2000
        assert (left(db), due(db, later[0])) == (2000, 0)


def test_what_is_left_of_a_period_lapses_when_the_next_one_is_paid(database: Database) -> None:
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        assert due(db, ONE[1] - 1) == 0
        stands(db, TWO)
        assert due(db, TWO[0] + 60) == 0  # the next is being paid
        pay(db, "in_2", line("big", *TWO), period=TWO)
        assert due(db, TWO[0]) == 2000
        allowances.lapse(db, "acme", 1500, TWO[0])
        assert due(db, TWO[0]) == 500
        allowances.lapse(db, "acme", 10**9, TWO[0])
        assert due(db, TWO[0]) == 0
        assert credits_of(db, "acme") == 10_000


def test_what_is_paid_stays_until_its_period_is_over_whatever_else_is_owed(
    database: Database,
) -> None:
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        for status in ("past_due", "unpaid", "paused", "incomplete"):
            stands(db, status=status)
            assert (due(db, NOW + 1), due(db, ONE[1])) == (0, 2000)
        stands(db, TWO)
        assert due(db, ONE[1] + allowances.GRACE - 1) == 0
        assert due(db, ONE[1] + allowances.GRACE) == 2000


def test_a_period_that_is_extended_keeps_its_allowance(database: Database) -> None:
    with database.transaction() as db:
        pay(db, "in_1", line("pro", NOW, NOW + 7 * DAY), period=(NOW, NOW + 7 * DAY))
        stands(db, ONE, status="trialing")
        assert due(db, NOW + 20 * DAY) == 0


def test_nothing_more_lapses_than_there_is_or_than_is_over_by_now(database: Database) -> None:
    with database.transaction() as db:
        pay(db, "in_1", line("pro", *ONE))
        allowances.lapse(db, "acme", 500, NOW)  # looked up before it was paid
        assert credits_of(db, "acme") == 2000
        stands(db, (0, 0), "", "")
        for _ in range(3):
            allowances.lapse(db, "acme", 5000, NOW)
        allowances.lapse(db, "other", 5, NOW)
        assert credits_of(db, "acme") == credits_of(db, "other") == 0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["pro", "big", "yearly"]), st.integers(0, 40 * DAY)),
        max_size=20,
    )
)
def test_changing_to_and_fro_gives_what_stripe_charges_for(steps: list[tuple[str, int]]) -> None:
    SHOWN.clear()
    opened = make_database("sqlite:///:memory:", Path("/"))
    opened.open()
    opened.migrate_package("billing", "tollkeeper_billing")
    lasts = {"pro": MONTH, "big": MONTH, "yearly": 12 * MONTH}
    price, period, now, number = "pro", ONE, NOW, 1
    with opened.transaction() as db:
        so_far = pay(db, "in_1", line(price, *period))
        earned = 0.0
        for then, passed in steps:
            amount = OFFERS[price].amount
            while period[1] <= now + passed:  # renewals
                earned += amount * (period[1] - now) / (period[1] - period[0])
                passed -= period[1] - now
                now = period[1]
                period, number = (now, now + lasts[price]), number + 1
                so_far += pay(db, f"in_{number}", line(price, *period), period=period, now=now)
            earned += amount * passed / (period[1] - period[0])
            now += passed
            credit = part(price, now, period[1], sign=-1)
            number += 1
            if lasts[then] == lasts[price]:
                lines = (credit, part(then, now, period[1]))
            else:
                period = (now, now + lasts[then])
                lines = (credit, line(then, *period))
            so_far += pay(db, f"in_{number}", *lines, period=period, now=now)
            price = then
            ahead = OFFERS[price].amount * (period[1] - now) / (period[1] - period[0])
            assert abs(so_far - earned - ahead) <= 2 * number
            purse = read_purse(db, "acme")
            assert purse.included >= purse.lapsing >= 0
    opened.close()
