"""`/api/v1/gateway/billing/topup`: what is bought by itself."""

from tollkeeper import Gateway
from tollkeeper.amounts import dollars, nanousd
from tollkeeper.management import Caller
from tollkeeper_billing import customers, schemas
from tollkeeper_billing.desk import ERRORS, PATH, PAYERS, Desk, unknown
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import Till


class TopupRoutes:
    """The handlers."""

    def __init__(self, settings: BillingSettings, till: Till, desk: Desk) -> None:
        self._settings = settings
        self._till = till
        self._desk = desk

    def register(self, gateway: Gateway) -> None:
        """Add the routes."""
        gateway.add_route(
            f"{PATH}/topup",
            self.topup,
            policy=PAYERS,
            reply=schemas.Topup,
            errors=ERRORS,
            summary="Which pack is bought when the balance falls low.",
        )
        gateway.add_route(
            f"{PATH}/topup",
            self.change_topup,
            policy=PAYERS,
            methods=("PUT",),
            body=schemas.NewTopup,
            reply=schemas.Topup,
            errors=(*ERRORS, "conflict"),
            summary="Have a pack bought when the balance falls low.",
        )

    async def topup(self, caller: Caller) -> schemas.Topup:
        """What is bought by itself."""
        return _topup(self._till.standing(caller.org))

    async def change_topup(self, caller: Caller, body: schemas.NewTopup) -> schemas.Topup:
        """The same, from now on."""
        if body.pack is not None and body.pack not in self._settings.packs:
            raise unknown("pack", body.pack, self._settings.packs)
        await self._desk.customer_of(caller)
        below = nanousd(body.amount) if body.pack is not None else 0
        await self._till.write(customers.set_topup, caller.org, body.pack or "", below)
        await self._till.reload()
        self._till.apply()
        self._till.wake()
        return _topup(self._till.standing(caller.org))


def _topup(standing: customers.Standing | None) -> schemas.Topup:
    if standing is None:
        return schemas.Topup(pack=None, below="0.00", error=None)
    return schemas.Topup(
        pack=standing.topup_pack or None,
        below=dollars(standing.topup_below),
        error=standing.topup_error or None,
    )
