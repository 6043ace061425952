"""The till: what the database says of money is what calls are reserved on."""

from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing

from tollkeeper.storage import Database
from tollkeeper.testing import JumpClock
from tollkeeper_billing import customers, purchases
from tollkeeper_billing.balances import Balances
from tollkeeper_billing.customers import Standing, Subscription
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import LEAST_SECONDS, Till, meter_of, rpm_of

NOW = 1_795_564_800
SETTINGS: dict[str, Any] = {
    "secret_key": "sk_test_fake",
    "webhook_secret": "whsec_fake",
    "success_url": "https://example.com/",
    "cancel_url": "https://example.com/",
    "auto_topup": True,
    "packs": {"small": {"price": Decimal(10), "credit": Decimal(10)}},
    "plans": {
        "pro": {"stripe_price": "price_pro", "rpm": 600},
        "usage": {"stripe_price": "price_base", "meter": "usd_cents"},
    },
}


def settings(**more: object) -> BillingSettings:
    return BillingSettings.model_validate(SETTINGS | more)


@pytest.fixture
def clock() -> JumpClock:
    made = JumpClock()
    made.now = NOW + 0.9
    return made


@pytest.fixture
def till(database: Database, clock: JumpClock) -> Till:
    return Till(database, clock)


def opened(till: Till) -> Balances:
    """Balances that calls are reserved on."""
    balances = Balances(NOW, ())
    till.open(balances, settings())
    till.use(balances)
    return balances


def give(database: Any, org: str, amount: int) -> str:
    purchases.add_credit(database, (org, "grant", amount), f"{org}{amount}", "", NOW)
    return org


async def paid(till: Till, org: str = "acme", amount: int = 5) -> str:
    return await till.change(give, org, amount, touched=lambda org: [org])


def funds(balances: Balances, org: str = "acme") -> int:
    return balances.balance(org)[0]


async def test_credit_can_be_spent_once_its_change_returns(till: Till) -> None:
    balances = opened(till)
    assert await paid(till) == "acme"
    assert (funds(balances), funds(balances, "other")) == (5, 0)


async def test_what_was_committed_is_in_force_even_if_whoever_asked_is_gone(till: Till) -> None:
    balances = opened(till)
    with trio.CancelScope() as scope:
        scope.cancel()
        await paid(till)
    assert funds(balances) == 5


async def test_a_change_that_fails_changes_nothing(till: Till) -> None:
    balances = opened(till)

    def fail(database: Any) -> str:
        give(database, "acme", 5)
        raise LookupError

    with pytest.raises(LookupError):
        await till.change(fail, touched=lambda org: [org])
    await till.reload()
    assert funds(balances) == 0


async def test_only_what_a_change_touched_is_looked_up(till: Till, database: Database) -> None:
    balances = opened(till)
    with database.transaction() as db:
        give(db, "other", 3)
    await paid(till)
    await till.change(lambda _: "other", touched=lambda _: [])
    assert funds(balances, "other") == 0


async def test_while_settings_change_both_balances_are_kept_up_to_date(till: Till) -> None:
    assert till.balances is None
    old = opened(till)
    new = Balances(NOW, ())
    till.open(new, settings())
    assert till.balances is old
    await paid(till)
    assert (funds(old), funds(new)) == (5, 5)
    till.use(new)
    assert till.balances is new
    till.close(old)
    await paid(till, amount=7)
    assert (funds(old), funds(new)) == (5, 12)
    till.close(new)
    assert till.balances is None


async def test_balances_that_never_came_into_use_can_be_closed(till: Till) -> None:
    old, failed = opened(till), Balances(NOW, ())
    till.open(failed, settings())
    till.close(failed)
    assert till.balances is old


async def test_a_reload_takes_over_what_another_process_wrote(
    till: Till, database: Database
) -> None:
    balances = opened(till)
    with database.transaction() as db:
        give(db, "acme", 5)
        made = customers.begin_customer(db, "acme", "")
    assert till.standing("acme") is None
    await till.reload()
    assert funds(balances) == 5
    assert (till.standing("acme"), tuple(till.standings())) == (made, (made,))


async def test_how_an_organization_stands_is_what_was_noted_last(till: Till) -> None:
    for plan in ("pro", "usage"):
        till.note(Standing("acme", "n", "", plan=plan))
    (found,) = till.standings()
    assert found.plan == "usage"


def test_moments_are_whole_seconds(till: Till) -> None:
    assert till.now == NOW


STANDING = Standing("acme", "n", "", "cus_1", "usage", "active", "sub_1")


def standing(**fields: Any) -> Standing:
    return Standing(
        **({name: getattr(STANDING, name) for name in STANDING.__struct_fields__} | fields)
    )


@pytest.mark.parametrize(
    ("stands", "meter"),
    [
        (standing(), "usd_cents"),
        (standing(status="trialing"), "usd_cents"),
        (standing(status="past_due"), ""),
        (standing(status=""), ""),
        (standing(plan="pro"), ""),
        (standing(plan=""), ""),
        (standing(plan="sold no more"), ""),
        (standing(customer=None), ""),
    ],
)
def test_a_meter_bills_only_whom_a_paid_plan_with_one_trusts(
    till: Till, stands: Standing, meter: str
) -> None:
    balances = opened(till)
    assert meter_of(stands, settings()) == meter
    till.note(stands)
    till.apply()
    assert balances.is_stopped("acme") is (not meter)


@pytest.mark.parametrize(
    ("stands", "rpm"),
    [
        (None, None),
        (standing(plan="pro"), 600),
        (standing(plan="pro", status="past_due"), 600),
        (standing(plan="pro", status="unpaid"), None),
        (standing(plan="pro", status=""), None),
        (standing(), None),
        (standing(plan="sold no more"), None),
    ],
)
def test_a_plan_grants_its_rate_while_it_lives(stands: Standing | None, rpm: int | None) -> None:
    assert rpm_of(stands, settings()) == rpm


@pytest.mark.parametrize(
    ("stands", "more", "wakes"),
    [
        (standing(topup_pack="small", topup_below=5), {}, True),
        (standing(topup_pack="small", topup_below=0), {}, False),
        (standing(topup_pack="", topup_below=5), {}, False),
        (standing(topup_pack="sold no more", topup_below=5), {}, False),
        (standing(topup_pack="small", topup_below=5, topup_error="no_card"), {}, False),
        (standing(topup_pack="small", topup_below=5), {"auto_topup": False}, False),
    ],
)
async def test_a_balance_that_falls_low_has_the_rounds_made_where_a_pack_is_wanted(
    till: Till,
    autojump_clock: trio.testing.MockClock,
    stands: Standing,
    more: dict[str, object],
    wakes: bool,
) -> None:
    till.open(Balances(NOW, (), fell=lambda _: till.wake()), settings(**more))
    till.note(stands)
    till.apply()
    begun = trio.current_time()
    await till.wait(60)
    assert trio.current_time() - begun == (LEAST_SECONDS if wakes else LEAST_SECONDS + 60)


async def test_the_rounds_are_made_every_so_often_and_soon_when_somebody_asks(
    till: Till, autojump_clock: trio.testing.MockClock
) -> None:
    for woken, seconds in ((False, 60 + LEAST_SECONDS), (True, LEAST_SECONDS), (False, 61.0)):
        begun = trio.current_time()
        if woken:
            till.wake()
            till.wake()
        await till.wait(60)
        assert trio.current_time() - begun == seconds


async def test_a_plan_that_ended_is_trusted_no_more(till: Till, database: Database) -> None:
    balances = opened(till)
    with database.transaction() as db:
        customers.begin_customer(db, "acme", "")
        customers.note_customer(db, "acme", "cus_1")
        found = customers.standing(db, "acme")
        assert found is not None
        bought = Subscription("sub_1", "active", ("price_base",), NOW, NOW + 9, NOW)
        customers.note_subscription(db, found, bought, {"price_base": "usage"}, is_paid=True)
    await till.reload()
    till.apply()
    assert not balances.is_stopped("acme")
    with database.transaction() as db:
        customers.note_subscription(db, found, None, {}, is_paid=False)
    await till.reload()
    till.apply()
    assert balances.is_stopped("acme")


async def test_each_process_is_somebody_else(database: Database, clock: JumpClock) -> None:
    assert Till(database, clock).holder != Till(database, clock).holder
