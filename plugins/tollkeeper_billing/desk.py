"""Where routes ask Stripe: its failures are ours to explain."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from tollkeeper import Failed, Refused, invalid_request
from tollkeeper.management import Caller
from tollkeeper_billing import customers
from tollkeeper_billing.processor import Declined, Processor, Unreachable
from tollkeeper_billing.till import Till

log = logging.getLogger("tollkeeper.billing")

PATH = "/api/v1/gateway/billing"
PAYERS = frozenset({"owner", "billing"})
"""Roles that may spend an organization's money."""
ERRORS = ("not_found",)

T = TypeVar("T")


class Desk:
    """Asks on behalf of a caller."""

    def __init__(self, till: Till, processor: Callable[[], Processor | None]) -> None:
        self._till = till
        self._processor = processor

    async def customer_of(self, caller: Caller) -> str:
        """The organization's id at Stripe; made there when it is needed first."""
        begun = await self._till.write(customers.begin_customer, caller.org, caller.email)
        found: customers.Standing | None = begun
        if begun.customer is None:
            made = await self.asked(lambda stripe: self._create_customer(stripe, begun))
            found = await self._till.write(customers.note_customer, caller.org, made)
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

    async def asked(self, question: Callable[[Processor], Awaitable[T]]) -> T:
        """What Stripe answers; its failures are ours to explain."""
        processor = self._processor()
        if processor is None:
            raise Failed(503, "server_error", "Billing is still starting; try again.")
        try:
            return await question(processor)
        except Unreachable as error:
            log.warning("%s", error)
        except Declined as error:
            log.warning("Stripe did not do what a customer asked for: %s (%s)", error, error.code)
            if not error.transient:
                message = "Stripe refused this; the operator finds why in the gateway's log."
                raise Failed(500, "server_error", message) from None
        message = "Stripe cannot be reached now, and nothing was paid. Try again in a minute."
        raise Failed(503, "server_error", message, headers={"retry-after": "60"})


def unknown(what: str, name: str, known: Iterable[str]) -> Refused:
    """The refusal of a name that nothing of its kind has."""
    names = ", ".join(known)
    there = f"there are: {names}" if names else "there are none"
    return invalid_request(f"There is no {what} '{name[:64]}'; {there}.", param=what)
