"""The rounds that billing makes: draw charges, ask Stripe what changed, buy packs, send usage.

Each step stands alone: while Stripe is down the others go on, and what it missed comes later.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from tollkeeper import Notice
from tollkeeper.amounts import nanousd
from tollkeeper.ledger import UsageQuery, UsageSource
from tollkeeper_billing import allowances, customers, draws, inbox, outbox
from tollkeeper_billing.processor import Declined, Processor, Unreachable, all_of
from tollkeeper_billing.sending import Sender
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import Till, meter_of
from tollkeeper_billing.topups import Topups

log = logging.getLogger("tollkeeper.billing")

DAY = draws.DAY
HOUR = 3600
AT_ONCE = 200
"""Organizations in one transaction, between which calls get theirs."""


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
        self._sender = Sender(till, processor, tell)
        self._tell = tell
        self._plans = {
            price: name
            for name, plan in settings.plans.items()
            for price in (plan.stripe_price, *plan.former_prices)
        }
        self._granted: set[allowances.Due] = set()
        """What need not be looked at again in this hour."""
        self._granted_in = self._asked_in = 0
        self._failing: set[str] = set()

    async def make(self) -> None:
        """Once around. What fails is logged, and tried again with the next."""
        async with self._till.turn:
            await self._attempt("charges", self.draw)
            for name, step in (
                ("subscriptions", self.look_up),
                ("allowances", self.grant),
                ("top-ups", self._topups.make),
                ("usage", self._sender.send),
                ("old events", self.forget),
            ):
                await self._attempt(name, partial(self._leased, step))

    async def _leased(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do what one process may do at a time, if it is this one's turn."""
        till = self._till
        if await till.write(outbox.take_lease, till.holder, till.now):
            await step()

    async def forget(self) -> None:
        """Forget events that cannot come again."""
        await self._till.write(inbox.delete_old, self._till.now)

    async def _attempt(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
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
        """Ask Stripe for the subscriptions that an event told of, or whose period is over."""
        now = self._till.now
        # A webhook may get lost: what is not paid is looked at again each hour.
        unpaid_too = now // HOUR != self._asked_in
        wanted = await self._till.read(customers.changed, now, unpaid_too)
        self._asked_in = now // HOUR
        try:
            await all_of(wanted, self._look_up_one)
        finally:
            self._till.apply()

    async def _look_up_one(self, standing: customers.Standing) -> None:
        try:
            found = await self._stripe.subscriptions(standing.customer or "")
        except Declined as declined:
            if declined.code != "resource_missing":
                raise
            found = []  # the customer was deleted there
        best = customers.choose(found, self._plans)
        after = await self._till.write(customers.note_subscription, standing, best, self._plans)
        self._till.note(after)
        if (odd := self._odd_in(after, found)) is not None:
            message = f"{standing.org} {odd}"
            log.error("%s", message)
            self._tell(Notice("odd_subscription", message, org=standing.org))

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

    async def grant(self) -> None:
        """Take back what is left of allowances that are over, and give those that are paid."""
        now = self._till.now
        due = [each for each in map(self._due_of, self._till.standings()) if each is not None]
        if now // HOUR != self._granted_in:  # a window may be over that stood in the way
            self._granted_in, self._granted = now // HOUR, set()
        new = [each for each in due if each not in self._granted]
        for at in range(0, len(new), AT_ONCE):
            some = new[at : at + AT_ONCE]
            await self._till.change(allowances.grant_all, some, now, touched=lambda orgs: orgs)
        self._granted = set(due)
        # What is left of the window before lapses now; calls under way may hold some of it.
        for org, amount in (await self._till.read(allowances.lapsing, self._is_good, now)).items():
            await self._lapse(org, amount)

    def _is_good(self, org: str) -> bool:
        standing = self._till.standing(org)
        return standing is not None and standing.status in customers.GOOD

    def _due_of(self, standing: customers.Standing) -> allowances.Due | None:
        """What the plan of an organization includes, where its period is paid and not over."""
        plan = self._settings.plans.get(standing.plan)
        is_paid = standing.is_paid and standing.status in customers.GOOD
        if plan is None or not is_paid or standing.period_end <= self._till.now:
            return None
        period = (standing.period_start, standing.period_end)
        return standing.org, period, nanousd(plan.included)

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
