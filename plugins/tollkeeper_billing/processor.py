"""Stripe, through its own library: the one module that knows it. Imported only once it is needed.

Every failure becomes one of two: `Unreachable`, after which nobody knows whether it was done, and
`Declined`, after which it was not.
"""

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tollkeeper import TollkeeperError
from tollkeeper_billing.allowances import Invoice
from tollkeeper_billing.customers import Subscription
from tollkeeper_billing.purchases import Bought
from tollkeeper_billing.settings import STRIPE, BillingSettings
from tollkeeper_billing.shapes import (
    METADATA,
    payment_of,
    read_invoice,
    read_subscription,
    session_of,
)

if TYPE_CHECKING:
    import stripe

TIMEOUT = 10.0
"""Seconds for one request."""
PAGE = 100
UNREACHABLE, FORBIDDEN, BUSY = "unreachable", "forbidden", "busy"
"""The codes of what would befall any other request too."""
UNREAD = "unread"
"""The status of an invoice that could not be."""
KEY_TAKEN = "key_taken"
"""The code of a request that differs from what was asked under its key before."""

_KEY = re.compile(r"\b[sr]k_(live|test)_[^\s'\"]+")


class Declined(TollkeeperError):
    """Stripe did not do it, for certain. `code` is its word for why.

    `transient` is what may go another time.
    """

    def __init__(self, message: str, code: str = "", *, transient: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.transient = transient


class Unreachable(TollkeeperError):
    """Stripe did not answer, or not sensibly: it may have been done.

    `answered` is whether it said so itself; then it does for as long as the key is the same.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class Unreadable(Unreachable):
    """Stripe answered what is not as its documents say."""


def is_signed(body: bytes, header: str, secret: str) -> bool:
    """Whether a webhook's header holds a signature of its body by this secret, of any age."""
    import stripe

    try:
        stripe.WebhookSignature.verify_header(body, header, secret)
    except (stripe.SignatureVerificationError, UnicodeError):
        return False
    return True


class Processor:
    """A Stripe account. Made by `connected`."""

    def __init__(self, client: "stripe.StripeClient", settings: BillingSettings) -> None:
        self._v1 = client.v1
        self._settings = settings

    async def create_customer(self, org: str, nonce: str, email: str) -> str:
        """The id of the customer of an organization; the same for the same nonce, for a day."""
        params: Any = {"name": org, "metadata": {"tollkeeper_org": org}}
        if email:
            params["email"] = email
        try:
            with _judged():
                made = await self._v1.customers.create_async(params, _once(nonce))
                return str(made.id)
        except Declined as declined:
            if declined.code != "email_invalid":
                raise
        return await self.create_customer(org, f"{nonce}-no-email", "")

    async def open_session(
        self, bought: Bought, prices: Sequence[tuple[str, bool]] = ()
    ) -> tuple[str, str]:
        """Id and address of a page on which a checkout is paid.

        A plan's has its prices, and of each whether it is sold by the piece, or metered.
        """
        with _judged():
            made = await self._v1.checkout.sessions.create_async(
                session_of(bought, prices, self._settings), _once(bought.id)
            )
            return str(made.id), str(made.url)

    async def read_session(self, session: str) -> dict[str, Any]:
        """A checkout session as it is now, in the shape of an event's object."""
        with _judged():
            found = await self._v1.checkout.sessions.retrieve_async(session)
            return {**found.to_dict(), "id": str(found.id)}

    async def expire_session(self, session: str) -> bool:
        """See to it that a session is not paid any more. False where it was paid already."""
        try:
            with _judged():
                await self._v1.checkout.sessions.expire_async(session)
        except Declined as declined:
            if declined.transient:
                raise
            return (await self.read_session(session)).get("status") != "complete"
        return True

    async def open_portal(self, customer: str) -> str:
        """Address of a page on which a customer sees and changes what they have."""
        params: Any = {"customer": customer, "return_url": self._settings.success_url}
        with _judged():
            made = await self._v1.billing_portal.sessions.create_async(params)
            return str(made.url)

    async def subscriptions(self, customer: str) -> list[Subscription]:
        """All of a customer's that are not over, as they are now."""
        params: Any = {"customer": customer, "limit": PAGE}
        with _judged():
            page = await self._v1.subscriptions.list_async(params)
            return [read_subscription(each.to_dict()) for each in page.data]

    async def invoices(self, customer: str, since: int) -> list[Invoice]:
        """All of a customer's that were made since then, the oldest first."""
        params: Any = {"customer": customer, "limit": PAGE, "created": {"gte": since}}
        with _judged():
            page = await self._v1.invoices.list_async(params)
            found = [each.to_dict() async for each in page.auto_paging_iter()]
            return [await self._read_invoice(each) for each in reversed(found)]

    async def _read_invoice(self, told: Mapping[str, Any]) -> Invoice:
        """One that cannot be read holds up no others."""
        try:
            return read_invoice(told, await self._lines_of(told))
        except (AttributeError, LookupError, TypeError, ValueError):
            return Invoice(str(told["id"]), UNREAD, "", ())

    async def _lines_of(self, invoice: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All of them: an invoice itself shows the first ten."""
        lines = invoice["lines"]
        if not lines.get("has_more"):
            return list(lines["data"])
        every = await self._v1.invoices.line_items.list_async(invoice["id"], {"limit": PAGE})
        return [line.to_dict() async for line in every.auto_paging_iter()]

    async def pay(self, bought: Bought) -> dict[str, Any]:
        """Pay a checkout with the card that the customer left: the payment intent as it is then."""
        with _judged():
            cards = await self._v1.customers.payment_methods.list_async(
                bought.customer, {"type": "card"}
            )
            if not cards.data:
                raise Declined("the customer has no card", "no_card")
            params = payment_of(bought, cards.data[0].id)
            made = await self._v1.payment_intents.create_async(params, _once(bought.id))
            return dict(made.to_dict())

    async def find_payment(self, bought: Bought) -> dict[str, Any] | None:
        """The payment intent of a checkout that was to be paid, as it is now; None without one."""
        params: Any = {"customer": bought.customer, "limit": PAGE}
        with _judged():
            page = await self._v1.payment_intents.list_async(params)
            found = [dict(each.to_dict()) for each in page.data]
        return next((p for p in found if p["metadata"].get(METADATA) == bought.id), None)

    async def send_usage(self, event: Mapping[str, Any]) -> None:
        """Report a meter event. One that Stripe knows already is as good as sent."""
        params: Any = dict(event)
        try:
            with _judged():
                # Under no key of ours: a key would repeat a failure for a day.
                made = await self._v1.billing.meter_events.create_async(params)
                str(made.identifier)  # which is how an event reads, and nothing else
        except Declined as declined:
            if "event already exists with identifier" not in str(declined):
                raise

    async def usage_of(self, meter: str, customer: str, begin: int, end: int) -> int:
        """Units that Stripe counted for a customer between two midnights of UTC."""
        span: Any = {"customer": customer, "start_time": begin, "end_time": end, "limit": PAGE}
        with _judged():
            meters = await self._v1.billing.meters.list_async({"limit": PAGE})
            every = meters.auto_paging_iter()
            found = [each.id async for each in every if each.event_name == meter]
            if not found:
                raise Declined(f"there is no meter for {meter}", "no_meter")
            sums = await self._v1.billing.meters.event_summaries.list_async(found[0], span)
            return sum(int(each.aggregated_value) for each in sums.data)


@contextlib.asynccontextmanager
async def connected(settings: BillingSettings) -> AsyncIterator[Processor]:
    """The account that the settings name, while the block lasts."""
    import stripe

    logging.getLogger("stripe").setLevel(logging.WARNING)  # it tells of every request
    http = stripe.HTTPXClient(timeout=TIMEOUT)
    base: Any = {"api": settings.api_base, "meter_events": settings.api_base}
    client = stripe.StripeClient(
        settings.secret_key.reveal(),
        base_addresses=base if settings.api_base != STRIPE else {},
        http_client=http,
        max_network_retries=0,  # each try is one that we know of
    )
    try:
        yield Processor(client, settings)
    finally:
        await http.close_async()  # type: ignore[no-untyped-call] # the library's


def _once(key: str) -> Any:  # noqa: ANN401 -- the library's options
    return {"idempotency_key": f"tollkeeper-{key}"}


@contextlib.contextmanager
def _judged() -> Iterator[None]:
    """Turn the library's errors into ours, without what they may tell of keys."""
    import stripe

    try:
        yield
    except stripe.StripeError as error:
        raise _judge(error) from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        name = type(error).__name__
        message = f"Stripe answered what cannot be read: {name}"
        raise Unreadable(message, answered=True) from None


def _judge(error: "stripe.StripeError") -> Declined | Unreachable:
    import stripe

    if isinstance(error, stripe.APIConnectionError):
        if _never_left(error):
            return Declined("Stripe cannot be reached", UNREACHABLE, transient=True)
        return Unreachable(f"Stripe did not answer: {type(error.__cause__).__name__}")
    if isinstance(error, stripe.CardError):
        return Declined(_words(error), error.code or "card_declined")
    if isinstance(error, stripe.IdempotencyError):
        return Declined(_words(error), KEY_TAKEN, transient=True)
    if isinstance(error, stripe.RateLimitError):
        is_locked = error.code == "lock_timeout"  # of one object, by whoever else changes it
        return Declined(_words(error), "lock_timeout" if is_locked else BUSY, transient=True)
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return Declined(f"secret_key: {_words(error)}", FORBIDDEN)
    if isinstance(error, stripe.InvalidRequestError):
        return Declined(_words(error), error.code or "invalid")
    status = error.http_status
    return Unreachable(f"Stripe answered {status}", answered=status is not None and status >= 500)


def _never_left(error: Exception) -> bool:
    """Whether no byte of the request can have reached Stripe, by the name of the cause."""
    return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout")


def _words(error: "stripe.StripeError") -> str:
    return _KEY.sub("***", str(error.user_message or "refused"))
