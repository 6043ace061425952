"""Budgets: calls are refused by money, before it is spent."""

import logging

import trio

from tollkeeper import Gateway, Notice, PluginError, hookimpl
from tollkeeper.ledger import Ledger
from tollkeeper_budgets.service import Budget
from tollkeeper_budgets.settings import BudgetsSettings

log = logging.getLogger("tollkeeper.budgets")


class Budgets:
    """Guard: a budget that cannot be checked refuses."""

    Settings = BudgetsSettings
    policy = "guard"

    def __init__(self, settings: BudgetsSettings) -> None:
        self._settings = settings

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Ask for a ledger to keep the holds in."""
        self._gateway = gateway
        gateway.need(Ledger, "metering")

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Have every limit reserved on, with what is spent and held of it already."""
        ledger = self._gateway.find(Ledger)  # type: ignore[type-abstract] # names a service
        if ledger is None:
            raise PluginError("budgets need a plugin that keeps a ledger")
        now = int(self._gateway.clock.time())
        accounts = [Budget(limit, now, self._warn) for limit in self._settings.limits]
        async with ledger.attached("budgets", accounts):
            task_status.started()
            await trio.sleep_forever()

    def _warn(self, notice: Notice) -> None:
        log.warning("%s", notice.message)
        self._gateway.notify(notice)
