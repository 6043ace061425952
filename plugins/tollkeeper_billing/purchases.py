"""What organizations buy: checkouts, the credit they give, and what refunds take back of it.

All of it runs inside a transaction. Whom a payment credits, and how much, is what our own row says.
"""

import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

from tollkeeper_billing.balances import Funds
from tollkeeper_billing.models import Checkout, Credit, Purse, Reversal, newest, total
from tollkeeper_billing.purses import read_purse, write_purse

PACK, PLAN, TOPUP = "pack", "plan", "topup"


class Offer(msgspec.Struct, frozen=True):
    """What is sold, at which price."""

    kind: str
    """pack, plan or topup."""
    name: str
    """In the TOML."""
    cents: int = 0
    credit: int = 0
    """Nano-USD."""


class Bought(msgspec.Struct, frozen=True):
    """A checkout as it is stored."""

    id: str
    org: str
    kind: str
    name: str
    cents: int
    credit: int
    customer: str
    session: str | None
    payment_intent: str | None
    paid_cents: int
    reversed: int
    status: str
    created_at: int


_COLUMNS = (
    Checkout.id,
    Checkout.org,
    Checkout.kind,
    Checkout.name,
    Checkout.cents,
    Checkout.credit_nanousd,
    Checkout.customer,
    Checkout.session,
    Checkout.payment_intent,
    Checkout.paid_cents,
    Checkout.reversed_nanousd,
    Checkout.status,
    Checkout.created_at,
)


def open_checkout(
    database: Any,  # noqa: ANN401
    whose: tuple[str, str],
    offer: Offer,
    user: str,
    now: int,
) -> Bought:
    """Note what an organization (id, customer) is offered, before Stripe is asked."""
    checkout = f"co_{now:08x}{secrets.token_hex(12)}"
    org, customer = whose
    Checkout.insert(
        id=checkout,
        org=org,
        kind=offer.kind,
        name=offer.name,
        cents=offer.cents,
        credit_nanousd=offer.credit,
        customer=customer,
        session=None,
        payment_intent=None,
        paid_cents=0,
        reversed_nanousd=0,
        status="open",
        made_by=user,
        created_at=now,
    ).execute(database)
    return get_checkout(database, checkout)


def note_session(database: Any, checkout: str, session: str) -> None:  # noqa: ANN401
    """The session at Stripe in which it can be paid."""
    Checkout.update(session=session).where(Checkout.id == checkout).execute(database)


def close_checkout(database: Any, checkout: str) -> None:  # noqa: ANN401
    """Note that an open one came to nothing. Should it be paid after all, it counts as paid."""
    is_open = (Checkout.id == checkout) & (Checkout.status == "open")
    Checkout.update(status="closed").where(is_open).execute(database)


def find_checkout(database: Any, *, checkout: str = "", session: str = "") -> Bought | None:  # noqa: ANN401
    """By the session at Stripe, else by its own id."""
    for column, value in ((Checkout.session, session), (Checkout.id, checkout)):
        if value:
            rows = Checkout.select(*_COLUMNS).where(column == value).tuples().execute(database)
            for row in rows:
                return Bought(*row)
    return None


def get_checkout(database: Any, checkout: str) -> Bought:  # noqa: ANN401
    """One that is there."""
    found = find_checkout(database, checkout=checkout)
    if found is None:
        raise LookupError(checkout)
    return found


def checkouts(database: Any, *, status: str, kind: str = "", org: str = "") -> list[Bought]:  # noqa: ANN401
    """All of a status, oldest first."""
    found = Checkout.select(*_COLUMNS).where(Checkout.status == status)
    found = found.where(Checkout.kind == kind) if kind else found
    found = found.where(Checkout.org == org) if org else found
    return [Bought(*row) for row in found.order_by(Checkout.created_at).tuples().execute(database)]


def unpaid(database: Any, since: int) -> list[Bought]:  # noqa: ANN401
    """All that were made since a moment and are not paid, as far as we know; oldest first."""
    wanted = (Checkout.status != "paid") & (Checkout.created_at >= since)
    found = Checkout.select(*_COLUMNS).where(wanted).order_by(Checkout.created_at)
    return [Bought(*row) for row in found.tuples().execute(database)]


def count_topups(database: Any, org: str, since: int) -> int:  # noqa: ANN401
    """How many packs were bought by themselves since a moment."""
    ours = (Checkout.org == org) & (Checkout.kind == TOPUP) & (Checkout.created_at >= since)
    return int(Checkout.select().where(ours).count(database))


def settle_payment(
    database: Any,  # noqa: ANN401
    bought: Bought,
    payment_intent: str | None,
    paid_cents: int,
    now: int,
) -> bool:
    """Give what was bought, once, less what was refunded already. False where it was given."""
    if bought.status == "paid":
        return False
    Checkout.update(status="paid", payment_intent=payment_intent, paid_cents=paid_cents).where(
        Checkout.id == bought.id
    ).execute(database)
    if bought.credit:
        note = f"{bought.kind} {bought.name}"
        add_credit(database, (bought.org, bought.kind, bought.credit), bought.id, note, now)
    if payment_intent:
        reverse(database, payment_intent, now)
    return True


def add_credit(
    database: Any,  # noqa: ANN401
    change: tuple[str, str, int],
    source: str,
    note: str,
    now: int,
) -> bool:
    """Change a balance: org, kind, nano-USD. False where this source has counted before."""
    org, kind, amount = change
    if Credit.select().where(Credit.source == source).count(database):
        return False
    Credit.insert(
        org=org, kind=kind, amount_nanousd=amount, source=source, note=note, created_at=now
    ).execute(database)
    if amount < 0:  # what a debt took of an allowance does not come back with the next credit
        write_purse(database, org, read_purse(database, org))
    return True


def note_reversal(
    database: Any,  # noqa: ANN401
    reversal: tuple[str, str, int],
    rank: int,
    *,
    counts: bool,
    now: int,
) -> bool:
    """A refund or dispute: id, payment, cents. False where a later state of it is known."""
    name, payment_intent, cents = reversal
    known = Reversal.select(Reversal.rank).where(Reversal.id == name).tuples().execute(database)
    for (before,) in known:
        if before >= rank:
            return False
    Reversal.insert(
        id=name,
        payment_intent=payment_intent,
        cents=cents,
        rank=rank,
        counts=counts,
        created_at=now,
    ).on_conflict_replace().execute(database)
    return True


def reverse(database: Any, payment_intent: str, now: int) -> str | None:  # noqa: ANN401
    """Take back, or give back, the share of a credit whose money went back. Whose it is.

    Always to what all refunds and disputes come to together, so that their order does not matter.
    """
    ours = (Checkout.payment_intent == payment_intent) & (Checkout.status == "paid")
    rows = Checkout.select(*_COLUMNS).where(ours).tuples().execute(database)
    for row in rows:
        bought = Bought(*row)
        back = _money_back(database, payment_intent)
        due = share(bought.credit, back, bought.paid_cents)
        if due != bought.reversed:
            source = f"{bought.id}:{due}:{secrets.token_hex(4)}"
            change = (bought.org, "reversal", bought.reversed - due)
            add_credit(database, change, source, "refunds and disputes", now)
            mine = Checkout.id == bought.id
            Checkout.update(reversed_nanousd=due).where(mine).execute(database)
        return bought.org
    return None


def share(credit: int, back_cents: int, paid_cents: int) -> int:
    """Nano-USD of a credit that go with the part of its payment that went back."""
    if paid_cents <= 0:
        return 0
    return min(credit, -(-credit * back_cents // paid_cents))


def _money_back(database: Any, payment_intent: str) -> int:  # noqa: ANN401
    counting = (Reversal.payment_intent == payment_intent) & (Reversal.counts == True)  # noqa: E712
    for (cents,) in (
        Reversal.select(total(Reversal.cents)).where(counting).tuples().execute(database)
    ):
        return cents or 0
    return 0


def read_funds(database: Any, orgs: Iterable[str] | None = None) -> list[Funds]:  # noqa: ANN401
    """What is stored of the money of these, or of all organizations."""
    sums = Credit.select(Credit.org, total(Credit.amount_nanousd), newest(Credit.id))
    purses = Purse.select(Purse.org, Purse.metered_nanousd + Purse.exempt_nanousd)
    if orgs is not None:
        wanted = list(orgs)
        sums = sums.where(Credit.org.in_(wanted))
        purses = purses.where(Purse.org.in_(wanted))
    beyond = dict(purses.tuples().execute(database))
    credits = {
        org: (amount, last)
        for org, amount, last in sums.group_by(Credit.org).tuples().execute(database)
    }
    return [
        Funds(org, *credits.get(org, (0, 0)), beyond.get(org, 0)) for org in {**beyond, **credits}
    ]
