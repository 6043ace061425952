"""Webhook events: who is believed, and that each counts once, in whatever order it comes."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from tollkeeper import Refused
from tollkeeper.storage import Database
from tollkeeper_billing import customers, inbox, purchases
from tollkeeper_billing.inbox import Delivered, prove, read_event
from tollkeeper_billing.models import Credit, Event
from tollkeeper_billing.purses import credits_of
from tollkeeper_billing.shapes import METADATA

NOW = 1_795_564_800
SECRET = "whsec_fake"
BODY = b'{"id": "evt_1"}'


def signature(body: bytes = BODY, at: int = NOW, secret: str = SECRET) -> str:
    import stripe

    return str(stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at))


def test_what_was_signed_just_now_is_proven() -> None:
    for at in (NOW - 300, NOW, NOW + 300):
        prove(BODY, signature(at=at), SECRET, NOW)
    both = signature(secret="whsec_old") + "," + signature().partition(",")[2]
    prove(BODY, both, SECRET, NOW)  # while a secret is rolled, Stripe signs with both


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        "t=,v1=",
        f"t={NOW}",
        f"v1={'0' * 64}",
        f"t={NOW},v1={'0' * 64}",
        signature(secret="whsec_other"),
        signature(secret=""),
        signature(at=NOW - 301),
        signature(at=NOW + 301),
        signature(b'{"id": "evt_2"}'),
        signature().replace("v1=", "v0="),
        signature().replace(f"t={NOW}", f"t={NOW + 1}"),
        f"t={NOW - 400}," + signature(at=NOW - 400),
        signature(at=NOW - 400) + f",t={NOW}",
        f"t={NOW}," + signature(at=NOW - 400),
        f"t=\u0661{NOW}",
        "t=" + "9" * 5000,
    ],
)
def test_nothing_else_is(header: str) -> None:
    with pytest.raises(Refused) as refused:
        prove(BODY, header, SECRET, NOW)
    assert (refused.value.status, refused.value.code) == (401, "auth_error")


def test_a_body_that_is_no_text_is_not_proven() -> None:
    with pytest.raises(Refused):
        prove(b"\xff\xfe", signature(), SECRET, NOW)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"id": 1}', b"[" * 9999])
def test_a_proven_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_event(body, livemode=False)
    assert refused.value.status == 400


@pytest.mark.parametrize(("live", "here"), [("true", False), ("false", True)])
def test_an_event_of_the_other_mode_is_refused(live: str, here: bool) -> None:
    body = f'{{"id": "e", "type": "t", "livemode": {live}, "data": {{"object": {{}}}}}}'
    with pytest.raises(Refused, match="mode"):
        read_event(body.encode(), livemode=here)
    assert read_event(body.encode(), livemode=not here).id == "e"


@pytest.fixture(autouse=True)
def two_customers(database: Database) -> None:
    with database.transaction() as db:
        for org in ("acme", "other"):
            customers.begin_customer(db, org, "")
            customers.note_customer(db, org, f"cus_{org}")


def offered(database: Database, kind: str = "pack", org: str = "acme", **more: Any) -> str:
    """A checkout of ten dollars' credit for ten dollars, in session cs_1. Its id."""
    offer = purchases.Offer(kind, "small", 1000, 10 * 10**9)
    with database.transaction() as db:
        checkout = purchases.open_checkout(db, (org, f"cus_{org}"), offer, "usr_1", NOW).id
        purchases.note_session(db, checkout, more.get("session", "cs_1"))
    return checkout


def session(checkout: str, **fields: Any) -> dict[str, Any]:
    told = {"id": "cs_1", "payment_status": "paid", "customer": "cus_acme"}
    told |= {"client_reference_id": checkout, "currency": "usd", "payment_intent": "pi_1"}
    return told | {"amount_subtotal": 1000, "amount_total": 1000} | fields


_IDS = itertools.count()


def event(kind: str, told: dict[str, Any], name: str = "") -> Delivered:
    return Delivered(name or f"evt_{next(_IDS)}", kind, False, inbox._Data(told))


COMPLETED = "checkout.session.completed"


def receive(database: Database, *events: Delivered) -> list[str]:
    outcomes = []
    for each in events:
        with database.transaction() as db:
            outcomes.append(str(inbox.receive(db, each, NOW).outcome))
    return outcomes


def credit(database: Database, org: str = "acme") -> int:
    with database.reading() as db:
        return credits_of(db, org) // 10**7


def test_a_paid_session_gives_its_credit_once(database: Database) -> None:
    told = session(offered(database))
    once = event(COMPLETED, told)
    again = event("checkout.session.async_payment_succeeded", told)
    assert receive(database, once, once, again, once) == ["done", "known", "done", "known"]
    assert credit(database) == 1000


def test_with_taxes_on_top_the_credit_is_what_was_offered(database: Database) -> None:
    receive(database, event(COMPLETED, session(offered(database), amount_total=1190)))
    assert credit(database) == 1000


def test_a_session_whose_money_is_still_under_way_gives_nothing_yet(database: Database) -> None:
    checkout = offered(database)
    unpaid = event(COMPLETED, session(checkout, payment_status="unpaid"))
    assert receive(database, unpaid) == ["ignored"]
    assert credit(database) == 0
    receive(database, event("checkout.session.async_payment_succeeded", session(checkout)))
    assert credit(database) == 1000


def test_a_payment_that_came_to_nothing_can_still_be_made(database: Database) -> None:
    checkout = offered(database)
    failed = session(checkout, payment_status="unpaid")
    receive(database, event("checkout.session.async_payment_failed", failed))
    assert credit(database) == 0
    receive(database, event("checkout.session.async_payment_succeeded", session(checkout)))
    assert credit(database) == 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "cs_2"},
        {"customer": "cus_other"},
        {"customer": None},
        {"currency": "jpy"},
        {"currency": None},
        {"amount_subtotal": 1},
        {"amount_subtotal": 2000},
        {"amount_total": 999},
        {"amount_total": None},
        {"client_reference_id": None},
        {"client_reference_id": "co_other"},
    ],
)
def test_a_session_that_is_not_as_it_was_offered_gives_nothing(
    database: Database, fields: dict[str, Any]
) -> None:
    checkout = offered(database)
    assert receive(database, event(COMPLETED, session(checkout, **fields))) == ["mismatch"]
    assert credit(database) == credit(database, "other") == 0
    assert receive(database, event(COMPLETED, session(checkout))) == ["done"]


def test_a_session_of_somebody_else_is_theirs(database: Database) -> None:
    assert receive(database, event(COMPLETED, session("co_x", id="cs_x"))) == ["foreign"]


def test_a_session_that_names_another_organizations_checkout_gives_nothing_to_either(
    database: Database,
) -> None:
    offered(database)
    theirs = offered(database, org="other", session="cs_2")
    crossed = session(theirs, id="cs_1")
    assert receive(database, event(COMPLETED, crossed)) == ["mismatch"]
    assert credit(database) == credit(database, "other") == 0


def test_a_session_is_known_by_our_own_id_where_its_own_was_never_noted(
    database: Database,
) -> None:
    offer = purchases.Offer("pack", "small", 1000, 10 * 10**9)
    with database.transaction() as db:
        checkout = purchases.open_checkout(db, ("acme", "cus_acme"), offer, "usr_1", NOW).id
    assert receive(database, event(COMPLETED, session(checkout))) == ["done"]
    assert credit(database) == 1000


def refund(name: str, amount: int, status: str = "succeeded") -> dict[str, Any]:
    told = {"id": name, "amount": amount, "currency": "usd", "status": status}
    return told | {"payment_intent": "pi_1"}


def test_refunds_and_disputes_come_to_the_same_in_any_order(
    tmp_path: Path, database: Database
) -> None:
    checkout = offered(database)
    events = [
        event(COMPLETED, session(checkout)),
        event("refund.created", refund("re_1", 300, "pending")),
        event("refund.updated", refund("re_1", 300)),
        event("refund.failed", refund("re_1", 300, "failed")),
        event("charge.dispute.created", refund("dp_1", 200, "needs_response")),
        event("charge.dispute.closed", refund("dp_1", 200, "lost")),
    ]
    for at, order in enumerate(itertools.permutations(events)):
        if at % 7:
            continue  # a hundred of them
        with database.transaction() as db:
            db.execute_sql("SAVEPOINT before")
            for each in order:
                inbox.receive(db, each, NOW)
            assert credits_of(db, "acme") == 8 * 10**9, order
            db.execute_sql("ROLLBACK TO before")


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ([("refund.created", refund("re_1", 1000))], 0),
        ([("refund.created", refund("re_1", 1))], 999),
        ([("refund.created", refund("re_1", 400)), ("refund.created", refund("re_2", 600))], 0),
        ([("refund.created", refund("re_1", 400, "canceled"))], 1000),
        ([("refund.created", refund("re_1", 1000)), ("charge.dispute.created",
          refund("dp_1", 1000, "under_review"))], 0),
        ([("charge.dispute.created", refund("dp_1", 1000, "warning_needs_response"))], 1000),
        ([("charge.dispute.created", refund("dp_1", 1000, "needs_response"))], 0),
        ([("charge.dispute.created", refund("dp_1", 1000, "needs_response")),
          ("charge.dispute.closed", refund("dp_1", 1000, "won"))], 1000),
    ],
)  # fmt: skip
def test_the_share_of_the_money_that_went_back_takes_its_credit_along(
    database: Database, events: list[tuple[str, dict[str, Any]]], left: int
) -> None:
    receive(database, event(COMPLETED, session(offered(database))))
    receive(database, *(event(kind, told) for kind, told in events))
    assert credit(database) == left


def test_a_refund_of_somebody_elses_payment_changes_nothing(database: Database) -> None:
    receive(database, event(COMPLETED, session(offered(database))))
    foreign = refund("re_1", 1000) | {"payment_intent": "pi_2"}
    assert receive(database, event("refund.created", foreign)) == ["foreign"]
    assert credit(database) == 1000


def test_a_negative_refund_is_none(database: Database) -> None:
    receive(database, event(COMPLETED, session(offered(database))))
    with pytest.raises(Refused):
        receive(database, event("refund.created", refund("re_1", -500)))
    assert credit(database) == 1000


@pytest.mark.parametrize(
    "fields",
    [{"amount_received": 1}, {"currency": "jpy"}, {"customer": "cus_other"}, {"customer": None}],
)
def test_a_topup_that_is_not_as_it_was_paid_gives_nothing(
    database: Database, fields: dict[str, Any]
) -> None:
    checkout = offered(database, "topup")
    told = {"id": "pi_1", "amount_received": 1000, "currency": "usd", "customer": "cus_acme"}
    told |= {"metadata": {METADATA: checkout}}
    kind = "payment_intent.succeeded"
    assert receive(database, event(kind, told | fields)) == ["mismatch"]
    assert credit(database) == 0
    assert receive(database, event(kind, told), event(kind, told)) == ["done", "done"]
    assert credit(database) == 1000


def test_the_payment_of_a_checkout_does_not_count_beside_its_session(database: Database) -> None:
    checkout = offered(database)
    told = {"id": "pi_1", "amount_received": 1000, "currency": "usd", "customer": "cus_acme"}
    told |= {"metadata": {METADATA: checkout}}
    assert receive(database, event("payment_intent.succeeded", told)) == ["foreign"]
    assert credit(database) == 0


def test_a_subscriptions_event_only_says_that_stripe_is_to_be_asked(database: Database) -> None:
    told = {"customer": "cus_acme", "status": "active", "items": {"data": []}}
    with database.transaction() as db:
        effect = inbox.receive(db, event("customer.subscription.created", told), NOW)
        assert (effect.outcome, effect.org, effect.asks) == ("done", "acme", True)
        (asked,) = customers.changed(db)
        assert (asked.org, asked.status, asked.plan) == ("acme", "", "")
    foreign = event("customer.subscription.created", told | {"customer": "cus_x"})
    assert receive(database, foreign) == ["foreign"]


def test_what_nobody_listens_for_is_not_stored(database: Database) -> None:
    assert receive(database, event("customer.created", {})) == ["ignored"]
    with database.reading() as db:
        assert Event.select().count(db) == 0


def test_an_object_that_is_malformed_is_refused_and_changes_nothing(database: Database) -> None:
    odd = event(COMPLETED, {"id": 5})
    with pytest.raises(Refused) as refused:
        receive(database, odd)
    assert refused.value.status == 400
    with database.reading() as db:
        assert Event.select().count(db) == Credit.select().count(db) == 0


def test_events_are_forgotten_once_they_cannot_come_again(database: Database) -> None:
    receive(database, event(COMPLETED, session(offered(database)), "evt_old"))
    with database.transaction() as db:
        inbox.delete_old(db, NOW + 89 * 86_400)
        assert Event.select().count(db) == 1
        inbox.delete_old(db, NOW + 91 * 86_400)
        assert Event.select().count(db) == 0


def test_the_page_lists_events_that_are_listened_for_and_nothing_else() -> None:
    page = Path(inbox.__file__).with_name("README.md").read_text()
    listed = set(re.findall(r"^(?:[a-z_]+\.[a-z_.]+ *)+$", page, re.MULTILINE))
    names = {name for line in listed for name in line.split()}
    assert names <= set(inbox.EVENT_TYPES)
    # Older names, and money that moves with a state that is told too.
    beside = {"charge.refund.updated", "charge.dispute.funds_withdrawn"}
    assert set(inbox.EVENT_TYPES) - names == beside | {"charge.dispute.funds_reinstated"}
