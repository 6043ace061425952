"""`tollkeeper ledger` and `tollkeeper usage` as an operator types them."""

import csv
import io
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tollkeeper import Usage
from tollkeeper.settings import PriceSettings
from tollkeeper.storage import Database, make_database
from tollkeeper_metering import commands
from tollkeeper_metering.entries import Entry, OpenHold
from tollkeeper_metering.prices import make_price
from tollkeeper_metering.rows import Rows

NOW = 1_795_564_800  # 2026-11-25T00:00Z
DAY = 86400
PRICE = make_price(PriceSettings(input=Decimal(1), output=Decimal(2)), "toml")


def make_hold(number: int, at: int, org: str, model: str) -> OpenHold:
    return OpenHold(
        id=number,
        attempt_id=f"att_{number}",
        exchange_id=f"req_{number}",
        number=1,
        org=org,
        key=f"key_{number}",
        model=model,
        deployment="p/m",
        price=PRICE.version,
        amount=2_000_000_000,
        at=at,
        rate=PRICE,
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = make_database("sqlite:///my.db", tmp_path)
    opened.open()
    opened.migrate_package("metering", "tollkeeper_metering")
    with opened.transaction() as connection:
        cursor = connection.connection().cursor()
        rows = Rows()
        rows.begin(cursor, NOW)
        rows.keep()
        holds = [
            make_hold(1, NOW - 2 * DAY, "acme", "gpt"),
            make_hold(2, NOW + 3600, "acme", "claude"),
            make_hold(3, NOW + 7200, "beta", "gpt"),
            make_hold(4, NOW + 7200, "beta", "gpt"),
        ]
        usage = Usage(100, 10, 5, 6, 7)
        ends = [
            Entry(holds[0], "posted", usage, 123_456, 150_000, 0, NOW),
            Entry(holds[1], "posted", usage, 1_000_000_000, 1_200_000_000, 0, NOW),
            Entry(holds[2], "estimated", usage, 10, 10, 1_999_999_990, NOW),
        ]
        rows.write(cursor, holds, ends)
    yield opened
    opened.close()


def ledger(database: Database, *args: str) -> Result:
    return CliRunner().invoke(commands.ledger_command(database), args)


def usage(database: Database, *args: str) -> Result:
    return CliRunner().invoke(commands.usage_command(database), args)


def usage_rows(database: Database, *args: str) -> dict[str, dict[str, Any]]:
    result = usage(database, *args, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["object"] == "list"
    return {row["key"]: row for row in document["data"]}


def break_it(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute_sql("UPDATE metering_entry SET charge_nanousd = 1 WHERE hold = 1")


def test_a_whole_ledger_is_proved_in_one_line(database: Database) -> None:
    result = ledger(database, "verify")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "The ledger is whole.\n", "")
    assert json.loads(ledger(database, "verify", "--json").stdout) == {"ok": True, "problems": []}


@pytest.mark.parametrize("command", ["verify", "audit"])
def test_a_changed_amount_exits_with_one_and_is_named_on_standard_error(
    database: Database, command: str
) -> None:
    break_it(database)
    result = ledger(database, command)
    assert result.exit_code == 1
    assert "entry of hold 1 of attempt 'att_1' was changed" in result.stderr
    assert "whole" not in result.stdout
    document = ledger(database, command, "--json")
    assert document.exit_code == 1
    told = json.loads(document.stdout)
    assert told["ok"] is False
    assert told["problems"] == result.stderr.splitlines()


def test_an_audit_shows_what_each_state_adds_up_to(database: Database) -> None:
    shown = ledger(database, "audit").stdout
    assert [line.split() for line in shown.splitlines()[:3]] == [
        ["state", "evidence", "attempts", "cost", "charge", "exposure"],
        ["estimated", "provider", "1", "0.00000001", "0.00000001", "1.99999999"],
        ["posted", "provider", "2", "1.000123456", "1.20015", "0.00"],
    ]
    assert "Held by 1 open holds: 2.00 USD." in shown
    assert "Exposure: 1.99999999 USD." in shown
    sums = json.loads(ledger(database, "audit", "--json").stdout)
    assert (sums["ok"], sums["open_holds"], sums["held_nanousd"]) == (True, 1, 2_000_000_000)
    assert f"its head is {sums['head']}" in shown


def test_an_export_is_one_object_per_attempt(database: Database) -> None:
    lines = ledger(database, "export", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["attempt_id"] for row in rows] == ["att_1", "att_2", "att_3", "att_4"]
    assert [row["state"] for row in rows] == ["posted", "posted", "estimated", "open"]
    first, last = rows[0], rows[-1]
    assert (first["cost_nanousd"], first["charge_nanousd"]) == (123_456, 150_000)
    assert (first["price"], first["held_at"]) == (PRICE.version, NOW - 2 * DAY)
    assert last["evidence"] is None
    assert (last["input_tokens"], last["charge_nanousd"]) == (0, 0)
    assert last["hold_nanousd"] == 2_000_000_000


def test_an_export_without_json_is_csv_of_the_same(database: Database) -> None:
    table = list(csv.DictReader(io.StringIO(ledger(database, "export").stdout)))
    lines = ledger(database, "export", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    told = [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
    ]
    assert table == told


def test_usage_is_summed_up_by_day_with_exact_dollars(database: Database) -> None:
    rows = usage_rows(database)
    assert list(rows) == ["2026-11-23", "2026-11-25"]
    assert rows["2026-11-23"] == {
        "key": "2026-11-23",
        "requests": 1,
        "attempts": 1,
        "input_tokens": 100,
        "output_tokens": 10,
        "cache_read_tokens": 5,
        "cache_write_tokens": 6,
        "reasoning_tokens": 7,
        "cost": "0.000123456",
        "charge": "0.00015",
        "exposure": "0.00",
    }
    assert rows["2026-11-25"]["charge"] == "1.20000001"


def test_usage_can_be_grouped_and_narrowed(database: Database) -> None:
    assert list(usage_rows(database, "--by", "model")) == ["claude", "gpt"]
    assert list(usage_rows(database, "--by", "key")) == ["key_1", "key_2", "key_3"]
    assert list(usage_rows(database, "--by", "org", "--model", "gpt")) == ["acme", "beta"]
    assert list(usage_rows(database, "--by", "key", "--org", "acme")) == ["key_1", "key_2"]
    assert list(usage_rows(database, "--by", "model", "--key", "key_3")) == ["gpt"]


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (("--since", "2026-11-25"), ["key_2", "key_3"]),
        (("--since", "2026-11-25T02:00"), ["key_3"]),
        (("--until", "2026-11-25T01:00"), ["key_1"]),
        (("--since", "2026-11-25", "--until", "2026-11-25T02:00"), ["key_2"]),
        (("--since", "1d"), ["key_2", "key_3"]),
        (("--since", "8h"), ["key_3"]),
        (("--since", "99999d"), ["key_1", "key_2", "key_3"]),
        (("--since", "1066-10-14"), ["key_1", "key_2", "key_3"]),
    ],
)
def test_times_are_dates_hours_or_so_long_ago(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    keys: list[str],
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW + 10 * 3600 + 59.5)
    assert list(usage_rows(database, "--by", "key", *options)) == keys


@pytest.mark.parametrize("when", ["yesterday", "2026-13-01", "7w", "-1d", "", "2026-11-25T10:00Z"])
def test_a_time_that_is_none_is_answered_with_examples(database: Database, when: str) -> None:
    result = usage(database, "--since", when)
    assert result.exit_code == 2
    assert "2026-11-25T10:00" in result.stderr
    assert "7d" in result.stderr


def test_usage_as_csv_has_the_names_of_the_json(database: Database) -> None:
    table = list(csv.DictReader(io.StringIO(usage(database, "--csv").stdout)))
    rows = usage_rows(database)
    assert [row["key"] for row in table] == list(rows)
    assert table[0] == {name: str(value) for name, value in rows["2026-11-23"].items()}


def test_usage_for_people_is_a_table_with_the_name_of_the_group(database: Database) -> None:
    head, first, second = usage(database, "--by", "org").stdout.splitlines()
    assert head.split()[:3] == ["org", "requests", "attempts"]
    assert first.split()[0] == "acme"
    assert second.split()[-3:] == ["0.00000001", "0.00000001", "1.99999999"]
    assert len(head) == len(first) == len(second)


def test_a_ledger_without_rows_prints_only_the_head_of_the_table(database: Database) -> None:
    assert len(usage(database, "--org", "nobody").stdout.splitlines()) == 1
    assert usage_rows(database, "--org", "nobody") == {}
