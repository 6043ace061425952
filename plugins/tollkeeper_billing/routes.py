"""`/api/v1/gateway/billing`: buying, seeing what is left, and the webhook of Stripe."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from tollkeeper import Failed, Gateway, Notice, PluginError, Refused, invalid_request
from tollkeeper.amounts import dollars, nanousd, read_moment
from tollkeeper.ledger import UsageQuery, UsageSource
from tollkeeper.management import Caller
from tollkeeper_billing import customers, inbox, purchases, schemas
from tollkeeper_billing.processor import Declined, Processor, Unreachable
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import Till

log = logging.getLogger("tollkeeper.billing")

PATH = "/api/v1/gateway/billing"
PAYERS = frozenset({"owner", "billing"})
ERRORS = ("not_found",)
WEBHOOK_ERRORS = ("auth_error",)

T = TypeVar("T")
UsageList = schemas.Listed[schemas.Usage]


class Routes:
    """The handlers."""

    def __init__(
        self, settings: BillingSettings, till: Till, processor: Callable[[], Processor | None]
    ) -> None:
        self._settings = settings
        self._till = till
        self._processor = processor

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
            self._register_topup(gateway)

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

    def _register_topup(self, gateway: Gateway) -> None:
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

    async def checkout(self, caller: Caller, body: schemas.NewCheckout) -> schemas.Checkout:
        """A page of Stripe on which a pack or a plan is paid."""
        offer, prices = self._offer(body)
        if offer.kind == purchases.PLAN:
            self._refuse_second_plan(caller.org)
        customer = await self._customer(caller)
        whose = (caller.org, customer)
        checkout = await self._till.write(
            purchases.open_checkout, whose, offer, caller.user, self._till.now
        )
        bought = await self._till.read(purchases.get_checkout, checkout)
        try:
            session, url = await self._asked(lambda stripe: stripe.open_session(bought, prices))
        except Failed:
            await self._till.write(purchases.close_checkout, checkout)
            raise
        await self._till.write(purchases.note_session, checkout, session)
        return schemas.Checkout(id=session, url=url)

    async def portal(self, caller: Caller) -> schemas.Portal:
        """A page of Stripe on which the organization manages what it has."""
        customer = await self._customer(caller)
        return schemas.Portal(url=await self._asked(lambda stripe: stripe.open_portal(customer)))

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
        inbox.prove(body, header, secret, self._till.now)
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

    async def topup(self, caller: Caller) -> schemas.Topup:
        """What is bought by itself."""
        return _topup(self._till.standing(caller.org))

    async def change_topup(self, caller: Caller, body: schemas.NewTopup) -> schemas.Topup:
        """The same, from now on."""
        if body.pack is not None and body.pack not in self._settings.packs:
            raise _unknown("pack", body.pack, self._settings.packs)
        await self._customer(caller)
        below = nanousd(body.amount) if body.pack is not None else 0
        await self._till.write(customers.set_topup, caller.org, body.pack or "", below)
        await self._till.reload()
        self._till.apply(self._settings)
        self._till.wake()
        return _topup(self._till.standing(caller.org))

    def _offer(
        self, body: schemas.NewCheckout
    ) -> tuple[purchases.Offer, tuple[tuple[str, bool], ...]]:
        """What is wanted, at our own price."""
        if (body.pack is None) == (body.plan is None):
            raise invalid_request("Name either a pack or a plan.", param="pack")
        if body.pack is not None:
            pack = self._settings.packs.get(body.pack)
            if pack is None:
                raise _unknown("pack", body.pack, self._settings.packs)
            credit = nanousd(pack.credit)
            return purchases.Offer(purchases.PACK, body.pack, pack.cents, credit), ()
        plan = self._settings.plans.get(body.plan or "")
        if plan is None:
            raise _unknown("plan", body.plan or "", self._settings.plans)
        return purchases.Offer(purchases.PLAN, body.plan or ""), plan.prices

    def _refuse_second_plan(self, org: str) -> None:
        standing = self._till.standing(org)
        if standing is not None and standing.status in customers.LIVING:
            message = "This organization has a plan; change or end it in the billing portal."
            raise Refused(409, "conflict", message, param="plan")

    async def _customer(self, caller: Caller) -> str:
        """The organization's id at Stripe; made there when it is needed first."""
        begun = await self._till.write(customers.begin_customer, caller.org, caller.email)
        if begun.customer is None:
            made = await self._asked(lambda stripe: self._create_customer(stripe, begun))
            await self._till.write(customers.note_customer, caller.org, made)
        found = await self._till.read(customers.standing, caller.org)
        if found is None or found.customer is None:
            raise Failed(500, "server_error", "The gateway failed to handle this request.")
        self._till.note(found)
        return found.customer

    async def _create_customer(self, stripe: Processor, begun: customers.Standing) -> str:
        try:
            return await stripe.create_customer(begun.org, begun.nonce, begun.email)
        except Unreachable as error:
            if error.answered:
                await self._till.write(customers.renew_nonce, begun.org)
            raise

    async def _asked(self, question: Callable[[Processor], Awaitable[T]]) -> T:
        """What Stripe answers; its failures are ours to explain."""
        processor = self._processor()
        if processor is None:
            raise Failed(503, "server_error", "Billing is still starting; try again.")
        try:
            return await question(processor)
        except Unreachable as error:
            log.warning("%s", error)
        except Declined as error:
            log.warning("Stripe declined: %s (%s)", error, error.code)
            if not error.transient:
                message = "Stripe refused this; the operator finds why in the gateway's log."
                raise Failed(500, "server_error", message) from None
        message = "Stripe cannot be reached now, and nothing was paid. Try again in a minute."
        raise Failed(503, "server_error", message, headers={"retry-after": "60"})

    def _moment(self, text: str | None, param: str) -> int | None:
        if text is None:
            return None
        moment = read_moment(text, self._till.now)
        if moment is None:
            message = f"{param}: write 2026-11-25, 2026-11-25T10:00 (UTC), 7d or 24h"
            raise invalid_request(message, param=param)
        return moment


def _unknown(what: str, name: str, known: object) -> Refused:
    names = ", ".join(known) if isinstance(known, dict) else ""
    there = f"there are: {names}" if names else "there are none"
    return invalid_request(f"There is no {what} '{name[:64]}'; {there}.", param=what)


def _topup(standing: customers.Standing | None) -> schemas.Topup:
    if standing is None:
        return schemas.Topup(pack=None, below="0.00", error=None)
    return schemas.Topup(
        pack=standing.topup_pack or None,
        below=dollars(standing.topup_below),
        error=standing.topup_error or None,
    )
