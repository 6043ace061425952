"""`/api/v1/gateway/billing`: buying, seeing what is left, and the webhook of Stripe."""

import logging
from collections.abc import Callable, Sequence
from typing import cast

from tollkeeper import Failed, Gateway, Notice, PluginError, Refused, invalid_request
from tollkeeper.amounts import dollars, nanousd, read_moment
from tollkeeper.ledger import UsageQuery, UsageSource
from tollkeeper.management import Caller, Listed
from tollkeeper_billing import customers, inbox, purchases, schemas
from tollkeeper_billing.desk import ERRORS, PATH, PAYERS, Desk, unknown
from tollkeeper_billing.processor import Processor
from tollkeeper_billing.routes_topup import TopupRoutes
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import Till

log = logging.getLogger("tollkeeper.billing")

HOUR = 3600
MANY = 20
"""Checkouts that an organization may open in an hour without paying one."""
WEBHOOK_ERRORS = ("auth_error",)

UsageList = Listed[schemas.Usage]


class Routes:
    """The handlers."""

    def __init__(
        self, settings: BillingSettings, till: Till, processor: Callable[[], Processor | None]
    ) -> None:
        self._settings = settings
        self._till = till
        self._desk = Desk(till, processor)
        self._has_warned = False

    def register(self, gateway: Gateway) -> None:
        """Add the routes."""
        self._gateway = gateway
        self._register_buying(gateway)
        self._register_reading(gateway)
        gateway.add_route(
            f"{PATH}/webhook",
            self.webhook,
            policy="signed",
            methods=("POST",),
            reply=schemas.Received,
            errors=WEBHOOK_ERRORS,
            summary="Take an event of Stripe.",
        )
        if self._settings.auto_topup:
            TopupRoutes(self._settings, self._till, self._desk).register(gateway)

    def _register_buying(self, gateway: Gateway) -> None:
        gateway.add_route(
            f"{PATH}/checkout",
            self.checkout,
            policy=PAYERS,
            methods=("POST",),
            body=schemas.NewCheckout,
            reply=schemas.Checkout,
            errors=(*ERRORS, "conflict"),
            summary="Create Stripe checkout session.",
        )
        gateway.add_route(
            f"{PATH}/portal",
            self.portal,
            policy=PAYERS,
            reply=schemas.Portal,
            errors=ERRORS,
            summary="Open Stripe billing portal.",
        )

    def _register_reading(self, gateway: Gateway) -> None:
        gateway.add_route(
            f"{PATH}/status",
            self.status,
            policy=PAYERS,
            reply=schemas.Status,
            errors=ERRORS,
            summary="Get billing status.",
        )
        gateway.add_route(
            f"{PATH}/usage",
            self.usage,
            policy=PAYERS,
            query=schemas.UsageQuery,
            reply=UsageList,
            errors=ERRORS,
            summary="Get usage summary.",
        )

    async def checkout(self, caller: Caller, body: schemas.NewCheckout) -> schemas.Checkout:
        """A page of Stripe on which a pack or a plan is paid."""
        offer, prices = self._offer(body)
        open_already = await self._open_checkouts(caller.org)
        if offer.kind == purchases.PLAN:
            await self._refuse_second_plan(caller.org, open_already)
        customer = await self._desk.customer_of(caller)
        whose = (caller.org, customer)
        bought = await self._till.write(
            purchases.open_checkout, whose, offer, caller.user, self._till.now
        )
        try:
            session, url = await self._desk.asked(
                lambda stripe: stripe.open_session(bought, prices)
            )
        except Failed:
            await self._till.write(purchases.close_checkout, bought.id)
            raise
        await self._till.write(purchases.note_session, bought.id, session)
        return schemas.Checkout(id=session, url=url)

    async def portal(self, caller: Caller) -> schemas.Portal:
        """A page of Stripe on which the organization manages what it has."""
        customer = await self._desk.customer_of(caller)
        return schemas.Portal(
            url=await self._desk.asked(lambda stripe: stripe.open_portal(customer))
        )

    async def status(self, caller: Caller) -> schemas.Status:
        """How the organization stands, to the call."""
        balances = self._till.balances
        if balances is None:
            raise Failed(503, "server_error", "Billing is still starting; try again.")
        funds, held = balances.balance(caller.org)
        standing = self._till.standing(caller.org)
        return schemas.Status(
            plan=(standing and standing.plan) or None,
            status=(standing and standing.status) or "none",
            balance=dollars(funds),
            held=dollars(held),
            hard_stop=caller.org not in self._settings.exempt and balances.is_stopped(caller.org),
        )

    async def usage(self, caller: Caller, query: schemas.UsageQuery) -> object:
        """What the organization used, by what is written."""
        source = self._gateway.find(UsageSource)  # type: ignore[type-abstract] # names a service
        if source is None:
            raise PluginError("billing needs a plugin that sums up usage")
        wanted = UsageQuery(
            by=query.by,
            since=self._moment(query.since, "since") or 0,
            until=self._moment(query.until, "until"),
            org=caller.org,
        )
        return UsageList(
            data=[
                schemas.Usage(
                    key=each.key,
                    requests=each.requests,
                    input_tokens=each.input_tokens,
                    output_tokens=each.output_tokens,
                    cost=dollars(each.cost),
                    charge=dollars(each.charge),
                )
                for each in await source.usage(wanted)
            ]
        )

    async def webhook(self) -> schemas.Received:
        """Prove the event on its raw bytes, and have it in force before Stripe is told so."""
        from quart import request

        body = cast("bytes", await request.get_data())
        header = request.headers.get("stripe-signature", "")
        secret = self._settings.webhook_secret.reveal()
        try:
            inbox.prove(body, header, secret, self._till.now)
        except inbox.WrongSignature:
            if not self._has_warned:  # once, since anybody can send such
                self._has_warned = True
                log.warning(
                    "a webhook was not signed with webhook_secret: if Stripe sent it, that is not"
                    " the secret of this endpoint, and what is paid is not credited"
                )
            raise
        event = inbox.read_event(body, livemode=self._settings.livemode)
        effect = await self._till.change(
            inbox.receive,
            event,
            self._till.now,
            touched=lambda effect: [effect.org] if effect.org else [],
        )
        if effect.asks:
            self._till.wake()
        if effect.outcome == "mismatch":
            message = f"event {event.id} is not as {effect.org} was offered: {effect.why}"
            log.error("%s; nothing was credited", message)
            self._gateway.notify(Notice("payment_mismatch", message, org=effect.org))
        return schemas.Received()

    def _offer(
        self, body: schemas.NewCheckout
    ) -> tuple[purchases.Offer, tuple[tuple[str, bool], ...]]:
        """What is wanted, at our own price."""
        if (body.pack is None) == (body.plan is None):
            raise invalid_request("Name either a pack or a plan.", param="pack")
        if body.pack is not None:
            pack = self._settings.packs.get(body.pack)
            if pack is None:
                raise unknown("pack", body.pack, self._settings.packs)
            credit = nanousd(pack.credit)
            return purchases.Offer(purchases.PACK, body.pack, pack.cents, credit), ()
        plan = self._settings.plans.get(body.plan or "")
        if plan is None:
            raise unknown("plan", body.plan or "", self._settings.plans)
        return purchases.Offer(purchases.PLAN, body.plan or ""), plan.prices

    async def _refuse_second_plan(self, org: str, open_already: Sequence[purchases.Bought]) -> None:
        """Raise `Refused` for who has one; what was opened before for another is closed."""
        standing = self._till.standing(org)
        if standing is not None and standing.status in customers.ORDER:
            message = "This organization has a plan; change or end it in the billing portal."
            raise Refused(409, "conflict", message, param="plan")
        for bought in open_already:
            if bought.kind == purchases.PLAN and bought.session is not None:
                session = bought.session
                if not await self._desk.asked(
                    lambda stripe, name=session: stripe.expire_session(name)  # type: ignore[misc]
                ):
                    message = (
                        "This organization has just bought a plan; it is in force in a minute."
                    )
                    raise Refused(409, "conflict", message, param="plan")
                await self._till.write(purchases.close_checkout, bought.id)

    async def _open_checkouts(self, org: str) -> list[purchases.Bought]:
        """What the organization may still pay. Raises `Refused` where that is too much."""
        found = await self._till.read(
            lambda database: purchases.checkouts(database, status="open", org=org)
        )
        if len([each for each in found if each.created_at > self._till.now - HOUR]) >= MANY:
            raise Refused(409, "conflict", "Too many open checkouts: pay one, or wait an hour.")
        return found

    def _moment(self, text: str | None, param: str) -> int | None:
        if text is None:
            return None
        moment = read_moment(text, self._till.now)
        if moment is None:
            message = f"{param}: write 2026-11-25, 2026-11-25T10:00 (UTC), 7d or 24h"
            raise invalid_request(message, param=param)
        return moment
