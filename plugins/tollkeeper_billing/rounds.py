"""The rounds that billing makes: draw charges, ask Stripe what changed, buy packs, send usage.

Each step stands alone: while Stripe is down the others go on, and what it missed comes later.
"""

import logging
from collections.abc import Awaitable, Callable

from tollkeeper import Notice
from tollkeeper.amounts import nanousd
from tollkeeper.ledger import UsageQuery, UsageSource
from tollkeeper_billing import customers, draws, inbox, outbox
from tollkeeper_billing.processor import Declined, Processor, Unreachable, all_of
from tollkeeper_billing.sending import Sender
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import Till, meter_of
from tollkeeper_billing.topups import Topups

log = logging.getLogger("tollkeeper.billing")

DAY = draws.DAY


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
        self._plans = {plan.stripe_price: name for name, plan in settings.plans.items()}
        self._failing: set[str] = set()

    async def make(self) -> None:
        """Once around. What fails is logged, and tried again with the next."""
        async with self._till.turn:
            await self._attempt("charges", self.draw)
            now, holder = self._till.now, self._till.holder
            if not await self._till.write(outbox.take_lease, holder, now):
                return
            await self._attempt("subscriptions", self.look_up)
            await self._attempt("allowances", self.grant)
            await self._attempt("top-ups", self._topups.make)
            await self._attempt("usage", self._sender.send)
            await self._till.write(inbox.delete_old, now)

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
        now, since = self._till.now, await self._till.write(draws.begin, self._till.now)
        day = await self._till.read(draws.first_day, since, now)
        while day <= now:
            span = UsageQuery(by="org", since=max(day, since), until=day + DAY)
            sums = await self._usage.usage(span)
            charged = {each.key: each.charge for each in sums}
            await self._till.change(
                draws.draw, day, charged, self._terms_of, now, touched=lambda orgs: orgs
            )
            day += DAY

    def _terms_of(self, org: str) -> draws.Terms:
        if org in self._settings.exempt:
            return draws.Terms(exempt=True)
        standing = self._till.standing(org)
        if standing is None:
            return draws.Terms()
        return draws.Terms(standing.customer or "", meter_of(standing, self._settings))

    async def look_up(self) -> None:
        """Ask Stripe for the subscriptions that an event told of, or whose period is over."""
        wanted = await self._till.read(customers.changed, self._till.now)
        try:
            await all_of(wanted, self._look_up_one)
        finally:
            self._till.apply(self._settings)

    async def _look_up_one(self, standing: customers.Standing) -> None:
        found = await self._stripe.subscriptions(standing.customer or "")
        best = customers.choose(found, self._plans)
        after = await self._till.write(customers.note_subscription, standing, best, self._plans)
        if best is not None and not after.plan:
            log.error("%s subscribed to prices of no plan: %s", standing.org, best.prices)
        self._till.note(after)

    async def grant(self) -> None:
        """Take back what is left of allowances that are over, and give those of new periods."""
        now = self._till.now
        for org, amount in (await self._till.read(draws.lapsing, now)).items():
            await self._lapse(org, amount)
        due = []
        for standing in self._till.standings():
            plan = self._settings.plans.get(standing.plan)
            if plan and standing.status in customers.GOOD and standing.period_end > now:
                period = (standing.subscription, standing.period_start, standing.period_end)
                due.append((standing.org, period, nanousd(plan.included)))
        if due:
            await self._till.change(draws.grant_allowances, due, now, touched=lambda orgs: orgs)

    async def _lapse(self, org: str, amount: int) -> None:
        """Not what calls under way hold: that lapses once they are over."""
        balances = self._till.balances
        free = balances.set_aside(org, amount) if balances else amount
        try:
            await self._till.change(draws.lapse, org, free, self._till.now, touched=lambda _: [org])
        finally:
            if balances:
                balances.release(org, free)
