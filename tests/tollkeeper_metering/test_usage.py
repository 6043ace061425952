"""Sums over roll-ups: the same as over the rows, to the nano-USD."""

import random
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper import Usage
from tollkeeper.ledger import UsageQuery, UsageSum
from tollkeeper.settings import PriceSettings
from tollkeeper.storage import Database, make_database
from tollkeeper_metering.entries import Entry, OpenHold
from tollkeeper_metering.prices import make_price
from tollkeeper_metering.rows import Rows
from tollkeeper_metering.usage import (
    ATTEMPT_FIELDS,
    DAY,
    HOUR,
    attempts,
    spent_since,
    sum_raw,
    sum_usage,
)

START = 1_780_000_000 // DAY * DAY
DAYS = 4
PRICE = make_price(PriceSettings(input=Decimal(1), output=Decimal(2)), "toml")


def make_entry(number: int, draw: random.Random) -> Entry:
    """An attempt somewhere in the days of the test, most of them near a full hour."""
    at = START + draw.randrange(DAYS * 24) * HOUR + draw.choice([0, 1, HOUR - 1, 1800])
    hold = OpenHold(
        id=number,
        attempt_id=f"att_{number}",
        exchange_id=f"req_{number}",
        number=draw.choice([1, 1, 2]),
        org=draw.choice(["acme", "beta"]),
        key=draw.choice(["", "key_1", "key_2"]),
        model=draw.choice(["gpt", "claude"]),
        deployment="p/m",
        price=PRICE.version,
        amount=10**6,
        at=at,
        rate=PRICE,
    )
    tokens, cached, written, reasoning, output = (draw.randrange(1000) for _ in range(5))
    cost, charge, exposure = (draw.randrange(10**6) for _ in range(3))
    usage = Usage(tokens, output, cached, written, reasoning)
    return Entry(hold, "posted", usage, cost, charge, exposure, at + 9)


ENTRIES = [make_entry(number, random.Random(number)) for number in range(1, 2001)]


def write(database: Any, holds: list[OpenHold], entries: list[Entry]) -> None:
    cursor = database.connection().cursor()
    rows = Rows()
    rows.begin(cursor, START)
    rows.write(cursor, holds, entries)


def opened() -> Database:
    database = make_database("sqlite:///:memory:", Path())
    database.open()
    database.migrate_package("metering", "tollkeeper_metering")
    return database


@pytest.fixture
def empty() -> Iterator[Any]:
    database = opened()
    with database.transaction() as connection:
        yield connection
    database.close()


@pytest.fixture(scope="module")
def ledger() -> Iterator[Any]:
    database = opened()
    with database.transaction() as connection:
        write(connection, [entry.hold for entry in ENTRIES], ENTRIES)
        yield connection
    database.close()


moments = st.integers(START - DAY, START + (DAYS + 1) * DAY) | st.builds(
    lambda hour: START + hour * HOUR, st.integers(-1, DAYS * 24 + 1)
)
queries = st.builds(
    UsageQuery,
    by=st.sampled_from(["day", "model", "key", "org"]),
    since=st.just(0) | moments,
    until=st.none() | moments,
    org=st.sampled_from([None, "acme", "nobody"]),
    key=st.sampled_from([None, "", "key_1"]),
    model=st.sampled_from([None, "gpt"]),
)


@given(query=queries)
def test_roll_ups_tell_the_same_as_the_rows(ledger: Any, query: UsageQuery) -> None:
    assert sum_usage(ledger, query) == sum_raw(ledger, query)


def expected(by: str, entries: list[Entry]) -> list[UsageSum]:
    sums: dict[str, list[int]] = {}
    for entry in entries:
        name = getattr(entry.hold, by)
        usage = entry.usage
        added = [
            int(entry.hold.number == 1),
            1,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            entry.cost,
            entry.charge,
            entry.exposure,
        ]
        known = sums.get(name, [0] * len(added))
        sums[name] = [a + b for a, b in zip(known, added, strict=True)]
    return [UsageSum(name, *sums[name]) for name in sorted(sums)]


@pytest.mark.parametrize("by", ["model", "key", "org"])
def test_sums_are_those_of_the_entries(ledger: Any, by: Literal["model", "key", "org"]) -> None:
    assert sum_usage(ledger, UsageQuery(by=by)) == expected(by, ENTRIES)


def test_days_are_named_by_their_date_in_utc(ledger: Any) -> None:
    rows = sum_usage(ledger, UsageQuery())
    assert [row.key for row in rows] == ["2026-05-28", "2026-05-29", "2026-05-30", "2026-05-31"]
    assert sum(row.attempts for row in rows) == len(ENTRIES)


def test_a_time_is_rounded_down_to_its_hour_at_both_ends(ledger: Any) -> None:
    since, until = START + 30 * HOUR, START + 55 * HOUR
    ragged = UsageQuery(by="model", since=since + 3599, until=until + 3599)
    within = [entry for entry in ENTRIES if since <= entry.hold.at < until]
    assert sum_usage(ledger, ragged) == expected("model", within)


def test_an_attempt_counts_in_the_hour_of_its_hold(empty: Any) -> None:
    entry = make_entry(1, random.Random(1))
    hold = entry.hold
    hold.at = START + DAY - 1
    write(empty, [hold], [Entry(hold, "posted", Usage(1, 1), 1, 1, 0, at=START + 2 * DAY)])
    assert [row.key for row in sum_usage(empty, UsageQuery())] == ["2026-05-28"]


def test_a_ledger_without_rows_has_no_sums(empty: Any) -> None:
    assert sum_usage(empty, UsageQuery()) == sum_raw(empty, UsageQuery()) == []
    assert spent_since(empty, 0) == []


def test_a_name_is_a_value_and_never_part_of_the_query(ledger: Any) -> None:
    assert sum_usage(ledger, UsageQuery(org="' OR 1=1 --")) == []


@given(since=moments | st.just(0))
def test_what_was_spent_since_a_moment_is_exact_to_the_second(ledger: Any, since: int) -> None:
    spent: Counter[tuple[str, str]] = Counter()
    for entry in ENTRIES:
        if entry.hold.at >= since:
            spent[entry.hold.org, entry.hold.key] += entry.charge
    told = spent_since(ledger, since)
    assert {(org, key): charge for org, key, charge in told} == spent
    assert len(told) == len(spent)


def test_an_open_hold_is_not_spent_and_is_exported_as_open(empty: Any) -> None:
    entry = make_entry(1, random.Random(1))
    write(empty, [entry.hold], [])
    assert spent_since(empty, 0) == []
    assert sum_usage(empty, UsageQuery()) == []
    (row,) = attempts(empty)
    told = dict(zip(ATTEMPT_FIELDS, row, strict=True))
    assert (told["state"], told["evidence"], told["settled_at"]) == ("open", None, None)
    assert (told["hold_nanousd"], told["charge_nanousd"], told["input_tokens"]) == (10**6, 0, 0)


def test_attempts_are_told_with_their_hold_and_their_end(empty: Any) -> None:
    entry = make_entry(1, random.Random(1))
    hold, usage = entry.hold, entry.usage
    write(empty, [hold], [entry])
    (row,) = attempts(empty)
    assert dict(zip(ATTEMPT_FIELDS, row, strict=True)) == {
        "attempt_id": "att_1",
        "exchange_id": "req_1",
        "org": hold.org,
        "key": hold.key,
        "model": hold.model,
        "state": entry.state,
        "evidence": "provider",
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_nanousd": entry.cost,
        "charge_nanousd": entry.charge,
        "number": hold.number,
        "deployment": "p/m",
        "hold_nanousd": 10**6,
        "exposure_nanousd": entry.exposure,
        "price": PRICE.version,
        "held_at": hold.at,
        "settled_at": entry.at,
    }
