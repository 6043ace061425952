"""What a deployment costs is found once, in the TOML or in the bundled data."""

import logging
from decimal import Decimal

import pytest

from tollkeeper import Deployment, PriceSettings
from tollkeeper_metering import rates as module
from tollkeeper_metering.prices import CEILING, UNKNOWN
from tollkeeper_metering.rates import Rates, find_rate

PRICE = PriceSettings(input=Decimal(1), output=Decimal(2))
OPENAI = "https://api.openai.com/v1"


def deployment(
    model: str = "house-model",
    price: PriceSettings | None = None,
    max_output: int | None = None,
    base_url: str = "http://127.0.0.1:1/v1",
) -> Deployment:
    return Deployment(
        "m", "up", "openai", model, price=price, max_output=max_output, base_url=base_url
    )


def test_the_price_of_the_toml_comes_first() -> None:
    rate = find_rate(deployment("gpt-4o-mini", PRICE, base_url=OPENAI))
    assert rate.settings == PRICE
    assert rate.price.version.startswith("toml:")
    assert rate.name == "up/gpt-4o-mini"


def test_a_model_without_one_has_that_of_the_bundled_data() -> None:
    rate = find_rate(deployment("gpt-4o-mini", base_url=OPENAI))
    assert rate.price.version.startswith("genai-prices:")
    assert rate.settings is not None
    assert (rate.settings.input, rate.settings.output) == (Decimal("0.15"), Decimal("0.6"))


def test_a_model_that_nobody_knows_has_no_price(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rate = find_rate(deployment())
    assert (rate.price, rate.settings, rate.max_output) == (UNKNOWN, None, None)
    assert "no price is known for m of up/house-model" in caplog.text


def test_the_bound_of_the_toml_comes_before_the_context_window() -> None:
    def bound(price: PriceSettings | None = None, max_output: int | None = None) -> int | None:
        return find_rate(deployment("gpt-4o-mini", price, max_output, OPENAI)).max_output

    assert bound(max_output=77) == 77
    assert bound() == 128_000
    assert bound(PRICE) == 128_000


@pytest.mark.parametrize(
    ("usd", "output", "tokens"),
    [("0.50", "2", 250_000), ("0", "2", 0), ("0.50", "0", CEILING), ("0.000003", "2", 1)],
)
def test_draining_buys_output_tokens_at_the_price_of_the_model(
    usd: str, output: str, tokens: int
) -> None:
    price = PriceSettings(input=Decimal(1), output=Decimal(output))
    wanted = Deployment("m", "up", "openai", "x", price=price, drain_usd=Decimal(usd))
    assert find_rate(wanted).drain_tokens == tokens


def test_a_deployment_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def find(model: str, kind: str, base_url: str) -> None:
        calls.append(model)

    monkeypatch.setattr(module, "find_bundled", find)
    known, wanted = Rates(), deployment()
    assert known.of(wanted) is known.of(wanted)
    assert calls == ["house-model"]


def test_calls_of_the_set_before_keep_their_rates() -> None:
    known, old = Rates(), deployment(price=PRICE)
    rate = known.of(old)
    known.follow()
    assert known.of(old) is rate
    known.follow()
    assert known.of(old) == rate


def test_a_window_that_stands_in_for_a_bound_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = Rates()
    rate = known.of(deployment("gpt-4o-mini", base_url=OPENAI))
    known.warn_of_window(rate)
    known.warn_of_window(rate)
    assert caplog.text.count("no max_output is set for up/gpt-4o-mini") == 1


@pytest.mark.parametrize("model", ["gpt-4o-mini", "claude-sonnet-4-5"])
def test_bundled_prices_belong_to_the_service_at_the_address(model: str) -> None:
    by_kind = find_rate(deployment(model))
    assert (by_kind.settings is None) == model.startswith("claude")
