"""What billing keeps in memory across changes of its settings, and how the database changes it."""

import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import trio

from tollkeeper import Clock, Database
from tollkeeper_billing.balances import Balances, Funds
from tollkeeper_billing.customers import GOOD, LIVING, Standing, standings
from tollkeeper_billing.purchases import read_funds
from tollkeeper_billing.settings import BillingSettings

T = TypeVar("T")
LEAST_SECONDS = 1.0
"""Between two rounds, however much happens."""
TOPIC = "billing"
"""What other processes announce a change of credits under."""


class Till:
    """One per process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.holder = secrets.token_hex(8)
        """Who this process is, where only one may send."""
        self.turn = trio.Lock()
        """Of whoever does the rounds."""
        self._balances: dict[Balances, BillingSettings] = {}
        self._used: list[Balances] = []
        self._standings: dict[str, Standing] = {}
        self._notes = 0
        self._woken = trio.Event()
        self._is_unsure = False
        """Whether something may have been committed that the balances were not told."""

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock.time())

    @property
    def balances(self) -> Balances | None:
        """Those that calls are reserved on, None while there are none."""
        return self._used[-1] if self._used else None

    def open(self, balances: Balances, settings: BillingSettings) -> None:
        """Keep these up to date too, from now on, by these settings."""
        self._balances[balances] = settings

    def use(self, balances: Balances) -> None:
        """Calls are reserved on these from now on."""
        self._used.append(balances)

    def close(self, balances: Balances) -> None:
        """No more."""
        del self._balances[balances]
        if balances in self._used:
            self._used.remove(balances)

    async def change(
        self, work: Callable[..., T], *args: object, touched: Callable[[T], Iterable[str]]
    ) -> T:
        """Write what may change the money of those it touched, and have that in force on return.

        What is committed is told to the balances even where whoever asked is gone.
        """

        def run(database: Any) -> tuple[T, list[Funds]]:  # noqa: ANN401
            done = work(database, *args)
            return done, read_funds(database, None if self._is_unsure else set(touched(done)))

        with trio.CancelScope(shield=True):
            try:
                done, funds = await self._database.write(run)
            except BaseException:
                self._is_unsure = True
                raise
            self._is_unsure = False
            for balances in self._balances:
                balances.load(funds)
        return done

    async def write(self, work: Callable[..., T], *args: object) -> T:
        """Write what changes nobody's money."""
        return await self._database.write(work, *args)

    async def read(self, work: Callable[..., T], *args: object) -> T:
        """Ask the database."""
        return await self._database.read(work, *args)

    async def reload(self) -> None:
        """Take over all that is stored."""
        while True:
            notes = self._notes
            found, funds = await self._database.read(lambda db: (standings(db), read_funds(db)))
            if notes == self._notes:  # or what was read may be older than what was noted
                break
        self._standings = {standing.org: standing for standing in found}
        for balances in self._balances:
            balances.load(funds)

    def note(self, standing: Standing) -> None:
        """Take over how an organization stands now."""
        self._notes += 1
        self._standings[standing.org] = standing

    def standing(self, org: str) -> Standing | None:
        """How an organization stood when Stripe was asked last."""
        return self._standings.get(org)

    def standings(self) -> Iterable[Standing]:
        """All of them."""
        return tuple(self._standings.values())

    def apply(self) -> None:
        """Have plans and alarms in force as they stand, each by its own settings."""
        everybody = self._standings.values()
        for balances, settings in self._balances.items():
            balances.grant_postpaid({each.org for each in everybody if meter_of(each, settings)})
            balances.set_alarms(
                {
                    each.org: each.topup_below
                    for each in everybody
                    if settings.auto_topup
                    and each.topup_pack in settings.packs
                    and not each.topup_error
                }
            )

    def wake(self) -> None:
        """Have the rounds done soon."""
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Until the next rounds are due, or somebody asks for them; not at once even then."""
        await trio.sleep(LEAST_SECONDS)
        with trio.move_on_after(seconds):
            await self._woken.wait()
        self._woken = trio.Event()


def meter_of(standing: Standing, settings: BillingSettings) -> str:
    """The meter that bills what an organization uses beyond its balance; empty for none.

    Only where the subscription has the price that bills it: plans can be changed without.
    """
    plan = settings.plans.get(standing.plan)
    if plan is None or standing.status not in GOOD or not standing.customer:
        return ""
    is_billed = not plan.meter_price or plan.meter_price in standing.prices.split()
    return plan.meter if is_billed else ""


def rpm_of(standing: Standing | None, settings: BillingSettings) -> int | None:
    """Requests per minute that an organization is granted, by its plan or without one."""
    if standing is None or standing.status not in LIVING:
        return settings.rpm
    plan = settings.plans.get(standing.plan)
    return settings.rpm if plan is None else plan.rpm
