"""Keys of requests that may come twice."""

from typing import Any

import pytest
import stripe
import trio

from tollkeeper.testing import JumpClock
from tollkeeper.testing.stripe import FakeStripe
from tollkeeper.testing.stripe.idempotency import Kept, Keys
from tollkeeper.testing.stripe.refusals import Malformed


def test_a_key_is_kept_for_a_day(clock: JumpClock) -> None:
    keys = Keys(clock)
    kept = Kept(200, b"x")
    assert keys.begin("k", 1) is None
    keys.end("k", kept)
    clock.jump(86399)
    assert keys.begin("k", 1) == kept
    clock.jump(1)
    assert keys.begin("k", 2) is None


def test_a_key_without_a_reply_is_free_again(clock: JumpClock) -> None:
    keys = Keys(clock)
    keys.begin("k", 1)
    with pytest.raises(Malformed) as caught:
        keys.begin("k", 1)
    assert caught.value.status == 409
    keys.end("k", None)
    assert keys.begin("k", 2) is None
    with pytest.raises(Malformed, match="255"):
        keys.begin("k" * 256, 1)


async def test_the_same_request_is_answered_once(shop: Any, fake: FakeStripe) -> None:
    create = shop.client.v1.customers.create_async
    options = {"idempotency_key": "one"}
    first = await create(params={"name": "Ada"}, options=options)
    again = await create(params={"name": "Ada"}, options=options)
    assert first.id == again.id
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.last_response.headers
    with pytest.raises(stripe.IdempotencyError) as caught:
        await create(params={"name": "Bob"}, options=options)
    assert caught.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError):
        await shop.client.v1.payment_intents.create_async(
            params={"amount": 50, "currency": "usd"}, options=options
        )
    assert len(fake.every("customer")) == 1


async def test_after_a_day_a_key_is_new(shop: Any, clock: JumpClock, fake: FakeStripe) -> None:
    create = shop.client.v1.customers.create_async
    await create(params={"name": "Ada"}, options={"idempotency_key": "one"})
    clock.jump(86400)
    await create(params={"name": "Bob"}, options={"idempotency_key": "one"})
    assert len(fake.every("customer")) == 2


async def test_a_refusal_is_kept_but_not_one_of_the_parameters(shop: Any, fake: FakeStripe) -> None:
    create = shop.client.v1.payment_intents.create_async
    options = {"idempotency_key": "one"}
    with pytest.raises(stripe.InvalidRequestError):
        await create(params={"amount": "x", "currency": "usd"}, options=options)
    fake.declining = "card_declined"
    params = {"amount": 50, "currency": "usd", "confirm": True, "payment_method": "pm_card_visa"}
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await create(params=params, options=options)
        fake.declining = ""
    assert len(fake.every("payment_intent")) == 1


async def test_a_key_in_progress_is_a_conflict(shop: Any, fake: FakeStripe) -> None:
    started, waits = trio.Event(), [0.2, 0]

    def slowness(_method: str, _path: str) -> float:
        started.set()
        return waits.pop(0)

    fake.slowness = slowness
    create = shop.client.v1.customers.create_async

    async def first() -> None:
        await create(options={"idempotency_key": "one"})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await started.wait()
        with pytest.raises(stripe.APIError) as caught:
            await create(options={"idempotency_key": "one"})
        assert caught.value.http_status == 409


async def test_who_does_not_wait_finds_the_reply_later(shop: Any, fake: FakeStripe) -> None:
    fake.slowness = lambda _method, _path: 5
    create = shop.client.v1.customers.create_async
    with trio.move_on_after(0.2):
        await create(options={"idempotency_key": "one"})
    fake.slowness = lambda _method, _path: 0
    with trio.fail_after(5):
        while True:
            try:
                found = await create(options={"idempotency_key": "one"})
                break
            except stripe.APIError:  # it is in progress while nobody has noticed
                await trio.sleep(0.01)
    assert [one["id"] for one in fake.every("customer")] == [found.id]
