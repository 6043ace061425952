"""What calls cost: a hold before each attempt, one entry after it, in a ledger that only grows."""

from collections.abc import Sequence

import trio

from tollkeeper import (
    Attempt,
    Deployment,
    Exchange,
    Failed,
    Gateway,
    PriceSettings,
    hookimpl,
    invalid_request,
)
from tollkeeper import ledger as services
from tollkeeper_metering.bounds import input_bound
from tollkeeper_metering.commands import ledger_command, usage_command
from tollkeeper_metering.entries import OpenHold, judge
from tollkeeper_metering.prices import UNKNOWN, make_markup
from tollkeeper_metering.rates import Rate, Rates, find_rate
from tollkeeper_metering.service import Ledger
from tollkeeper_metering.settings import MeteringSettings
from tollkeeper_metering.usage import sum_usage

NAME = "metering"
GUESSED_OUTPUT = 65536
"""Output tokens that a call without any bound is held to cost where no budget covers it."""


class Metering:
    """Guard: what cannot be written down is not sent."""

    Settings = MeteringSettings
    policy = "guard"

    def __init__(self, settings: MeteringSettings) -> None:
        self._settings = settings
        self._mark_up = make_markup(settings.markup)
        self._rates = Rates()

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the ledger, sums of usage and prices to other plugins, and the commands."""
        self._clock, self._database = gateway.clock, gateway.database
        self._ledger = gateway.keep(lambda: Ledger(gateway.database, gateway.clock))
        self._ledger.prepare(self._settings)
        self._rates.follow()
        gateway.offer(services.Ledger, self._ledger)  # type: ignore[type-abstract] # names a service
        gateway.offer(services.UsageSource, self)  # type: ignore[type-abstract] # names a service
        gateway.offer(services.PriceSource, self)  # type: ignore[type-abstract] # names a service
        gateway.add_command(ledger_command(gateway.database))
        gateway.add_command(usage_command(gateway.database))
        gateway.promise(promise_of(self._settings))

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Close what a crash left open, then keep the ledger's thread at work."""
        async with self._ledger.running(self._settings):
            task_status.started()
            await self._ledger.keep_up()

    @hookimpl
    async def attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        """Hold what this attempt may cost, and return once the hold is written."""
        if not exchange.operation.metered:
            return
        if attempt.number > 1:
            self._settle_failed(exchange)  # what they held is there for this one
        ledger, rate = self._ledger, self._rates.of(attempt.deployment)
        covers = ledger.covering(exchange.principal)
        if rate.price is UNKNOWN and self._refuses_unknown(covers):
            raise unpriced(exchange.model)
        hold = OpenHold(
            ledger.take_id(),
            attempt.id,
            exchange.id,
            attempt.number,
            exchange.principal.org,
            exchange.principal.key or "",
            exchange.model,
            rate.name,
            rate.price.version,
            self._amount(exchange, attempt, rate, covered=bool(covers)),
            int(self._clock.time()),
            rate.price,
            covers,
            bool(covers),
        )
        ledger.reserve(hold)
        attempt.holds[NAME] = hold
        attempt.drain_tokens = rate.drain_tokens
        await ledger.commit(hold)

    @hookimpl
    def settle(self, exchange: Exchange) -> None:
        """Give holds back, and hand over how each attempt ended."""
        for attempt in exchange.attempts:
            self._settle_attempt(attempt)

    def _settle_failed(self, exchange: Exchange) -> None:
        for attempt in exchange.attempts:
            if attempt.error is not None:
                self._settle_attempt(attempt)

    def _settle_attempt(self, attempt: Attempt) -> None:
        hold = attempt.holds.pop(NAME, None)
        if isinstance(hold, OpenHold):
            now = int(self._clock.time())
            self._ledger.settle(judge(attempt, hold, self._mark_up, now))

    async def usage(self, query: services.UsageQuery) -> Sequence[services.UsageSum]:
        """Sums of usage, of what is written."""
        return await self._database.read(sum_usage, query)

    def price_of(self, deployment: Deployment) -> PriceSettings | None:
        """What a deployment costs, by the TOML or the bundled data."""
        return find_rate(deployment).settings

    def _refuses_unknown(self, covers: Sequence[object]) -> bool:
        policy = self._settings.unknown_price
        return policy == "refuse" or (policy is None and bool(covers))

    def _amount(self, exchange: Exchange, attempt: Attempt, rate: Rate, *, covered: bool) -> int:
        """Nano-USD to hold. Where an account covers the call this bounds what it can cost."""
        operation = attempt.operation or exchange.operation
        dialect, bound = operation.dialect, exchange.max_output
        if dialect is None or not dialect.has_output:
            bound = 0
        elif bound is None and covered:
            bound = rate.max_output
            if bound is None:
                raise unbounded(exchange.model)
            if attempt.deployment.max_output is None:
                self._rates.warn_of_window(rate)
            attempt.body = dialect.with_bound(attempt.body, bound)
        elif bound is None:
            bound = rate.max_output or GUESSED_OUTPUT
        spent = len(attempt.body)
        if covered:
            attempt.bound = bound
            spent = input_bound(attempt.body, exchange.headers, self._settings.media_tokens)
        return self._mark_up(rate.price.bound(spent, bound * exchange.answers))


def promise_of(settings: MeteringSettings) -> str:
    """What the settings promise, for `tollkeeper check`."""
    holds = "a power cut" if settings.sync_holds else "kill -9"
    return (
        f"metering: a hold survives {holds} before a byte goes upstream; "
        f"a settlement survives a power cut after {settings.sync_interval:g} s"
    )


def unpriced(model: str) -> Failed:
    """The answer to a call whose price nobody knows. Nothing a client does can cure it."""
    return Failed(
        500,
        "server_error",
        f"The model '{model}' has no price, so its calls are refused; the operator can name one"
        f' in [models."{model}"] or set unknown_price in [plugins.metering].',
        headers={"x-should-retry": "false"},
    )


def unbounded(model: str) -> Exception:
    """The refusal of a call that a budget or a balance covers and nothing bounds."""
    return invalid_request(
        f"A budget or balance covers this call, and nothing bounds its output: send a bound, or"
        f" have the operator set max_output for the model '{model}'.",
        param="max_output",
    )
