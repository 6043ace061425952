"""The fake as tests hold it."""

import json
import time
from typing import Any

import pytest
import stripe
import trio

from tollkeeper.testing import JumpClock
from tollkeeper.testing.stripe import FakeStripe, fake_stripe


class Hook:
    """A webhook that notes what it gets, and answers what it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, str]] = []
        self.replies: list[int] = []
        self.url = ""

    async def answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some()
            head, _, body = data.partition(b"\r\n\r\n")
            lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            while len(body) < int(lines["content-length"]):
                body += await stream.receive_some()
            self.got.append((body, lines["stripe-signature"]))
            status = self.replies.pop(0) if self.replies else 200
            await stream.send_all(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())

    def kinds(self) -> list[str]:
        return [json.loads(body)["type"] for body, _ in self.got]


@pytest.fixture
async def hook(nursery: trio.Nursery) -> Hook:
    made = Hook()
    listeners = await nursery.start(trio.serve_tcp, made.answer, 0)
    made.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/hook"
    return made


async def test_the_real_clock_is_the_default() -> None:
    async with fake_stripe(secret_key="sk_mine", webhook_secret="whsec_mine") as fake:
        assert abs(fake.now() - time.time()) < 5
        assert (fake.secret_key, fake.webhook_secret) == ("sk_mine", "whsec_mine")
        event = fake.record("x.y", {"id": "x"})
        body, header = fake.signed(event)
        stripe.WebhookSignature.verify_header(body.decode(), header, "whsec_mine", 300)


async def test_a_signature_is_of_the_time_and_secret_asked_for(
    fake: FakeStripe, clock: JumpClock
) -> None:
    event = fake.record("x.y", {"id": "x", "name": "ä"})
    body, header = fake.signed(event)
    assert json.loads(body) == event
    assert header.startswith("t=1000000,v1=")
    verify = stripe.WebhookSignature.verify_header
    verify(body.decode(), header, "whsec_fake")
    with pytest.raises(stripe.SignatureVerificationError):
        verify(body.decode(), header, "whsec_fake", 300)
    body, header = fake.signed(event, timestamp=5, secret="other")
    assert header.startswith("t=5,v1=")
    verify(body.decode(), header, "other")
    fake.signing_time = time.time
    body, header = fake.signed(event)
    made = stripe.Webhook.construct_event(body, header, "whsec_fake")
    assert made.type == "x.y"


async def test_events_reach_the_webhook_in_order(hook: Hook, clock: JumpClock) -> None:
    async with fake_stripe(clock=clock, webhook_url=hook.url) as fake:
        for kind in ("a.b", "c.d", "e.f"):
            fake.record(kind, {"id": "x"})
        hook.replies = [200, 500]
        with trio.fail_after(5):
            await fake.wait_delivered()
        assert hook.kinds() == ["a.b", "c.d", "c.d", "e.f"]
        body, header = hook.got[0]
        stripe.WebhookSignature.verify_header(body.decode(), header, "whsec_fake")


async def test_a_webhook_may_be_named_later_and_told_by_hand(hook: Hook, fake: FakeStripe) -> None:
    first, second = fake.record("a.b", {"id": "x"}), fake.record("c.d", {"id": "x"})
    fake.delivering = False
    fake.webhook_url = hook.url
    hook.replies = [418]
    assert await fake.deliver(second) == 418
    assert await fake.deliver(first) == 200
    assert hook.kinds() == ["c.d", "a.b"]
    fake.delivering = True
    with trio.fail_after(5):
        await fake.wait_delivered()
    assert hook.kinds() == ["c.d", "a.b", "a.b", "c.d"]
    assert (fake.delivering, fake.webhook_url) == (True, hook.url)


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with fake_stripe():
            raise KeyError("x")


async def test_a_whole_story(shop: Any, hook: Hook, fake: FakeStripe) -> None:
    fake.webhook_url = hook.url
    session = await shop.session(metadata={"org": "7"})
    fake.pay(session.id)
    intent = fake.events[-1]["data"]["object"]["payment_intent"]
    fake.fail_refund(fake.refund(intent, 100))
    fake.close_dispute(fake.dispute(intent), "won")
    with trio.fail_after(5):
        await fake.wait_delivered()
    assert hook.kinds() == [event["type"] for event in fake.events]
