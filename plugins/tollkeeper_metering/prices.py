"""What usage costs: prices turned into whole nano-USD, exactly, rounded once and half up."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Any, NamedTuple

from tollkeeper import Usage
from tollkeeper.settings import PriceSettings, TierSettings

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

CEILING = 2**62
"""No amount and no number of tokens is above this, so that all of them fit into 64 bits."""

VERSION_DIGITS = 12
"""Of the SHA-256 of a price's text, in hex: what stands behind the colon of its version."""

_NANO_PER_TOKEN = 1000  # a dollar for a million tokens is this many nano-USD for one
_FIELDS = ("input", "output", "cache_read", "cache_write")
_BUNDLED_KINDS = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}


class Rates(NamedTuple):
    """Nano-USD of one token, each as a numerator over twice the `half` of its price."""

    input: int
    output: int
    cache_read: int
    cache_write: int


class Tier(NamedTuple):
    """Rates of requests with more than `above` input tokens, and at most `most` of them."""

    above: int
    most: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one deployment. Made by `make_price`."""

    version: str
    """Where it comes from, a colon, and the beginning of the SHA-256 of `text`."""
    text: str
    """The price as JSON: US dollars per million tokens, as strings."""
    context_window: int | None
    """Most tokens of a request and its reply, None where nobody knows."""
    rates: Rates
    """Below all tiers."""
    dearest_input: int
    """The highest of the rates that an input token can have below all tiers."""
    dearest_output: int
    """The highest rate of an output token in any tier."""
    half: int
    """Half the denominator of all rates."""
    tiers: tuple[Tier, ...]
    """With the rates below all tiers, highest first; empty where those are all there is."""

    def cost(self, usage: Usage) -> int:
        """Nano-USD of this usage, from 0 to `CEILING`."""
        every, read, write = usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens
        rates = self._rates_at(every) if self.tiers else self.rates
        plain = every - read - write
        if plain < 0:  # a provider that counts what is cached beside the input
            plain = 0
        of_input, of_output, of_read, of_write = rates
        total = plain * of_input + usage.output_tokens * of_output + read * of_read
        half = self.half
        amount = (total + write * of_write + half) // (half + half)
        return amount if 0 <= amount <= CEILING else _clamped(amount)

    def bound(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-USD that usage of at most so many tokens can cost at most, up to `CEILING`."""
        if self.tiers:
            total = self._dearest(input_tokens, output_tokens)
        else:
            total = input_tokens * self.dearest_input + output_tokens * self.rates[1]
        half = self.half
        amount = (total + half) // (half + half)
        return amount if 0 <= amount <= CEILING else _clamped(amount)

    def output_tokens_for(self, nanousd: int) -> int:
        """How many output tokens this buys at the dearest rate; `CEILING` where they are free."""
        if not self.dearest_output:
            return CEILING
        return _clamped(nanousd * 2 * self.half // self.dearest_output)

    def _rates_at(self, input_tokens: int) -> Rates:
        for above, _, rates in self.tiers:
            if input_tokens > above:
                return rates
        return self.rates

    def _dearest(self, input_tokens: int, output_tokens: int) -> int:
        return max(
            min(input_tokens, most) * _dearest_input(rates) + output_tokens * rates.output
            for above, most, rates in self.tiers
            if input_tokens > above
        )


def _clamped(amount: int) -> int:
    return min(max(amount, 0), CEILING)


def _dearest_input(rates: Rates) -> int:
    return max(rates.input, rates.cache_read, rates.cache_write)


def make_price(settings: PriceSettings, source: str, context_window: int | None = None) -> Price:
    """The price of these settings; its version tells the source and changes with any amount."""
    text = _canonical(settings)
    version = f"{source}:{hashlib.sha256(text.encode()).hexdigest()[:VERSION_DIGITS]}"
    rows = {tier.above: _exact(tier) for tier in sorted(settings.tiers, key=lambda t: t.above)}
    base = _exact(settings)
    half = lcm(*(rate.denominator for row in (base, *rows.values()) for rate in row))
    rates = _scaled(base, half)
    tiers = _tiers(rates, {above: _scaled(row, half) for above, row in rows.items()})
    return Price(
        version=version,
        text=text,
        context_window=context_window,
        rates=rates,
        dearest_input=_dearest_input(rates),
        dearest_output=max(rates.output, *(tier.rates.output for tier in tiers), 0),
        half=half,
        tiers=tiers,
    )


def _exact(row: PriceSettings | TierSettings) -> list[Fraction]:
    """Nano-USD of a token, in the order of `Rates`."""
    amounts = (row.input, row.output, row.cache_read, row.cache_write)
    return [Fraction(row.input if each is None else each) * _NANO_PER_TOKEN for each in amounts]


def _scaled(row: list[Fraction], half: int) -> Rates:
    return Rates(*(int(rate * 2 * half) for rate in row))


def _tiers(base: Rates, rows: dict[int, Rates]) -> tuple[Tier, ...]:
    """Highest first, down to the base, which counts from no input token at all."""
    if not rows:
        return ()
    bounds = [-1, *rows, CEILING]
    tiers = map(Tier, bounds, bounds[1:], (base, *rows.values()))
    return tuple(tiers)[::-1]


def _canonical(settings: PriceSettings) -> str:
    """The same text for the same prices, however they are written in the TOML."""
    document: dict[str, object] = _amounts(settings)
    if settings.tiers:
        tiers = sorted(settings.tiers, key=lambda tier: tier.above)
        document["tiers"] = [{"above": tier.above, **_amounts(tier)} for tier in tiers]
    return json.dumps(document, separators=(",", ":"))


def _amounts(row: PriceSettings | TierSettings) -> dict[str, object]:
    amounts = ((name, getattr(row, name)) for name in _FIELDS)
    return {name: _plain(amount) for name, amount in amounts if amount is not None}


def _plain(amount: Decimal) -> str:
    """All digits and no trailing zeros: `Decimal.normalize` would round to the context."""
    text = format(amount.copy_abs(), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


UNKNOWN = make_price(PriceSettings(input=Decimal(0), output=Decimal(0)), "unknown")
"""Stands for a price that nobody knows; costs nothing."""


def make_markup(rate: Decimal) -> Callable[[int], int]:
    """Adds `rate` of an amount to it, 0.20 a fifth: exact, half up, at most `CEILING`."""
    whole = 1 + Fraction(rate)
    factor, half = 2 * whole.numerator, whole.denominator
    double = 2 * half

    def mark_up(amount: int) -> int:
        marked = (amount * factor + half) // double
        return min(marked, CEILING)

    return mark_up if rate else _unmarked


def _unmarked(amount: int) -> int:
    return amount


def find_bundled(model: str, kind: str, base_url: str) -> tuple[PriceSettings, int | None] | None:
    """Price and context window of an upstream model in the bundled data of genai-prices.

    The provider is the one at `base_url`, else the one that provider plugins of this kind speak to.
    Today's price of a call of its own, at the dearest time of the day: discounts such as that for
    batches do not count. None for a model without a price of its input tokens.
    """
    found = _find_model(model, kind, base_url)
    if found is None:
        return None
    settings = _settings_of(_standard(found, datetime.now(UTC)))
    return None if settings is None else (settings, found.context_window)


def _find_model(model: str, kind: str, base_url: str) -> "ModelInfo | None":
    # Megabytes of data, for those who need it; its updater, which downloads, is never started.
    from genai_prices.data import providers

    there = [each for each in providers if base_url and re.match(each.api_pattern, base_url)]
    if not there:
        there = [each for each in providers if each.id == _BUNDLED_KINDS.get(kind)]
    models = (each.find_model(model, all_providers=providers) for each in there)
    return next((found for found in models if found is not None), None)


def _standard(model: "ModelInfo", now: datetime) -> "ModelPrice":
    """The dearest of today's prices: a process keeps it past the hours of a discount."""
    from genai_prices.types import ModelPrice, TimeOfDateConstraint

    if isinstance(model.prices, ModelPrice):
        return model.prices
    hourly = []
    for row in reversed(model.prices):
        if isinstance(row.constraint, TimeOfDateConstraint):
            hourly.append(row.prices)
        elif row.constraint is None or row.constraint.active(now):
            return max(row.prices, *hourly, key=_input_price) if hourly else row.prices
    return model.prices[0].prices


def _input_price(price: "ModelPrice") -> Decimal:
    return Decimal(0) if price.input_mtok is None else _above(price.input_mtok, 0)


def _settings_of(price: "ModelPrice") -> PriceSettings | None:
    """Their tiers are of one field each, ours of all fields together."""
    fields = {name: getattr(price, f"{name}_mtok") for name in _FIELDS}
    if fields["input"] is None:
        return None
    starts = {tier.start for field in fields.values() for tier in getattr(field, "tiers", ())}
    tiers = [
        TierSettings(above=start, **_row(fields, start)) for start in sorted(starts) if start > 0
    ]
    return PriceSettings(**_row(fields, 0), tiers=tuple(tiers))


def _row(fields: dict[str, Any], start: int) -> dict[str, Decimal]:
    """What each field costs above `start`; embeddings have no output, which then is free."""
    row = {name: _above(field, start) for name, field in fields.items() if field is not None}
    return {"output": Decimal(0), **row}


def _above(field: Any, start: int) -> Decimal:  # noqa: ANN401 -- a Decimal, or tiers of them
    if isinstance(field, Decimal):
        return field
    amounts = [field.base, *(tier.price for tier in field.tiers if tier.start <= start)]
    return Decimal(amounts[-1])
