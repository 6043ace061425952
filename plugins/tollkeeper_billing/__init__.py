"""Selling access: prepaid credit, subscriptions and metered usage, paid through Stripe.

A call needs a balance that pays for the most it may cost. Stripe is never asked while a call waits.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from tollkeeper import Gateway, Notice, PluginError, hookimpl
from tollkeeper.amounts import nanousd
from tollkeeper.ledger import Ledger, UsageSource
from tollkeeper.management import RateGrants, RateLimits
from tollkeeper_billing import draws
from tollkeeper_billing.balances import Balances
from tollkeeper_billing.commands import billing_command
from tollkeeper_billing.outbox import give_lease
from tollkeeper_billing.processor import Processor, connected
from tollkeeper_billing.rounds import Rounds
from tollkeeper_billing.routes import Routes
from tollkeeper_billing.settings import STRIPE, BillingSettings
from tollkeeper_billing.till import TOPIC, Till, rpm_of

log = logging.getLogger("tollkeeper.billing")

ROUND_SECONDS = 60
STOP_SECONDS = 2.0
"""For letting others send at once."""


class Billing:
    """Guard: a balance that cannot be checked refuses."""

    Settings = BillingSettings
    policy = "guard"

    def __init__(self, settings: BillingSettings) -> None:
        self._settings = settings
        self._processor: Processor | None = None
        self.rounds: Rounds | None = None
        """What is done every minute, while it is."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Ask for a ledger, offer what plans grant, and add the routes and the command."""
        self._gateway = gateway
        self._till = gateway.keep(lambda: Till(gateway.database, gateway.clock))
        for protocol in (Ledger, UsageSource):
            gateway.need(protocol, "metering")
        if self._settings.has_rates:
            gateway.need(RateLimits, "limits")
        gateway.offer(RateGrants, self)  # type: ignore[type-abstract] # names a service
        Routes(self._settings, self._till, lambda: self._processor).register(gateway)
        gateway.add_command(billing_command(self._settings, gateway))
        gateway.promise(promise_of(self._settings))

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Have calls reserved on balances, then go the rounds."""
        async with connected(self._settings) as processor, self._balances():
            self._processor = processor
            self.rounds = self._rounds(processor)
            task_status.started()
            try:
                while True:
                    await self.rounds.make()
                    await self._till.wait(ROUND_SECONDS)
            finally:
                with trio.move_on_after(STOP_SECONDS, shield=True):
                    await self._till.write(give_lease, self._till.holder)

    def rpm_of(self, org: str) -> int | None:
        """Requests per minute that the plan of an organization grants; None for no bound."""
        return rpm_of(self._till.standing(org), self._settings)

    @asynccontextmanager
    async def _balances(self) -> AsyncIterator[None]:
        """Calls are reserved on what is stored and booked of every organization."""
        till, settings = self._till, self._settings
        ledger = self._gateway.find(Ledger)  # type: ignore[type-abstract] # names a service
        if ledger is None:
            raise PluginError("billing needs a plugin that keeps a ledger")
        balances = Balances(
            await till.write(partial(draws.begin, livemode=settings.livemode), till.now),
            settings.exempt,
            low=nanousd(settings.low_balance),
            warn=self._warn,
            fell=lambda _: till.wake(),
        )
        till.open(balances, settings)
        try:
            await self._reload()  # so that they know of all credit before they may refuse
            async with ledger.attached("billing", [balances]):
                charges = balances.charges()
                await till.change(draws.write_off, charges, till.now, touched=lambda _: charges)
                with self._gateway.database.announcer.subscribed(TOPIC, self._reload):
                    await self._reload()
                    till.use(balances)
                    yield
        finally:
            till.close(balances)

    async def _reload(self) -> None:
        await self._till.reload()
        self._till.apply()

    def _rounds(self, processor: Processor) -> Rounds:
        usage = self._gateway.find(UsageSource)  # type: ignore[type-abstract] # names a service
        if usage is None:
            raise PluginError("billing needs a plugin that sums up usage")
        return Rounds(self._settings, self._till, usage, processor, self._gateway.notify)

    def _warn(self, notice: Notice) -> None:
        log.warning("%s", notice.message)
        self._gateway.notify(notice)


def promise_of(settings: BillingSettings) -> str:
    """What the settings promise, for `tollkeeper check`."""
    mode = "real money moves" if settings.livemode else "test mode, no money moves"
    where = "" if settings.api_base == STRIPE else f", at {settings.api_base} instead of Stripe"
    return f"billing: {mode}{where}; {len(settings.packs)} packs, {len(settings.plans)} plans"
