"""Amounts and moments, as people write them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.amounts import dollars, nanousd, read_moment

NOW = 1_795_000_000


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (10**9, "1.00"),
        (1_500_000_000, "1.50"),
        (-1, "-0.000000001"),
    ],
)
def test_amounts_are_shown_whole(amount: int, text: str) -> None:
    assert dollars(amount) == text


@given(st.integers(-(10**20), 10**20))
def test_what_is_shown_is_what_it_was(amount: int) -> None:
    assert nanousd(Decimal(dollars(amount))) == amount


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-18", 1_794_960_000),
        ("2026-11-18T10:00", 1_794_996_000),
        ("2026-11-18T10:00:01Z", 1_794_996_001),
        ("7d", NOW - 7 * 86_400),
        ("24h", NOW - 86_400),
        ("999999d", 0),
        ("1969-01-01", 0),
        ("2026-13-01", None),
        ("tomorrow", None),
        ("", None),
        ("7D", None),
        ("1795000000", None),
    ],
)
def test_moments(text: str, moment: int | None) -> None:
    assert read_moment(text, NOW) == moment
