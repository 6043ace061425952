"""The fake as tests hold it: what it has, and what the world does to it."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable

import trio

from tollkeeper._server.process import address_of, open_listener
from tollkeeper.provider import Clock
from tollkeeper.testing.gateway import unwrapped
from tollkeeper.testing.stripe import meters, prices, purchases, refunds, subscriptions
from tollkeeper.testing.stripe.api import Api
from tollkeeper.testing.stripe.serving import serve
from tollkeeper.testing.stripe.state import Thing
from tollkeeper.testing.stripe.webhooks import Deliveries, post, sign


class FakeStripe(Api):
    """A Stripe whose clock, faults, payers and banks are the test's. Made by `fake_stripe`.

    Its methods are what the world does; each makes the events that Stripe would. They raise
    `Refusal` for what cannot happen, such as paying a checkout session twice.
    """

    def __init__(self, clock: Clock, secret_key: str, webhook_secret: str) -> None:
        super().__init__(clock, secret_key)
        self.webhook_secret = webhook_secret
        self.signing_time: Callable[[], float] = clock.time
        """When a signature is made; a verifier that looks at another clock may need that one."""
        self.deliveries = Deliveries(self.deliver)
        self._webhook_url = ""
        self._delivering = True

    # What is for sale.

    def add_meter(self, event_name: str) -> str:
        """Make the meter of an event name, unless there is one. Its id."""
        found = self.every("billing.meter", event_name=event_name)
        return str((found[0] if found else meters.new_meter(self, event_name))["id"])

    def add_price(self, price_id: str, unit_amount: int, *, meter: str = "") -> str:
        """Make a monthly price in cents under an id of one's choice; by a meter where given.

        A meter is told by its id or its event name.
        """
        recurring = {"interval": "month"}
        if meter:
            named = self.every("billing.meter", event_name=meter)
            recurring |= {"usage_type": "metered", "meter": named[0]["id"] if named else meter}
        asked = {"id": price_id, "currency": "usd", "unit_amount": unit_amount}
        made = prices.make_price(self, {**asked, "recurring": recurring})
        return str(prices.keep_price(self, made, price_id)["id"])

    # What payers and banks do.

    def pay(self, session_id: str) -> Thing:
        """Pay a checkout session. The session."""
        return purchases.pay(self, session_id)

    def pay_later(self, session_id: str) -> Thing:
        """Complete a checkout session whose payment takes days. The session."""
        return purchases.pay_later(self, session_id)

    def settle_later(self, session_id: str, ok: bool = True) -> Thing:
        """Let the payment of such a session arrive or fail. The session."""
        return purchases.settle_later(self, session_id, ok)

    def refund(self, payment_intent: str, amount: int | None = None) -> str:
        """Give back an amount, or all that is left, as somebody would by hand. The refund's id."""
        return str(refunds.refund(self, payment_intent, amount)["id"])

    def settle_refund(self, refund_id: str) -> None:
        """Let a refund arrive that is pending because of `slow_refunds`."""
        refunds.settle_refund(self, refund_id)

    def fail_refund(self, refund_id: str) -> None:
        """Let a refund come back."""
        refunds.fail_refund(self, refund_id)

    def dispute(self, payment_intent: str, amount: int | None = None) -> str:
        """Let the payer dispute an amount, or all that was not refunded. The dispute's id."""
        return str(refunds.dispute(self, payment_intent, amount)["id"])

    def close_dispute(self, dispute_id: str, status: str) -> None:
        """Decide a dispute: `won` or `lost`."""
        refunds.close_dispute(self, dispute_id, status)

    # What becomes of subscriptions.

    def renew(self, subscription_id: str) -> None:
        """Begin and pay the next period; one that is past due pays what it owes."""
        subscriptions.renew(self, subscription_id)

    def draft_renewal(self, subscription_id: str) -> None:
        """Begin the next period, as at Stripe an hour before it is paid; `renew` pays it."""
        subscriptions.draft_renewal(self, subscription_id)

    def fail_renewal(self, subscription_id: str) -> None:
        """Begin the next period without a payment for it."""
        subscriptions.fail_renewal(self, subscription_id)

    def cancel(self, subscription_id: str) -> None:
        """End a subscription now."""
        subscriptions.cancel(self, subscription_id)

    def cancel_later(self, subscription_id: str) -> None:
        """Let a subscription end with its period: its next renewal cancels it."""
        subscriptions.cancel_later(self, subscription_id)

    def change_price(self, subscription_id: str, price_id: str, *, at_once: bool = False) -> None:
        """Put a subscription on another price.

        The difference is invoiced and paid at once where that is wished, or where the periods
        differ, which begins a new one; else it is on the next invoice.
        """
        subscriptions.change_price(self, subscription_id, price_id, at_once=at_once)

    # How it is told.

    @property
    def webhook_url(self) -> str:
        """Where events are posted to in the background, all since the start; empty for nowhere."""
        return self._webhook_url

    @webhook_url.setter
    def webhook_url(self, url: str) -> None:
        self._webhook_url = url
        self.deliveries.turn(bool(url) and self._delivering)

    @property
    def delivering(self) -> bool:
        """Whether events are posted in the background; turn it off to `deliver` in any order."""
        return self._delivering

    @delivering.setter
    def delivering(self, on: bool) -> None:
        self._delivering = on
        self.deliveries.turn(bool(self._webhook_url) and on)

    def record(self, kind: str, thing: Thing, before: Thing | None = None) -> Thing:
        """Make an event, and have it delivered."""
        event = super().record(kind, thing, before)
        self.deliveries.add(event)
        return event

    def signed(
        self, event: Thing, timestamp: int | None = None, secret: str | None = None
    ) -> tuple[bytes, str]:
        """The bytes of an event as they are posted, and their `Stripe-Signature`."""
        body = json.dumps(event, indent=2).encode()
        at = int(self.signing_time()) if timestamp is None else timestamp
        return body, sign(body, at, self.webhook_secret if secret is None else secret)

    async def deliver(self, event: Thing) -> int:
        """Post an event to the webhook now. The status, 0 where there was no reply."""
        return await post(self.webhook_url, *self.signed(event))

    async def wait_delivered(self) -> None:
        """Until every event was taken by the webhook."""
        await self.deliveries.wait_empty()


@contextlib.asynccontextmanager
async def fake_stripe(
    *,
    clock: Clock | None = None,
    webhook_url: str = "",
    secret_key: str = "sk_test_fake",  # noqa: S107 -- opens nothing but a fake
    webhook_secret: str = "whsec_fake",  # noqa: S107 -- the same
    port: int = 0,
) -> AsyncIterator[FakeStripe]:
    """A fake Stripe that serves on loopback while the block lasts, on any free port for 0."""
    fake = FakeStripe(clock or Clock(), secret_key, webhook_secret)
    fake.webhook_url = webhook_url
    listener = open_listener(f"127.0.0.1:{port}")
    fake.url = address_of(listener)
    async with unwrapped(), trio.open_nursery() as nursery:
        await nursery.start(serve, fake, listener)
        nursery.start_soon(fake.deliveries.run)
        yield fake
        nursery.cancel_scope.cancel()
