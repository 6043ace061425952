"""`[plugins.billing]`: what cannot be sold is told before anything is."""

import pytest
from pydantic import ValidationError
from shop import TOML, shop

from tollkeeper import ConfigError
from tollkeeper.testing import open_gateway
from tollkeeper_billing.settings import BillingSettings

WRITTEN = {
    "secret_key": "sk_test_1",
    "webhook_secret": "whsec_1",
    "success_url": "https://example.com/paid",
    "cancel_url": "https://example.com/prices",
}


def complaint(**more: object) -> str:
    with pytest.raises(ValidationError) as wrong:
        BillingSettings.model_validate(WRITTEN | more)
    return str(wrong.value)


def test_a_price_of_two_plans_is_named_with_both() -> None:
    plans = {
        "pro": {"stripe_price": "price_1"},
        "max": {"stripe_price": "price_2", "former_prices": ["price_1"]},
    }
    assert "the plans pro and max both have price_1" in complaint(plans=plans)
    twice = {"pro": {"stripe_price": "price_1", "former_prices": ["price_1"]}}
    assert "the plans pro and pro both have price_1" in complaint(plans=twice)


def test_a_live_key_goes_to_no_stand_in() -> None:
    live = {"secret_key": "sk_live_1", "api_base": "http://127.0.0.1:1"}
    assert "takes no live secret_key" in complaint(**live)


async def test_a_rate_without_limits_does_not_start() -> None:
    async with shop() as house:
        toml = TOML.format(url=house.stripe.url, more="")
    with pytest.raises(ConfigError, match=r"RateLimits.*turn on \[plugins.limits\]"):
        async with open_gateway(toml=toml.replace("[plugins.limits]\nrpm = 1000000\n", "")):
            pass
