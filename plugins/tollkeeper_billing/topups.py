"""Packs that are bought by themselves, with the card that an organization left at checkout."""

import logging
from collections.abc import Callable
from typing import Any

from tollkeeper import Notice
from tollkeeper.amounts import nanousd
from tollkeeper_billing import customers, inbox, purchases
from tollkeeper_billing.asking import all_of
from tollkeeper_billing.processor import (
    FORBIDDEN,
    KEY_TAKEN,
    Declined,
    Processor,
    Unreachable,
)
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import Till

log = logging.getLogger("tollkeeper.billing")

DAY = 86400
MOST_A_DAY = 10
"""That one organization has bought by themselves in 24 hours."""
PAUSE = 60
"""Seconds between tries for one payment."""
TRIES = 23 * 3600
"""Seconds for which the same payment may be asked for again under its key."""
LOOK_AFTER = 300
"""Seconds until a payment that Stripe failed at is looked for: it may still have been made."""


class Topups:
    """Buys them."""

    def __init__(
        self,
        settings: BillingSettings,
        till: Till,
        processor: Processor,
        tell: Callable[[Notice], None],
    ) -> None:
        self._settings = settings
        self._till = till
        self._stripe = processor
        self._tell = tell
        self._next_try: dict[str, int] = {}
        """Of payments under way: Unix seconds."""

    async def make(self) -> None:
        """Buy packs for those whose balance is low, and go on with purchases that got stuck."""
        if not self._settings.auto_topup:
            return
        under_way = await self._till.read(
            lambda database: purchases.checkouts(database, status="open", kind=purchases.TOPUP)
        )
        busy = {bought.org for bought in under_way}
        for standing in self._till.standings():
            wanted = standing.org not in busy and self._is_low(standing)
            if wanted and (bought := await self._begin_topup(standing)) is not None:
                under_way.append(bought)
        now = self._till.now
        next_try = {each.id: self._next_try.get(each.id, now) for each in under_way}
        due = [each for each in under_way if next_try[each.id] <= now]
        self._next_try = next_try | {each.id: now + PAUSE for each in due}
        await all_of(due, self._pay)

    def _is_low(self, standing: customers.Standing) -> bool:
        balances = self._till.balances
        if balances is None or standing.topup_error or not standing.customer:
            return False
        has_pack = standing.topup_pack in self._settings.packs
        return has_pack and balances.balance(standing.org)[0] < standing.topup_below

    async def _begin_topup(self, standing: customers.Standing) -> purchases.Bought | None:
        now, org = self._till.now, standing.org
        if await self._till.read(purchases.count_topups, org, now - DAY) >= MOST_A_DAY:
            await self._stop_topups(org, "too_many")
            return None
        pack = self._settings.packs[standing.topup_pack]
        offer = purchases.Offer(
            purchases.TOPUP, standing.topup_pack, pack.cents, nanousd(pack.credit)
        )
        whose = (org, standing.customer or "")
        return await self._till.write(_begin, whose, offer, now)

    async def _pay(self, bought: purchases.Bought) -> None:
        standing = self._till.standing(bought.org)
        is_wanted = standing is not None and standing.topup_pack
        if not is_wanted or self._till.now - bought.created_at > TRIES:
            await self._look_for(bought)
            return
        try:
            await self._note(bought, await self._stripe.pay(bought))
        except Unreachable as unreachable:
            if unreachable.answered:
                await self._look_for(bought)
            raise
        except Declined as declined:
            if declined.code == KEY_TAKEN:
                await self._look_for(bought)
            elif declined.transient or declined.code == FORBIDDEN:
                raise
            else:
                await self._give_up(bought, declined.code or "declined")

    async def _look_for(self, bought: purchases.Bought) -> None:
        """Under its key Stripe only repeats itself: see whether the payment is there after all."""
        if self._till.now - bought.created_at < LOOK_AFTER:
            return
        found = await self._stripe.find_payment(bought)
        if found is not None:
            await self._note(bought, found)
        else:
            await self._till.write(purchases.close_checkout, bought.id)  # the next has a new key

    async def _note(self, bought: purchases.Bought, payment: dict[str, Any]) -> None:
        status = payment.get("status")
        if status in ("canceled", "requires_payment_method", "requires_action"):
            await self._give_up(bought, str(status))
        if status != "succeeded":
            return
        effect = await self._till.change(
            inbox.paid_topup, payment, self._till.now, touched=lambda effect: [effect.org]
        )
        if effect.outcome == "mismatch":
            await self._give_up(bought, "mismatch")

    async def _give_up(self, bought: purchases.Bought, error: str) -> None:
        await self._till.write(purchases.close_checkout, bought.id)
        await self._stop_topups(bought.org, error)

    async def _stop_topups(self, org: str, error: str) -> None:
        await self._till.write(customers.note_topup_error, org, error)
        await self._till.reload()
        self._till.apply()
        message = f"a pack could not be bought for {org} ({error}); no more are until they say so"
        log.warning("%s", message)
        self._tell(Notice("topup_failed", message, org=org))


def _begin(
    database: Any,  # noqa: ANN401
    whose: tuple[str, str],
    offer: purchases.Offer,
    now: int,
) -> purchases.Bought | None:
    """Note it before it is paid. None where another process has one under way."""
    under_way = purchases.checkouts(database, status="open", kind=offer.kind, org=whose[0])
    if under_way:
        return None
    return purchases.open_checkout(database, whose, offer, "", now)
