"""Organizations at Stripe: one customer each, and the plan that Stripe showed last."""

import msgspec
import pytest

from tollkeeper.storage import Database
from tollkeeper_billing import customers
from tollkeeper_billing.customers import Standing, Subscription, choose

NOW = 1_795_564_800
PLANS = {"price_pro": "pro", "price_base": "usage"}


def subscription(
    name: str = "sub_1",
    status: str = "active",
    price: str = "price_pro",
    created: int = NOW,
) -> Subscription:
    return Subscription(name, status, (price,), NOW, NOW + 100, created)


def joined(database: Database, org: str = "acme") -> Standing:
    """An organization that has a customer."""
    with database.transaction() as db:
        customers.begin_customer(db, org, f"{org}@example.com")
        customers.note_customer(db, org, f"cus_{org}")
    return stored(database, org)


def stored(database: Database, org: str = "acme") -> Standing:
    with database.reading() as db:
        found = customers.standing(db, org)
    assert found is not None
    return found


def noted(database: Database, asked: Standing, found: Subscription | None) -> Standing:
    with database.transaction() as db:
        return customers.note_subscription(db, asked, found, PLANS, is_paid=found is not None)


def changed(database: Database) -> list[str]:
    with database.reading() as db:
        return [each.org for each in customers.changed(db)]


def heard(database: Database, org: str = "acme") -> None:
    with database.transaction() as db:
        customers.note_change(db, org)


def test_an_organization_begins_once_and_keeps_what_it_began_with(database: Database) -> None:
    with database.transaction() as db:
        assert customers.standing(db, "acme") is None
        first = customers.begin_customer(db, "acme", "ann@example.com")
        again = customers.begin_customer(db, "acme", "bob@example.com")
        other = customers.begin_customer(db, "other", "")
    assert again == first == stored(database)
    assert (first.email, first.customer, first.topup_below) == ("ann@example.com", None, 0)
    assert len(first.nonce) == 24
    assert other.nonce != first.nonce


def test_the_first_id_that_stripe_gave_stays(database: Database) -> None:
    joined(database)
    with database.transaction() as db:
        customers.note_customer(db, "acme", "cus_later")
        assert customers.org_of(db, "cus_acme") == "acme"
        assert customers.org_of(db, "cus_later") is None
    assert stored(database).customer == "cus_acme"


def test_all_that_came_to_the_till_are_listed(database: Database) -> None:
    acme, other = joined(database), joined(database, "other")
    with database.reading() as db:
        assert customers.standings(db) == [acme, other]


def test_stripe_is_asked_for_those_of_whom_an_event_told(database: Database) -> None:
    asked = joined(database)
    joined(database, "other")
    assert changed(database) == []
    heard(database)
    assert changed(database) == ["acme"]
    noted(database, stored(database), None)
    assert changed(database) == []
    assert stored(database).heard == asked.heard + 1


def test_an_event_that_comes_while_stripe_is_asked_has_it_asked_again(database: Database) -> None:
    joined(database)
    heard(database)
    asked = stored(database)
    heard(database)
    noted(database, asked, subscription())
    assert changed(database) == ["acme"]


def test_nobody_is_asked_for_who_has_no_customer_yet(database: Database) -> None:
    with database.transaction() as db:
        customers.begin_customer(db, "acme", "")
    heard(database)
    assert changed(database) == []


@pytest.mark.parametrize("status", ["active", "trialing", "past_due", "unpaid", "paused"])
def test_stripe_is_asked_now_and_then_for_whoever_has_a_subscription(
    database: Database, status: str
) -> None:
    noted(database, joined(database), subscription(status=status))
    assert changed(database) == ["acme"]
    noted(database, stored(database), None)
    assert changed(database) == []


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([], None),
        ([subscription("a", "canceled"), subscription("b", "incomplete_expired")], None),
        ([subscription("a"), subscription("b", created=NOW + 1)], "b"),
        ([subscription("a", created=NOW + 1), subscription("b")], "a"),
        ([subscription("a", "past_due", created=NOW + 9), subscription("b")], "b"),
        ([subscription("a", "incomplete"), subscription("b", "unpaid")], "b"),
        ([subscription("a", "trialing"), subscription("b", "past_due")], "a"),
        ([subscription("a", "a word of next year"), subscription("b", "paused")], "b"),
    ],
)
def test_of_several_subscriptions_the_best_then_the_newest_counts(
    found: list[Subscription], best: str | None
) -> None:
    for order in (found, found[::-1]):
        chosen = choose(order, {})
        assert (chosen.id if chosen else None) == best


def test_a_subscription_to_something_else_does_not_take_the_plan_away() -> None:
    ours = subscription("ours", "past_due")
    other = msgspec.structs.replace(subscription("other", created=NOW + 9), prices=("price_x",))
    for order in ([ours, other], [other, ours]):
        assert choose(order, dict.fromkeys(ours.prices, "pro")) == ours


def test_the_plan_is_told_by_any_of_the_prices(database: Database) -> None:
    several = msgspec.structs.replace(subscription(), prices=("price_metered", "price_base"))
    after = noted(database, joined(database), several)
    assert after == stored(database)
    assert (after.plan, after.status, after.subscription) == ("usage", "active", "sub_1")
    assert (after.period_start, after.period_end) == (NOW, NOW + 100)


def test_prices_of_no_plan_are_a_subscription_to_nothing(database: Database) -> None:
    after = noted(database, joined(database), subscription(price="price_other"))
    assert (after.plan, after.status) == ("", "active")


def test_a_subscription_that_is_gone_leaves_nothing_behind(database: Database) -> None:
    before = joined(database)
    noted(database, before, subscription())
    assert noted(database, stored(database), None) == before == stored(database)


def test_what_an_owner_sets_while_stripe_is_asked_stays(database: Database) -> None:
    asked = joined(database)
    with database.transaction() as db:
        customers.set_topup(db, "acme", "small", 5)
    after = noted(database, asked, subscription())
    assert (after.plan, after.topup_pack, after.topup_below) == ("pro", "small", 5)
    assert after == stored(database)


def test_setting_topups_anew_forgets_why_the_last_one_failed(database: Database) -> None:
    joined(database)
    joined(database, "other")
    with database.transaction() as db:
        customers.set_topup(db, "acme", "small", 5)
        customers.note_topup_error(db, "acme", "card_declined")
    failed = stored(database)
    assert (failed.topup_pack, failed.topup_below) == ("small", 5)
    assert failed.topup_error == "card_declined"
    with database.transaction() as db:
        customers.set_topup(db, "acme", "", 0)
    assert (stored(database).topup_pack, stored(database).topup_error) == ("", "")
    assert stored(database, "other").topup_error == ""


def test_a_customer_is_asked_for_under_another_nonce_until_there_is_one(
    database: Database,
) -> None:
    with database.transaction() as db:
        first = customers.begin_customer(db, "acme", "")
        customers.renew_nonce(db, "acme")
    renewed = stored(database)
    assert renewed.nonce != first.nonce
    named = joined(database)
    with database.transaction() as db:
        customers.renew_nonce(db, "acme")
    assert stored(database) == named
    assert named.nonce == renewed.nonce
