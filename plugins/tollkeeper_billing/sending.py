"""Sending meter events: what the outbox says is done, and Stripe's answers are noted."""

import logging
from collections.abc import Callable

from tollkeeper import Notice
from tollkeeper.amounts import dollars
from tollkeeper_billing import outbox
from tollkeeper_billing.asking import all_of
from tollkeeper_billing.draws import Terms
from tollkeeper_billing.processor import FORBIDDEN, Declined, Processor, Unreachable
from tollkeeper_billing.settings import CENT
from tollkeeper_billing.till import Till

log = logging.getLogger("tollkeeper.billing")


class Sender:
    """Sends them, one per organization at a time."""

    def __init__(
        self,
        till: Till,
        processor: Processor,
        tell: Callable[[Notice], None],
        terms_of: Callable[[str], Terms],
    ) -> None:
        self._till = till
        self._stripe = processor
        self._tell = tell
        self._terms_of = terms_of

    async def send(self) -> None:
        """Send the meter events that are due, of each organization one after another."""
        while due := await self._till.read(outbox.heads, self._till.now, self._begin_of):
            await all_of(due, self._send_one)

    async def _send_one(self, event: outbox.Pending) -> None:
        step = outbox.next_step(event, self._till.now, self._begin_of(event))
        if step == "send":
            await self._try(event)
        elif step == "ask":
            await self._ask(event)
        elif step == "give up":
            why = "it is older than Stripe takes"
            await self._till.write(outbox.give_up, event, why)
            self._complain(event, why)

    async def _try(self, event: outbox.Pending) -> None:
        begin = self._begin_of(event)
        sent = await self._till.write(outbox.note_try, event, begin, self._till.now)
        if sent is None:
            return
        try:
            await self._stripe.send_usage(outbox.payload(sent))
        except Declined as declined:
            await self._till.write(outbox.note_not_sent, event, str(declined), self._till.now)
            raise
        except Unreachable as unreachable:
            await self._till.write(outbox.note_unsure, event, str(unreachable))
            raise
        await self._till.write(outbox.note_sent, event)

    def _begin_of(self, event: outbox.Pending) -> int:
        """That of the period in which the meter of an event is billed next."""
        terms = self._terms_of(event.org)
        return terms.begin if terms.meter == event.meter else 0

    async def _ask(self, event: outbox.Pending) -> None:
        """By what Stripe has counted on that day: whether the event is in it."""
        known = await self._till.read(outbox.sent_units, event)
        try:
            span = outbox.day_of(event)
            counted = await self._stripe.usage_of(event.meter, event.customer, *span)
        except Declined as declined:
            if declined.transient or declined.code == FORBIDDEN:
                raise
            await self._note_unclear(event, str(declined))
            return
        if counted == known + event.units:
            await self._till.write(outbox.note_sent, event)
        elif counted == known:
            await self._till.write(outbox.note_absent, event)
        else:
            await self._note_unclear(
                event, f"Stripe counted {counted} cents where {known} are known"
            )

    async def _note_unclear(self, event: outbox.Pending, why: str) -> None:
        if not await self._till.write(outbox.note_unclear, event, why, self._till.now):
            self._complain(event, why)

    def _complain(self, event: outbox.Pending, why: str) -> None:
        amount = dollars(event.units * CENT)
        message = f"usage of {amount} USD of {event.org} is not billed: {why}"
        log.error("%s (meter event %s)", message, event.identifier)
        self._tell(Notice("usage_not_billed", message, org=event.org))
