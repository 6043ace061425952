"""A small Stripe on loopback, for tests and for trying things out without an account.

    async with fake_stripe(clock=clock, webhook_url=url) as fake:
        ...                       # a client that speaks to fake.url opens a checkout session
        fake.pay(session_id)      # somebody pays it; the webhook is told

`python -m tollkeeper.testing.stripe` serves it on a port, with pages to pay on. It refuses what
Stripe refuses where that is known to surprise, and goes wrong when it is told to (`fake.fault`).
"""

from tollkeeper.testing.stripe.fake import FakeStripe, fake_stripe
from tollkeeper.testing.stripe.refusals import Refusal

__all__ = ["FakeStripe", "Refusal", "fake_stripe"]
