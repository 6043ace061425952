"""Organizations as customers of Stripe: who they are there, and which plan they have.

All of it runs inside a transaction.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tollkeeper_billing.models import Customer

GOOD = frozenset({"active", "trialing"})
"""Statuses of a subscription that is paid for: its allowance is granted, its meter trusted."""
LIVING = GOOD | {"past_due"}
"""Those that keep the rate of a plan."""
ORDER = ("active", "trialing", "past_due", "unpaid", "paused", "incomplete")
"""Statuses of a subscription that is not ended, the best first."""


class Standing(msgspec.Struct, frozen=True):
    """An organization at Stripe."""

    org: str
    nonce: str
    email: str
    customer: str | None = None
    plan: str = ""
    status: str = ""
    subscription: str = ""
    period_start: int = 0
    period_end: int = 0
    prices: str = ""
    """By spaces."""
    is_paid: bool = False
    heard: int = 0
    looked: int = 0
    topup_pack: str = ""
    topup_below: int = 0
    """Nano-USD."""
    topup_error: str = ""


class Subscription(msgspec.Struct, frozen=True):
    """A subscription as Stripe shows it now."""

    id: str
    status: str
    prices: tuple[str, ...]
    period_start: int
    period_end: int
    created: int


_COLUMNS = (
    Customer.org,
    Customer.nonce,
    Customer.email,
    Customer.customer,
    Customer.plan,
    Customer.status,
    Customer.subscription,
    Customer.period_start,
    Customer.period_end,
    Customer.prices,
    Customer.is_paid,
    Customer.heard,
    Customer.looked,
    Customer.topup_pack,
    Customer.topup_below_nanousd,
    Customer.topup_error,
)


def standings(database: Any) -> list[Standing]:  # noqa: ANN401
    """All organizations that ever came to the till."""
    return [Standing(*row) for row in Customer.select(*_COLUMNS).tuples().execute(database)]


def standing(database: Any, org: str) -> Standing | None:  # noqa: ANN401
    """One of them."""
    rows = Customer.select(*_COLUMNS).where(Customer.org == org).tuples().execute(database)
    return next((Standing(*row) for row in rows), None)


def begin_customer(database: Any, org: str, email: str) -> Standing:  # noqa: ANN401
    """The organization's row, made before Stripe is asked, so that it is asked for one only."""
    found = standing(database, org)
    if found is None:
        found = Standing(org, secrets.token_hex(12), email)
        Customer.insert(
            topup_below_nanousd=0,
            **{k: v for k, v in msgspec.structs.asdict(found).items() if k != "topup_below"},
        ).execute(database)
    return found


def renew_nonce(database: Any, org: str) -> None:  # noqa: ANN401
    """Ask for a customer anew: under the old nonce Stripe repeats that it failed, for a day."""
    unnamed = (Customer.org == org) & Customer.customer.is_null()
    Customer.update(nonce=secrets.token_hex(12)).where(unnamed).execute(database)


def note_customer(database: Any, org: str, customer: str) -> Standing | None:  # noqa: ANN401
    """Its id at Stripe, unless it has one. How it stands."""
    unnamed = (Customer.org == org) & Customer.customer.is_null()
    Customer.update(customer=customer).where(unnamed).execute(database)
    return standing(database, org)


def org_of(database: Any, customer: str) -> str | None:  # noqa: ANN401
    """Whose customer this is; None for somebody else's."""
    rows = Customer.select(Customer.org).where(Customer.customer == customer)
    return next((org for (org,) in rows.tuples().execute(database)), None)


def note_change(database: Any, org: str) -> None:  # noqa: ANN401
    """Stripe is to be asked for the subscription of this organization."""
    Customer.update(heard=Customer.heard + 1).where(Customer.org == org).execute(database)


def changed(database: Any) -> list[Standing]:  # noqa: ANN401
    """Those that Stripe may know more of: of whom an event told, and who have a subscription."""
    due = (Customer.heard > Customer.looked) | (Customer.subscription != "")
    wanted = Customer.customer.is_null(False) & due
    return [
        Standing(*row)
        for row in Customer.select(*_COLUMNS).where(wanted).tuples().execute(database)
    ]


def choose(subscriptions: Iterable[Subscription], plans: Mapping[str, str]) -> Subscription | None:
    """The one that counts of all that a customer has.

    One of our plans first, then by status, then the newest; `plans` is by price.
    """

    def rank(subscription: Subscription) -> tuple[bool, int, int]:
        ours = any(price in plans for price in subscription.prices)
        return not ours, ORDER.index(subscription.status), -subscription.created

    return min((s for s in subscriptions if s.status in ORDER), key=rank, default=None)


def note_subscription(
    database: Any,  # noqa: ANN401
    asked: Standing,
    found: Subscription | None,
    plans: Mapping[str, str],
    *,
    is_paid: bool,
) -> Standing:
    """Take over what Stripe showed when it was asked by that standing; `plans` is by price.

    What else was changed of the organization in the meantime stays.
    """
    Customer.update(
        looked=asked.heard,
        plan=next((plans[p] for p in found.prices if p in plans), "") if found else "",
        status=found.status if found else "",
        subscription=found.id if found else "",
        period_start=found.period_start if found else 0,
        period_end=found.period_end if found else 0,
        prices=" ".join(found.prices) if found else "",
        is_paid=is_paid,
    ).where(Customer.org == asked.org).execute(database)
    return standing(database, asked.org) or asked


def set_topup(database: Any, org: str, pack: str, below: int) -> None:  # noqa: ANN401
    """Which pack is bought when the balance is below this; none for an empty name."""
    ours = Customer.org == org
    Customer.update(topup_pack=pack, topup_below_nanousd=below, topup_error="").where(ours).execute(
        database
    )


def note_topup_error(database: Any, org: str, error: str) -> None:  # noqa: ANN401
    """Buy none any more, for this reason, until the organization says so again."""
    Customer.update(topup_error=error).where(Customer.org == org).execute(database)
