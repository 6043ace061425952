"""What is done about a meter event, and when."""

import pytest

from tollkeeper.storage import Database
from tollkeeper_billing import outbox
from tollkeeper_billing.models import MeterEvent
from tollkeeper_billing.outbox import Pending, next_step

NOW = 1_795_564_800
HOUR = 3600


def event(**fields: object) -> Pending:
    base = Pending(1, "acme", NOW, 5, "m", "i", "cus_1", NOW, "waiting", 0, 0, 0, 0)
    return Pending(**({name: getattr(base, name) for name in base.__struct_fields__} | fields))


@pytest.mark.parametrize(
    ("state", "at", "step"),
    [
        (event(), NOW, "send"),
        (event(next_try=NOW + 1), NOW, "wait"),
        (event(at=NOW - 34 * 86_400), NOW, "send"),
        (event(at=NOW - 34 * 86_400 - 1), NOW, "give up"),
        (event(state="unsure", first_try=NOW), NOW + 23 * HOUR - 1, "send"),
        (event(state="unsure", first_try=NOW, next_try=NOW + 99), NOW + 98, "wait"),
        (event(state="unsure", first_try=NOW, last_try=NOW), NOW + 23 * HOUR, "ask"),
        (event(state="unsure", first_try=NOW, last_try=NOW + 23 * HOUR), NOW + 23 * HOUR, "wait"),
        (event(state="unsure", first_try=NOW, last_try=NOW + 22 * HOUR), NOW + 23 * HOUR, "ask"),
        # However old: what may have arrived is asked for, and never simply sent again.
        (event(state="unsure", first_try=NOW, at=NOW), NOW + 90 * 86_400, "ask"),
    ],
)
def test_what_is_done_follows_from_when_it_may_have_arrived(
    state: Pending, at: int, step: str
) -> None:
    assert next_step(state, at) == step


def put(database: Database, identifier: str, org: str = "acme", **fields: object) -> None:
    row = {"org": org, "day": NOW, "units": 5, "meter": "m", "identifier": identifier}
    row |= {"customer": f"cus_{org}", "at": NOW, "state": "waiting", "first_try": 0}
    row |= {"last_try": 0, "next_try": 0, "tries": 0, "error": ""}
    with database.transaction() as db:
        MeterEvent.insert(**(row | fields)).execute(db)


def due(database: Database, now: int = NOW) -> list[str]:
    with database.reading() as db:
        return [each.identifier for each in outbox.heads(db, now)]


def test_of_each_organization_the_first_event_goes_and_holds_up_those_behind_it(
    database: Database,
) -> None:
    put(database, "a1", state="unsure", first_try=NOW, next_try=NOW + 10)
    put(database, "a2")
    put(database, "b1", "other")
    put(database, "b2", "other")
    put(database, "c1", "third", state="dead")
    put(database, "c2", "third", state="sent")
    assert due(database) == ["b1"]
    assert due(database, NOW + 10) == ["a1", "b1"]


def first(database: Database) -> Pending:
    with database.reading() as db:
        return outbox.heads(db, NOW + 10**6)[0]


def test_a_try_may_have_arrived_from_the_moment_before_it_is_made(database: Database) -> None:
    put(database, "a1")
    with database.transaction() as db:
        assert outbox.note_try(db, first(database), 0, NOW)
        assert not outbox.note_try(db, event(identifier="a2"), 0, NOW)
    tried = first(database)
    assert (tried.state, tried.first_try, tried.last_try, tried.tries) == ("unsure", NOW, NOW, 1)


def test_a_try_that_did_not_arrive_leaves_what_was_before_it(database: Database) -> None:
    put(database, "a1")
    before = first(database)
    with database.transaction() as db:
        outbox.note_try(db, before, 0, NOW)
        outbox.note_not_sent(db, before, "refused", NOW)
    after = first(database)
    assert (after.state, after.first_try) == ("waiting", 0)
    assert after.next_try > NOW
    with database.transaction() as db:
        outbox.note_try(db, after, 0, NOW + 50)
    unsure = first(database)
    with database.transaction() as db:
        outbox.note_try(db, unsure, 0, NOW + 100)
        outbox.note_not_sent(db, unsure, "refused", NOW + 100)
    assert (first(database).state, first(database).first_try) == ("unsure", NOW + 50)


def test_what_cannot_have_arrived_is_told_as_of_the_period_that_is_billed_next(
    database: Database,
) -> None:
    put(database, "a1")
    at = first(database).at
    for begin, moment in ((at - 5, at), (at + 7, at + 7), (at + 9, at + 7)):
        with database.transaction() as db:
            sent = outbox.note_try(db, first(database), begin, NOW)
            assert sent is not None
            assert sent.at == first(database).at == moment
            if begin < at:
                outbox.note_not_sent(db, event(id=sent.id), "refused", NOW)


def test_what_stripe_has_is_summed_by_customer_meter_and_day(database: Database) -> None:
    put(database, "a1", state="sent", units=3)
    put(database, "a2", state="sent", units=4, at=NOW + 86_399)
    put(database, "a3", state="sent", units=100, at=NOW + 86_400)
    put(database, "a4", state="sent", units=100, meter="another")
    put(database, "a5")
    put(database, "b1", "other", state="sent", units=100)
    with database.reading() as db:
        assert outbox.sent_units(db, event(customer="cus_acme", at=NOW + 5)) == 7


def test_one_holder_sends_until_its_lease_is_over_or_given_back(database: Database) -> None:
    def take(holder: str, now: int) -> bool:
        with database.transaction() as db:
            return outbox.take_lease(db, holder, now)

    assert take("one", NOW)
    assert take("one", NOW + 60)
    assert not take("two", NOW + 60)
    assert take("two", NOW + 60 + outbox.LEASE_SECONDS)
    assert not take("one", NOW + 61 + outbox.LEASE_SECONDS)
    with database.transaction() as db:
        outbox.give_lease(db, "one")
        outbox.give_lease(db, "two")
    assert take("one", NOW + 61 + outbox.LEASE_SECONDS)
