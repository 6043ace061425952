"""Prices: exact, rounded once, and never below what usage can cost."""

import hashlib
import socket
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper import Usage
from tollkeeper.settings import PriceSettings, TierSettings
from tollkeeper_metering import prices
from tollkeeper_metering.prices import CEILING, UNKNOWN, make_markup, make_price

amounts = st.decimals(min_value=0, max_value=1000, places=7)
optional = st.none() | amounts
tokens = st.integers(0, 2_000_000)


def tier_of(above: int) -> st.SearchStrategy[TierSettings]:
    return st.builds(
        TierSettings,
        above=st.just(above),
        input=amounts,
        output=amounts,
        cache_read=optional,
        cache_write=optional,
    )


any_settings = st.builds(
    PriceSettings,
    input=amounts,
    output=amounts,
    cache_read=optional,
    cache_write=optional,
    tiers=st.sampled_from([(), (1,), (200_000,), (1000, 1_000_000), (5, 6)]).flatmap(
        lambda bounds: st.tuples(*map(tier_of, bounds))
    ),
)


@st.composite
def usages(draw: st.DrawFn, most_input: int = 2_000_000, most_output: int = 2_000_000) -> Usage:
    """What a provider that keeps to the meaning of the fields can tell."""
    every = draw(st.integers(0, most_input))
    read = draw(st.integers(0, every))
    write = draw(st.integers(0, every - read))
    return Usage(every, draw(st.integers(0, most_output)), read, write)


def exact(settings: PriceSettings, usage: Usage) -> Fraction:
    """Nano-USD by the book, before rounding."""
    row: PriceSettings | TierSettings = settings
    for tier in settings.tiers:
        if usage.input_tokens > tier.above:
            row = tier
    plain = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    read = row.input if row.cache_read is None else row.cache_read
    write = row.input if row.cache_write is None else row.cache_write
    dollars = (
        Fraction(row.input) * plain
        + Fraction(row.output) * usage.output_tokens
        + Fraction(read) * usage.cache_read_tokens
        + Fraction(write) * usage.cache_write_tokens
    )
    return dollars / 10**6 * 10**9


def settings_of(source: str = "1", output: str = "2", **more: str) -> PriceSettings:
    cached = {name: Decimal(value) for name, value in more.items()}
    return PriceSettings.model_validate(
        {"input": Decimal(source), "output": Decimal(output), **cached}
    )


TIERED = PriceSettings(
    input=Decimal(1),
    output=Decimal(2),
    cache_read=Decimal("0.1"),
    tiers=(TierSettings(above=100, input=Decimal(3), output=Decimal(4)),),
)


@given(any_settings, usages())
def test_a_cost_is_the_exact_sum_rounded_once_and_half_up(
    settings: PriceSettings, usage: Usage
) -> None:
    expected = (exact(settings, usage) + Fraction(1, 2)).__floor__()
    assert make_price(settings, "toml").cost(usage) == expected


@given(any_settings, st.data(), tokens, tokens)
def test_no_usage_within_the_bounds_costs_more_than_the_bound(
    settings: PriceSettings, data: st.DataObject, most_input: int, most_output: int
) -> None:
    price = make_price(settings, "toml")
    usage = data.draw(usages(most_input, most_output))
    assert price.cost(usage) <= price.bound(most_input, most_output)


@given(any_settings, st.integers(0, 300), st.integers(0, 300))
def test_a_bound_is_reached_by_some_usage(
    settings: PriceSettings, most_input: int, most_output: int
) -> None:
    price = make_price(settings, "toml")
    tops = {most_input, *(min(tier.above, most_input) for tier in settings.tiers)}
    worst = max(
        price.cost(Usage(top, most_output, read, write))
        for top in tops
        for read, write in ((0, 0), (top, 0), (0, top))
    )
    assert price.bound(most_input, most_output) == worst


@given(any_settings, st.integers(0, 10**15))
def test_the_tokens_that_money_buys_cost_no_more_than_it(
    settings: PriceSettings, money: int
) -> None:
    price = make_price(settings, "toml")
    bought = price.output_tokens_for(money)
    if not price.dearest_output:
        assert bought == CEILING
        return
    dearest = max(settings.output, *(tier.output for tier in settings.tiers), Decimal(0))
    flat = make_price(PriceSettings(input=Decimal(0), output=dearest), "toml")
    assert flat.cost(Usage(0, bought)) <= money
    assert Fraction(dearest) * 1000 * (bought + 1) > money


def test_half_a_nano_is_rounded_up() -> None:
    price = make_price(settings_of("0.0005", "0.0004"), "toml")
    assert price.cost(Usage(1, 0)) == 1
    assert price.cost(Usage(0, 1)) == 0
    assert price.cost(Usage(1, 1)) == 1  # 0.9 once, and not 1 and 0 apart


def test_cached_input_is_counted_once_and_costs_as_much_as_input_by_default() -> None:
    assert make_price(settings_of("1", "0"), "toml").cost(Usage(100, 0, 60, 30)) == 100_000
    price = make_price(settings_of("1", "0", cache_read="0.1", cache_write="1.25"), "toml")
    assert price.cost(Usage(100, 0, 60, 30)) == 10_000 + 6_000 + 37_500


def test_reasoning_is_part_of_the_output() -> None:
    assert make_price(settings_of(), "toml").cost(Usage(0, 10, reasoning_tokens=9)) == 20_000


def test_a_tier_takes_the_whole_request_and_begins_above_its_bound() -> None:
    price = make_price(TIERED, "toml")
    assert price.cost(Usage(100, 10)) == 120_000
    assert price.cost(Usage(101, 10)) == 303_000 + 40_000
    assert price.cost(Usage(101, 0, cache_read_tokens=101)) == 303_000


def test_the_order_of_the_tiers_does_not_matter() -> None:
    tiers = (
        TierSettings(above=50, input=Decimal(2), output=Decimal(2)),
        TierSettings(above=10, input=Decimal(9), output=Decimal(9)),
    )
    turned = make_price(TIERED.model_copy(update={"tiers": tiers}), "toml")
    assert turned == make_price(TIERED.model_copy(update={"tiers": tiers[::-1]}), "toml")
    assert turned.cost(Usage(11, 0)) == 99_000
    assert turned.cost(Usage(51, 0)) == 102_000


def test_usage_that_contradicts_itself_costs_neither_less_than_nothing_nor_too_much() -> None:
    price = make_price(settings_of(cache_read="0.5"), "toml")
    assert price.cost(Usage(10, 0, cache_read_tokens=100)) == 50_000
    assert price.cost(Usage(-5, -5)) == 0
    assert price.cost(Usage(2**61, 2**61)) == CEILING
    assert price.bound(2**61, 2**61) == CEILING
    assert price.output_tokens_for(-1) == 0


def test_digits_beyond_any_float_or_decimal_context_are_kept() -> None:
    long = "0." + "0" * 30 + "123456789012345678901234567891"
    price = make_price(settings_of(long, "0"), "toml")
    assert long in price.text
    assert price.cost(Usage(10**40, 0)) == int(Fraction(long) * 10**43 + Fraction(1, 2))


def test_a_version_is_made_of_the_source_and_the_text() -> None:
    price = make_price(TIERED, "toml", context_window=128_000)
    assert price.context_window == 128_000
    assert price.version == "toml:" + hashlib.sha256(price.text.encode()).hexdigest()[:12]
    assert price.text == (
        '{"input":"1","output":"2","cache_read":"0.1",'
        '"tiers":[{"above":100,"input":"3","output":"4"}]}'
    )


def test_the_same_price_has_the_same_version_however_it_is_written() -> None:
    versions = {make_price(settings_of(text), "toml").version for text in ("10", "10.0", "1E+1")}
    assert len(versions) == 1
    assert make_price(settings_of("10.1"), "toml").version not in versions


def test_an_unknown_price_costs_nothing() -> None:
    assert UNKNOWN.version.startswith("unknown:")
    assert UNKNOWN.cost(Usage(10**9, 10**9)) == UNKNOWN.bound(10**9, 10**9) == 0


@given(st.integers(0, 10**15), st.decimals(min_value=0, max_value=10, places=4))
def test_a_markup_is_exact_and_half_up(amount: int, rate: Decimal) -> None:
    expected = (amount * (1 + Fraction(rate)) + Fraction(1, 2)).__floor__()
    assert make_markup(rate)(amount) == expected


def test_no_markup_is_the_amount_itself_and_no_markup_leaves_64_bits() -> None:
    assert make_markup(Decimal(0))(12_345) == 12_345
    assert make_markup(Decimal("0.2"))(CEILING) == CEILING


def bundled(model: str, kind: str = "openai", base_url: str = "") -> PriceSettings | None:
    found = prices.find_bundled(model, kind, base_url)
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.5-pro"),
    ],
)
def test_a_model_is_found_by_the_kind_of_its_provider(kind: str, model: str) -> None:
    found = prices.find_bundled(model, kind, "http://127.0.0.1:9/v1")
    assert found is not None
    settings, window = found
    assert settings.output > settings.input > 0
    assert window is None or window >= 100_000


def test_the_bundled_price_of_a_model_is_the_one_of_its_provider() -> None:
    settings = bundled("gpt-4o-mini")
    assert settings is not None
    assert (settings.input, settings.output) == (Decimal("0.15"), Decimal("0.6"))
    assert settings.cache_read == Decimal("0.075")


def test_the_base_url_tells_more_than_the_kind() -> None:
    assert bundled("deepseek-chat") is None
    assert bundled("deepseek-chat", base_url="https://api.deepseek.com/v1") is not None
    assert bundled("gpt-4o-mini", base_url="https://api.deepseek.com/v1") is None


def test_tiers_of_single_fields_become_tiers_of_the_whole_price() -> None:
    settings = bundled("gemini-2.5-pro", "gemini")
    assert settings is not None
    (tier,) = settings.tiers
    assert tier.above == 200_000
    assert (tier.input, tier.output) == (2 * settings.input, Decimal("1.5") * settings.output)


def test_an_embedding_model_has_free_output() -> None:
    settings = bundled("text-embedding-3-small")
    assert settings == PriceSettings(input=Decimal("0.02"), output=Decimal(0))


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini", "demo", ""])
@pytest.mark.parametrize("model", ["", "no such model", "whisper-1(", "\N{SNOWMAN}" * 300])
def test_what_nobody_knows_has_no_price(kind: str, model: str) -> None:
    assert prices.find_bundled(model, kind, "") is None


def test_a_kind_without_a_provider_in_the_data_has_no_prices() -> None:
    assert bundled("gpt-4o-mini", "demo") is None


def test_every_model_of_the_data_gives_a_price_that_can_be_counted_by() -> None:
    from genai_prices.data import providers

    now = datetime.now(UTC)
    counted = 0
    for provider in providers:
        for model in provider.models:
            settings = prices._settings_of(prices._standard(model, now))
            if settings is None:
                continue
            counted += 1
            for count in (10, 150_000, 1_500_000):
                usage = Usage(count, count, count // 2)
                price = make_price(settings, "genai-prices")
                assert price.cost(usage) <= price.bound(count, count)
                if len(settings.tiers) < 2:
                    assert_agrees(model.get_prices(now), usage, price.cost(usage))
    assert counted > 1000


def assert_agrees(theirs: object, usage: Usage, ours: int) -> None:
    """Our cost is what the data's own library makes of the same tokens, where it is no cheaper."""
    assert ours >= 0
    calculate = getattr(theirs, "calc_price", None)
    assert calculate is not None
    from genai_prices import Usage as TheirUsage

    every = TheirUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
    )
    total = calculate(every)["input_price"] + calculate(every)["output_price"]
    assert ours >= int(total * 10**9)


def test_a_discount_by_the_hour_is_not_taken_for_the_price_of_the_day() -> None:
    from genai_prices import types

    def row(amount: int, rule: types.TimeOfDateConstraint | None) -> types.ConditionalPrice:
        price = types.ModelPrice(input_mtok=Decimal(amount), output_mtok=Decimal(amount))
        return types.ConditionalPrice(constraint=rule, prices=price)

    at_night = types.TimeOfDateConstraint(
        start_time=datetime(2026, 1, 1, 0, tzinfo=UTC).timetz(),
        end_time=datetime(2026, 1, 1, 6, tzinfo=UTC).timetz(),
    )
    now = datetime(2026, 11, 25, 3, tzinfo=UTC)
    for rows in ([row(2, None), row(1, at_night)], [row(1, None), row(2, at_night)]):
        model = types.ModelInfo(id="m", match=types.ClauseEquals("m"), prices=rows)
        assert prices._standard(model, now).input_mtok == 2


def test_the_newest_price_that_has_begun_is_the_one() -> None:
    from genai_prices import types

    def row(amount: int, start: datetime) -> types.ConditionalPrice:
        price = types.ModelPrice(input_mtok=Decimal(amount), output_mtok=Decimal(amount))
        rule = types.StartDateConstraint(start_date=start.date())
        return types.ConditionalPrice(constraint=rule, prices=price)

    rows = [row(day, datetime(2026, 11, day, tzinfo=UTC)) for day in (1, 10, 20)]
    model = types.ModelInfo(id="m", match=types.ClauseEquals("m"), prices=rows)
    for day, expected in ((1, 1), (9, 1), (10, 10), (25, 20)):
        now = datetime(2026, 11, day, 12, tzinfo=UTC)
        assert prices._standard(model, now).input_mtok == expected


def test_looking_up_a_price_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert bundled("gpt-4o-mini") is not None


def test_the_data_is_not_imported_before_it_is_asked_for() -> None:
    code = "import sys, tollkeeper_metering.prices; print('genai_prices' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
