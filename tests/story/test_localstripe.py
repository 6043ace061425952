"""Stripe as others imitate it: localstripe, where it has the endpoint, as a second opinion.

It knows customers, subscriptions (in the shape of older API versions) and signed webhooks; of
checkouts, the portal, meters and idempotency it knows nothing.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from processes import free_port

from tollkeeper.storage import make_database
from tollkeeper_billing import customers, inbox
from tollkeeper_billing.processor import connected
from tollkeeper_billing.settings import BillingSettings

SERVE = (  # its own main listens on every address of the machine
    "import sys; from aiohttp import web; from localstripe.server import app;"
    " web.run_app(app, host='127.0.0.1', port=int(sys.argv[1]), print=None)"
)
SECRET = "whsec_local"


@dataclass
class Local:
    """localstripe in a process of its own, and what it delivered."""

    url: str
    delivered: list[tuple[bytes, str]] = field(default_factory=list)

    def post(self, path: str, **fields: str) -> Any:
        data = urllib.parse.urlencode(fields).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data, {"authorization": "Bearer sk_test_local"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    @property
    def settings(self) -> BillingSettings:
        return BillingSettings.model_validate(
            {
                "secret_key": "sk_test_local",
                "webhook_secret": SECRET,
                "api_base": self.url,
                "success_url": "https://example.com/",
                "cancel_url": "https://example.com/",
            }
        )


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    opened = Local(f"http://127.0.0.1:{free_port()}")

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            opened.delivered.append((body, self.headers["stripe-signature"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    port = opened.url.rpartition(":")[2]
    process = subprocess.Popen([sys.executable, "-c", SERVE, port], cwd=tmp_path)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                hook = f"http://127.0.0.1:{receiver.server_port}/"
                opened.post("/_config/webhooks/all", url=hook, secret=SECRET)
                break
            except OSError:
                assert time.monotonic() < deadline, "localstripe does not start"
                time.sleep(0.1)
        yield opened
    finally:
        process.kill()
        process.wait()
        receiver.shutdown()
        receiver.server_close()


def subscribe(local: Local, customer: str) -> str:
    """Subscribe a customer to the price `price_pro`."""
    card = {"card[number]": "4242424242424242", "card[exp_month]": "12"}
    card |= {"card[exp_year]": "2040", "card[cvc]": "123"}
    method = local.post("/v1/payment_methods", type="card", **card)["id"]
    local.post(f"/v1/payment_methods/{method}/attach", customer=customer)
    default = {"invoice_settings[default_payment_method]": method}
    local.post(f"/v1/customers/{customer}", **default)
    product = local.post("/v1/products", name="Pro", type="service")["id"]
    price = {"id": "price_pro", "product": product, "amount": "2000"}
    local.post("/v1/plans", **price, currency="usd", interval="month")
    items = {"items[0][plan]": "price_pro"}
    return str(local.post("/v1/subscriptions", customer=customer, **items)["id"])


async def test_a_second_imitation_of_stripe_is_understood_the_same(
    local: Local, tmp_path: Path
) -> None:
    database = make_database("sqlite:///my.db", tmp_path)
    database.open()
    database.migrate_package("billing", "tollkeeper_billing")
    async with connected(local.settings) as stripe:
        customer = await stripe.create_customer("acme", "nonce", "ann@example.com")
        assert await stripe.subscriptions(customer) == []
        name = subscribe(local, customer)
        (found,) = await stripe.subscriptions(customer)
    assert (found.id, found.status, found.prices) == (name, "active", ("price_pro",))
    assert 27 * 86_400 < found.period_end - found.period_start < 32 * 86_400
    deadline = time.monotonic() + 10
    while not any(b"customer.subscription.created" in body for body, _ in local.delivered):
        assert time.monotonic() < deadline, "no webhook came"
        await trio.sleep(0.1)
    with database.transaction() as db:
        customers.begin_customer(db, "acme", "")
        customers.note_customer(db, "acme", customer)
        outcomes = {}
        for body, header in local.delivered:
            inbox.prove(body, header, SECRET, time.time())
            event = inbox.read_event(body, livemode=False)
            outcomes[event.type] = inbox.receive(db, event, int(time.time()))
    created = outcomes["customer.subscription.created"]
    assert (created.outcome, created.org, created.asks) == ("done", "acme", True)
    database.close()
