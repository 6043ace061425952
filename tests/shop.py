"""A gateway that sells access, before the fake Stripe: what the tests of billing share."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import trio

from tollkeeper.management import KeyStore, KeyTerms, RateGrants
from tollkeeper.testing import (
    Answered,
    JumpClock,
    ScriptedUpstream,
    TestGateway,
    completion,
    open_gateway,
)
from tollkeeper.testing.stripe import FakeStripe, fake_stripe
from tollkeeper_billing import Billing

PASSWORD = "correct horse"
BILLING = "/api/v1/gateway/billing"
WEBHOOK = f"{BILLING}/webhook"
NOW = 1_795_564_800
"""2026-11-25T00:00:00Z: the calendar is that of Stripe's limits, not that of the epoch."""

TOML = """
[models.paid]
deployments = [{{ provider = "scripted", model = "test" }}]
price = {{ input = "0", output = "10000" }}
max_output = 100
[plugins.keys]
[plugins.limits]
rpm = 1000000
[plugins.accounts]
jwt_secret = "a secret of these tests, 32 bytes"
registration = "open"
access_seconds = 86400
login_attempts = 1000
[plugins.metering]
[plugins.billing]
secret_key = "sk_test_fake"
webhook_secret = "whsec_fake"
api_base = "{url}"
success_url = "https://example.com/paid"
cancel_url = "https://example.com/prices"
{more}
[plugins.billing.packs.small]
price = "10.00"
credit = "10.00"
[plugins.billing.packs.large]
price = "100.00"
credit = "120.00"
[plugins.billing.plans.pro]
stripe_price = "price_pro"
rpm = 600
included = "20.00"
[plugins.billing.plans.usage]
stripe_price = "price_base"
meter_price = "price_metered"
meter = "usd_cents"
included = "1.00"
"""
"""A token of output costs a cent."""


@dataclass
class Shop:
    """Somebody's organization at a gateway that sells access."""

    gateway: TestGateway
    stripe: FakeStripe
    clock: JumpClock
    upstream: ScriptedUpstream
    tokens: dict[str, str] = field(default_factory=dict)
    """Access tokens by organization."""
    orgs: dict[str, str] = field(default_factory=dict)
    delivered: int = 0

    @property
    def billing(self) -> Billing:
        """The plugin's instance."""
        found = self.gateway.generations.current.registry.services[RateGrants]
        assert isinstance(found, Billing)
        return found

    async def ask(self, method: str, path: str, body: object = None, org: str = "acme") -> Answered:
        headers = {"authorization": f"Bearer {self.tokens[org]}"} if org else {}
        data = b"" if body is None else json.dumps(body).encode()
        return await self.gateway.request(method, path, data, headers)

    async def done(self, method: str, path: str, body: object = None, org: str = "acme") -> Any:
        reply = await self.ask(method, path, body, org)
        assert reply.status == 200, reply.body
        return reply.json()

    async def join(self, org: str = "acme") -> None:
        """Register an owner with an organization of this name."""
        who = {"email": f"{org}@example.com", "password": PASSWORD}
        await self.done("POST", "/api/v1/auth/register", who, "")
        await self.login(org)
        made = await self.done("POST", "/api/v1/gateway/org", {"name": org}, org)
        self.orgs[org] = made["id"]

    async def login(self, org: str) -> None:
        """Log its owner in."""
        who = {"email": f"{org}@example.com", "password": PASSWORD}
        login = await self.done("POST", "/api/v1/auth/login", who, "")
        self.tokens[org] = login["access_token"]

    async def jump(self, seconds: float) -> None:
        """Let time pass, and everybody log in again."""
        self.clock.jump(seconds)
        for org in self.tokens:
            await self.login(org)

    async def key(self, org: str = "acme") -> str:
        """A virtual key of the organization."""
        store = self.gateway.generations.current.registry.services[KeyStore]
        assert isinstance(store, KeyStore)
        return (await store.add_key(self.orgs[org], KeyTerms(name=org)))[1]

    async def buy(self, name: str = "small", kind: str = "pack", org: str = "acme") -> str:
        """Open a checkout and pay it; the webhooks are still to be delivered. The session's id."""
        opened = await self.done("POST", f"{BILLING}/checkout", {kind: name}, org)
        self.stripe.pay(opened["id"])
        return str(opened["id"])

    async def post(self, event: dict[str, Any], **signing: Any) -> Answered:
        """Deliver an event to the webhook."""
        body, header = self.stripe.signed(event, **signing)
        return await self.gateway.request("POST", WEBHOOK, body, {"stripe-signature": header})

    async def deliver(self) -> None:
        """Deliver all events that were not, and have what they ask for done."""
        events = self.stripe.events[self.delivered :]
        self.delivered = len(self.stripe.events)
        for event in events:
            reply = await self.post(event)
            assert reply.status == 200, reply.body
        await self.round()

    async def written(self) -> None:
        """Wait until the end of every call stands in the ledger."""
        database = self.gateway.generations.shared.database
        count = (
            "SELECT (SELECT count(*) FROM metering_hold) - (SELECT count(*) FROM metering_entry)"
        )
        with trio.fail_after(10):
            while (await database.read(lambda db: db.execute_sql(count).fetchone()))[0]:
                await trio.sleep(0.005)

    async def round(self) -> None:
        """Make the rounds once."""
        assert self.billing.rounds is not None
        await self.billing.rounds.make()

    async def chat(self, key: str, tokens: int = 1, most: int = 1) -> Answered:
        """A call that may cost up to `most` cents and costs `tokens`."""
        usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
        self.upstream.reply({**completion("x"), "usage": usage})
        self.gateway.key = key
        try:
            return await self.gateway.chat("hi", model="paid", max_tokens=most)
        finally:
            self.gateway.key = ""
            self.upstream.forget()  # what a refused call did not take

    async def status(self, org: str = "acme") -> dict[str, Any]:
        return dict(await self.done("GET", f"{BILLING}/status", None, org))


@contextlib.asynccontextmanager
async def shop(more: str = "", tail: str = "") -> AsyncIterator[Shop]:
    """A gateway and a Stripe on one clock, and the organization acme."""
    clock = JumpClock()
    clock.now = float(NOW)
    upstream = ScriptedUpstream()
    async with fake_stripe(clock=clock) as stripe:
        stripe.add_price("price_pro", 2000)
        stripe.add_price("price_base", 500)
        stripe.add_price("price_metered", 1, meter=stripe.add_meter("usd_cents"))
        toml = TOML.format(url=stripe.url, more=more) + tail
        async with open_gateway(upstream, toml, clock=clock) as gateway:
            opened = Shop(gateway, stripe, clock, upstream)
            await opened.join()
            yield opened
