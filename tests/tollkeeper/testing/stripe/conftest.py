"""A fake Stripe, the real stripe library that speaks to it, and a shop between them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe
import trio

from tollkeeper._server.link import Link
from tollkeeper.testing import Answered, JumpClock
from tollkeeper.testing.stripe import FakeStripe, fake_stripe


class Shop:
    """What a seller does, by the real library."""

    def __init__(self, fake: FakeStripe, client: Any) -> None:
        self.fake = fake
        self.client = client

    async def customer(self, **fields: Any) -> str:
        made = await self.client.v1.customers.create_async(params=fields)
        return str(made.id)

    async def session(self, cents: int = 2000, **fields: Any) -> Any:
        """A checkout session of one thing, by default for a new customer."""
        customer = fields.pop("customer", "") or await self.customer(name="Ada")
        line = {
            "price_data": {
                "currency": "usd",
                "unit_amount": cents,
                "product_data": {"name": "Credit"},
            },
            "quantity": 1,
        }
        params = {
            "mode": "payment",
            "customer": customer,
            "success_url": "http://shop.test/done?s={CHECKOUT_SESSION_ID}",
            "line_items": [line],
            **fields,
        }
        return await self.client.v1.checkout.sessions.create_async(params=params)

    async def paid(self, cents: int = 2000, **fields: Any) -> Any:
        """A session that was paid."""
        session = await self.session(cents, **fields)
        return self.fake.pay(session.id)

    async def subscribed(self, price: str = "", **fields: Any) -> Any:
        """The subscription of a session that was paid."""
        if not price:
            price = self.fake.add_price("price_pro", 2000)
        item: dict[str, Any] = {"price": price}
        if price != "price_metered":
            item["quantity"] = 1
        session = await self.session(mode="subscription", line_items=[item], **fields)
        paid = self.fake.pay(session.id)
        return await self.client.v1.subscriptions.retrieve_async(paid["subscription"])

    def kinds(self) -> list[str]:
        """The kinds of all events so far."""
        return [event["type"] for event in self.fake.events]

    async def raw(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answered:
        """A request without the library."""
        port = int(self.fake.url.rpartition(":")[2])
        link = Link(await trio.open_tcp_stream("127.0.0.1", port))
        lines = {"host": "fake", "content-length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        try:
            await link.request(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            parts = []
            while part := await link.chunk():
                parts.append(part)
            return Answered(link.status, dict(link.headers), b"".join(parts))
        finally:
            await link.aclose()


@pytest.fixture
def clock() -> JumpClock:
    return JumpClock()


@pytest.fixture
async def fake(clock: JumpClock) -> AsyncIterator[FakeStripe]:
    async with fake_stripe(clock=clock) as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeStripe) -> AsyncIterator[Any]:
    http: Any = stripe.HTTPXClient(timeout=5, verify_ssl_certs=False)
    yield stripe.StripeClient(
        fake.secret_key,
        base_addresses={"api": fake.url, "meter_events": fake.url},
        http_client=http,
        max_network_retries=0,
    )
    await http.close_async()


@pytest.fixture
async def shop(fake: FakeStripe, client: Any) -> Shop:
    return Shop(fake, client)
