"""Prices."""

from typing import Any

import pytest
import stripe

from tollkeeper.testing.stripe import FakeStripe, Refusal


async def test_prices_are_added_under_their_own_ids(shop: Any, fake: FakeStripe) -> None:
    meter = fake.add_meter("tokens")
    assert fake.add_meter("tokens") == meter
    assert fake.add_price("price_pro", 2000) == "price_pro"
    fake.add_price("price_a", 1, meter="tokens")
    fake.add_price("price_b", 1, meter=meter)
    pro = await shop.client.v1.prices.retrieve_async("price_pro")
    assert (pro.unit_amount, pro.type, pro.currency) == (2000, "recurring", "usd")
    assert (pro.recurring.interval, pro.recurring.usage_type) == ("month", "licensed")
    for name in ("price_a", "price_b"):
        metered = await shop.client.v1.prices.retrieve_async(name)
        assert (metered.recurring.usage_type, metered.recurring.meter) == ("metered", meter)
    with pytest.raises(Refusal):
        fake.add_price("price_c", 1, meter="unknown")


async def test_a_price_is_made_by_the_api(shop: Any) -> None:
    create = shop.client.v1.prices.create_async
    once = await create(
        params={"currency": "USD", "unit_amount": 500, "product_data": {"name": "Credit"}}
    )
    assert (once.type, once.currency, once.recurring) == ("one_time", "usd", None)
    more = await create(
        params={
            "currency": "usd",
            "unit_amount": 500,
            "product": once.product,
            "recurring": {"interval": "year"},
        }
    )
    assert more.product == once.product
    assert more.recurring.interval == "year"


@pytest.mark.parametrize(
    "changes",
    [
        {"unit_amount": -1},
        {"unit_amount": 1.5},
        {"product": "prod_x"},
        {"product_data": None},
        {"recurring": {"interval": "month", "usage_type": "metered"}},
        {"recurring": {"interval": "month", "usage_type": "metered", "meter": "mtr_x"}},
        {"recurring": {"interval": "century"}},
        {"currency": None},
    ],
)
async def test_what_is_no_price_is_refused(shop: Any, changes: dict[str, Any]) -> None:
    params = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Credit"}}
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v1.prices.create_async(params={**params, **changes})
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v1.prices.retrieve_async("price_x")
