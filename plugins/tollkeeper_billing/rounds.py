"""The rounds that billing makes: draw charges, ask Stripe what changed, buy packs, send usage.

Each step stands alone: while Stripe is down the others go on, and what it missed comes later.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from tollkeeper import Notice
from tollkeeper.amounts import nanousd
from tollkeeper.ledger import UsageQuery, UsageSource
from tollkeeper_billing import allowances, customers, draws, inbox, outbox
from tollkeeper_billing.asking import all_of
from tollkeeper_billing.processor import UNREAD, Declined, Processor, Unreachable, Unreadable
from tollkeeper_billing.sending import Sender
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import Till, meter_of
from tollkeeper_billing.topups import Topups

log = logging.getLogger("tollkeeper.billing")

DAY = draws.DAY
MINUTE, HOUR = 60, 3600
AT_ONCE = 200
"""Organizations in one transaction, between which calls get theirs."""
LOOK_BACK = 400 * DAY
"""How old an invoice may be that still gives something once it is paid."""


class Rounds:
    """What is done every minute, or at once when something happened."""

    def __init__(
        self,
        settings: BillingSettings,
        till: Till,
        usage: UsageSource,
        processor: Processor,
        tell: Callable[[Notice], None],
    ) -> None:
        self._settings = settings
        self._till = till
        self._usage = usage
        self._stripe = processor
        self._topups = Topups(settings, till, processor, tell)
        self._sender = Sender(till, processor, tell, self._terms_of)
        self._tell = tell
        self._plans = {
            price: name
            for name, plan in settings.plans.items()
            for price in (plan.stripe_price, *plan.former_prices)
        }
        self._offers = {
            price: allowances.Offer(nanousd(plan.included), plan.is_metered)
            for plan in settings.plans.values()
            for price in (plan.stripe_price, *plan.former_prices)
        }
        self._next_look: dict[str, int] = {}
        """By organization: Unix seconds. An event is looked into at once."""
        self._odd: dict[str, str] = {}
        """What the operator was told."""
        self._failing: set[str] = set()

    async def make(self) -> None:
        """Once around. What fails is logged, and tried again with the next."""
        async with self._till.turn, trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_lease)
            await self._attempt("charges", self.draw)
            for name, step in (
                ("subscriptions", self.look_up),
                ("allowances", self.lapse),
                ("top-ups", self._topups.make),
                ("usage", self._sender.send),
                ("old events", self.forget),
            ):
                await self._attempt(name, partial(self._leased, step))
            nursery.cancel_scope.cancel()

    async def _leased(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do what one process may do at a time, if it is this one's turn."""
        if await self._take_lease():
            await step()

    async def _take_lease(self) -> bool:
        return await self._till.write(outbox.take_lease, self._till.holder, self._till.now)

    async def _keep_lease(self) -> None:
        """However long a step takes."""
        while True:
            await trio.sleep(outbox.LEASE_SECONDS / 3)
            await self._attempt("the lease", self._take_lease)

    async def forget(self) -> None:
        """Forget events that cannot come again."""
        await self._till.write(inbox.delete_old, self._till.now)

    async def _attempt(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        """Log the first of a row of failures, and its end."""
        try:
            await step()
        except (Unreachable, Declined) as error:
            if name not in self._failing:
                log.warning("%s wait for Stripe: %s", name, error)
            self._failing.add(name)
        except Exception:  # /v1 goes on, whatever breaks in here
            log.exception("%s failed; they are tried again", name)
        else:
            if name in self._failing:
                self._failing.discard(name)
                log.warning("%s do not wait for Stripe any more", name)

    async def draw(self) -> None:
        """Draw what was charged since the last time from allowances, credit and meters."""
        now, since = self._till.now, await self._till.read(draws.since)
        if since is None:
            return
        day = await self._till.read(draws.first_day, since, now)
        while day <= now:
            span = UsageQuery(by="org", since=max(day, since), until=day + DAY)
            charged = {each.key: each.charge for each in await self._usage.usage(span)}
            new = await self._till.read(draws.undrawn, day, charged)
            for at in range(0, len(new), AT_ONCE):
                some = new[at : at + AT_ONCE]
                await self._till.change(
                    draws.draw, day, some, self._terms_of, now, touched=lambda orgs: orgs
                )
            day += DAY

    def _terms_of(self, org: str) -> draws.Terms:
        if org in self._settings.exempt:
            return draws.Terms(exempt=True)
        standing = self._till.standing(org)
        if standing is None:
            return draws.Terms()
        meter = meter_of(standing, self._settings)
        return draws.Terms(standing.customer or "", meter, begin=standing.period_start)

    async def look_up(self) -> None:
        """Ask Stripe for those that an event told of, and now and then for all subscribers."""
        now = self._till.now
        wanted = [
            each
            for each in await self._till.read(customers.changed)
            if each.heard > each.looked or now >= self._next_look_at(each, now)
        ]
        try:
            await all_of(wanted, self._look_up_one)
        finally:
            self._till.apply()

    def _next_look_at(self, standing: customers.Standing, now: int) -> int:
        """When Stripe is asked without an event, since a webhook may get lost.

        For whoever has a paid period at any moment of a day at first, so that not all come at once.
        """
        left = min(DAY, standing.period_end - now) if standing.is_paid else 0
        soon = now + secrets.randbelow(max(1, left))
        return self._next_look.setdefault(standing.org, soon)

    async def _look_up_one(self, asked: customers.Standing) -> None:
        found: list[customers.Subscription] = []
        invoices: list[allowances.Invoice] = []
        now, customer = self._till.now, asked.customer or ""
        try:
            # In this order, or one that is paid in between is taken for one that is ended.
            invoices = await self._stripe.invoices(customer, now - LOOK_BACK)
            found = await self._stripe.subscriptions(customer)
        except Declined as declined:
            if declined.code != "resource_missing":
                raise  # else the customer was deleted there
        except Unreadable as unreadable:
            self._next_look[asked.org] = now + HOUR
            self._tell_odd(asked.org, f"cannot be looked up: {unreadable}")
            raise
        after = await self._till.change(
            self._take_over, asked, found, invoices, now, touched=_org_of
        )
        self._till.note(after)
        self._next_look[after.org] = now + _pause(after, now)
        unread = [each.id for each in invoices if each.status == UNREAD]
        odd = f"has invoices that cannot be read: {', '.join(unread)}" if unread else None
        self._tell_odd(after.org, odd or self._odd_in(after, found))

    def _take_over(
        self,
        database: Any,  # noqa: ANN401
        asked: customers.Standing,
        found: Sequence[customers.Subscription],
        invoices: Sequence[allowances.Invoice],
        now: int,
    ) -> customers.Standing:
        """Note what Stripe showed, and give what was paid for."""
        best = customers.choose(found, self._plans)
        owed = {each.subscription for each in invoices if each.status in allowances.WAITING}
        is_paid = best is not None and best.id not in owed
        after = customers.note_subscription(database, asked, best, self._plans, is_paid=is_paid)
        shown = allowances.Seen(after, invoices, {each.id for each in found})
        allowances.grant(database, shown, self._offers, now)
        return after

    def _tell_odd(self, org: str, odd: str | None) -> None:
        """Tell the operator what is odd of an organization, once."""
        if odd and odd != self._odd.get(org):
            message = f"{org} {odd}"
            log.error("%s", message)
            self._tell(Notice("odd_subscription", message, org=org))
        self._odd[org] = odd or ""

    def _odd_in(
        self, standing: customers.Standing, found: Sequence[customers.Subscription]
    ) -> str | None:
        """What the operator should look at."""
        living = [each.id for each in found if each.status in customers.LIVING]
        if len(living) > 1:
            return f"pays for several subscriptions: {', '.join(living)}"
        plan = self._settings.plans.get(standing.plan)
        if living and plan is None:
            return f"subscribed to prices of no plan: {standing.prices}"
        if living and plan and plan.meter_price and plan.meter_price not in standing.prices.split():
            return f"has the plan {standing.plan} without its meter_price: no usage is metered"
        return None

    async def lapse(self) -> None:
        """Take back what is left of allowances that are over; calls under way may hold some."""
        due = await self._till.read(allowances.lapsing, self._till.now)
        for org, amount in due.items():
            await self._lapse(org, amount)

    async def _lapse(self, org: str, amount: int) -> None:
        """Not what calls under way hold: that lapses once they are over."""
        balances = self._till.balances
        free = balances.set_aside(org, amount) if balances else amount
        try:
            await self._till.change(
                allowances.lapse, org, free, self._till.now, touched=lambda _: [org]
            )
        finally:
            if balances:
                balances.release(org, free)


def _pause(standing: customers.Standing, now: int) -> int:
    """Seconds until an organization is looked up again; soon where a renewal is to be seen."""
    left = standing.period_end - now
    if left > 0:
        return min(left, DAY if standing.is_paid else HOUR)
    return MINUTE if standing.status in customers.GOOD and left > -HOUR else HOUR


def _org_of(standing: customers.Standing) -> list[str]:
    return [standing.org]
