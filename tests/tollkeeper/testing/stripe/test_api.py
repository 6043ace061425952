"""One request: who asks, and what goes wrong."""

from typing import Any

import pytest
import stripe

from tollkeeper.testing.stripe import FakeStripe


async def test_a_key_is_asked_for(shop: Any, client: Any, fake: FakeStripe) -> None:
    fake.secret_key = "sk_other"
    with pytest.raises(stripe.AuthenticationError) as caught:
        await client.v1.customers.create_async()
    assert caught.value.http_status == 401
    reply = await shop.raw("GET", "/v1/billing/meters")
    assert reply.status == 401
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_requests_are_noted(shop: Any, fake: FakeStripe) -> None:
    customer = await shop.customer()
    await shop.client.v1.customers.payment_methods.list_async(customer, {"limit": 1})
    assert fake.requests == [
        ("POST", "/v1/customers"),
        ("GET", f"/v1/customers/{customer}/payment_methods"),
    ]


@pytest.mark.parametrize(
    ("fault", "done", "error"),
    [
        ("drop_before", 0, stripe.APIConnectionError),
        ("drop_after", 1, stripe.APIConnectionError),
        ("500_before", 0, stripe.APIError),
        ("500_after", 1, stripe.APIError),
        ("429", 0, stripe.RateLimitError),
    ],
)
async def test_a_fault_happens_before_or_after_the_work(
    shop: Any, fake: FakeStripe, fault: str, done: int, error: type[Exception]
) -> None:
    fake.fault = lambda method, path: fault if (method, path) == ("POST", "/v1/customers") else ""
    with pytest.raises(error):
        await shop.customer()
    assert len(fake.every("customer")) == done
    await shop.client.v1.billing.meters.list_async()
    fake.fault = lambda _method, _path: ""
    await shop.customer()
    assert len(fake.every("customer")) == done + 1


@pytest.mark.parametrize(
    ("fault", "customers"), [("drop_before", 1), ("drop_after", 1), ("429", 1)]
)
async def test_a_key_makes_a_second_try_safe(
    shop: Any, fake: FakeStripe, fault: str, customers: int
) -> None:
    create = shop.client.v1.customers.create_async
    fake.fault = lambda _method, _path: fault
    with pytest.raises(stripe.StripeError):
        await create(options={"idempotency_key": "one"})
    fake.fault = lambda _method, _path: ""
    made = await create(options={"idempotency_key": "one"})
    replayed = made.last_response.headers.get("idempotent-replayed")
    assert replayed == ("true" if fault == "drop_after" else None)
    assert len(fake.every("customer")) == customers


@pytest.mark.parametrize(("fault", "customers"), [("500_before", 0), ("500_after", 1)])
async def test_a_500_is_told_again_to_the_same_key(
    shop: Any, fake: FakeStripe, fault: str, customers: int
) -> None:
    create = shop.client.v1.customers.create_async
    fake.fault = lambda _method, _path: fault
    for _ in range(2):
        with pytest.raises(stripe.APIError) as caught:
            await create(options={"idempotency_key": "one"})
        assert caught.value.http_status == 500
        fake.fault = lambda _method, _path: ""
    headers: Any = caught.value.headers
    assert headers["idempotent-replayed"] == "true"
    assert len(fake.every("customer")) == customers


async def test_the_library_tries_again_by_itself(shop: Any, fake: FakeStripe) -> None:
    faults = ["drop_after", ""]
    fake.fault = lambda _method, _path: faults.pop(0)
    await shop.client.v1.customers.create_async(options={"max_network_retries": 2})
    assert (len(fake.every("customer")), len(fake.requests)) == (1, 2)


async def test_ids_are_expanded_where_asked(shop: Any) -> None:
    made = await shop.subscribed()
    found = await shop.client.v1.subscriptions.retrieve_async(
        made.id, {"expand": ["customer", "latest_invoice.customer", "cancel_at.x"]}
    )
    assert found.customer.name == "Ada"
    assert found.latest_invoice.customer.name == "Ada"
    listed = await shop.client.v1.subscriptions.list_async({"expand": ["data.customer"]})
    assert listed.data[0].customer.name == "Ada"
    for path in ("surprise", "status", "customer.name.x"):
        with pytest.raises(stripe.InvalidRequestError, match="expanded"):
            await shop.client.v1.subscriptions.retrieve_async(made.id, {"expand": [path]})


async def test_an_unknown_fault_is_a_mistake_of_the_test(fake: FakeStripe, shop: Any) -> None:
    fake.fault = lambda _method, _path: "dorp"
    with pytest.raises(stripe.APIError):
        await shop.customer()
