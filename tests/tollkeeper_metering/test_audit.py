"""The proof of the ledger: it accepts what the gateway wrote, and nothing else."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tollkeeper import Usage
from tollkeeper.settings import PriceSettings
from tollkeeper.storage import Database, make_database
from tollkeeper_metering import audit as module
from tollkeeper_metering.audit import audit, verify
from tollkeeper_metering.entries import Entry, OpenHold
from tollkeeper_metering.prices import make_price
from tollkeeper_metering.rows import Rows

NOW = 1_780_000_000
PRICE = make_price(PriceSettings(input=Decimal(1), output=Decimal(2)), "toml")
COUNTED = Usage(5, 6, 7, 8, 9, evidence="counted")


def make_hold(number: int, at: int = NOW) -> OpenHold:
    return OpenHold(
        id=number,
        attempt_id=f"att_{number}",
        exchange_id=f"req_{number}",
        number=1 + number % 2,
        org="acme",
        key=f"key_{number % 3}",
        model="gpt",
        deployment="p/m",
        price=PRICE.version,
        amount=1000,
        at=at,
        rate=PRICE,
    )


def fill(database: Any) -> None:
    """Two chains: one of two writes, the other with the orphan that the first one left."""
    cursor = database.connection().cursor()
    first = Rows()
    first.begin(cursor, NOW)
    holds = [make_hold(number, NOW + number * 1800) for number in range(1, 9)]
    first.write(cursor, holds[:4], [])
    first.keep()
    ends = [Entry(hold, "posted", Usage(10, 5), 20, 24, 0, NOW) for hold in holds[:3]]
    first.write(cursor, holds[4:], ends)
    first.keep()
    more = [Entry(hold, "estimated", COUNTED, 3, 3, 997, NOW) for hold in holds[3:7]]
    first.write(cursor, [], more)
    second = Rows()
    second.begin(cursor, NOW + DAY_LATER)
    second.keep()
    second.write(cursor, [make_hold(9, NOW + DAY_LATER)], [])


DAY_LATER = 100_000


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    opened = make_database("sqlite:///my.db", folder)
    opened.open()
    opened.migrate_package("metering", "tollkeeper_metering")
    with opened.transaction() as connection:
        fill(connection)
    opened.close()
    return folder / "my.db"


@pytest.fixture
def database(original: Path, tmp_path: Path) -> Iterator[Database]:
    shutil.copy(original, tmp_path / "my.db")
    opened = make_database("sqlite:///my.db", tmp_path)
    yield opened
    opened.close()


def verified(database: Database) -> list[str]:
    with database.reading() as connection:
        return verify(connection)


@pytest.fixture
def tamper(database: Database) -> Callable[..., list[str]]:
    """Change the file as anybody could, and see what the proof says."""

    def change(*statements: str, value: object = None) -> list[str]:
        connection = sqlite3.connect(str(database.path))
        connection.execute("PRAGMA synchronous = off")
        for statement in statements:
            connection.execute(statement, (value,) if "?" in statement else ())
        connection.commit()
        connection.close()
        return verified(database)

    return change


Tamper = Callable[..., list[str]]


def columns_of(table: str) -> list[str]:
    database = make_database("sqlite:///:memory:", Path())
    database.open()
    database.migrate_package("metering", "tollkeeper_metering")
    with database.transaction() as connection:
        found = connection.execute_sql(f"PRAGMA table_info({table})").fetchall()
    database.close()
    return [row[1] for row in found]


def test_what_the_gateway_wrote_is_whole(database: Database) -> None:
    assert verified(database) == []


def test_an_empty_ledger_is_whole(tmp_path: Path) -> None:
    opened = make_database("sqlite:///empty.db", tmp_path)
    opened.open()
    opened.migrate_package("metering", "tollkeeper_metering")
    assert verified(opened) == []
    with opened.reading() as connection:
        assert audit(connection)["head"] == "00" * 32
    opened.close()


@pytest.mark.parametrize("column", columns_of("metering_hold")[1:])
@pytest.mark.parametrize("change", ["{0} || '1'", "{0} + 1", "0.5", "x'00'", "'text'"])
def test_any_change_of_any_column_of_a_hold_shows(tamper: Tamper, column: str, change: str) -> None:
    problems = tamper(f"UPDATE metering_hold SET {column} = {change.format(column)} WHERE id = 5")
    assert problems
    if column not in ("chain", "seq", "attempt_id") and "||" not in change:
        assert any("hold 5 of attempt 'att_5'" in problem for problem in problems)


@pytest.mark.parametrize("column", columns_of("metering_entry")[1:])
@pytest.mark.parametrize("change", ["{0} || '1'", "{0} + 1", "0.5", "x'00'", "'text'"])
def test_any_change_of_any_column_of_an_entry_shows(
    tamper: Tamper, column: str, change: str
) -> None:
    problems = tamper(
        f"UPDATE metering_entry SET {column} = {change.format(column)} WHERE hold = 2"
    )
    assert problems
    if column not in ("chain", "seq") and "||" not in change:
        assert any("hold 2 of attempt 'att_2'" in problem for problem in problems)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE metering_hold SET id = 77 WHERE id = 8",
        "UPDATE metering_entry SET hold = 9 WHERE hold = 2",
    ],
)
def test_a_row_under_another_id_shows(tamper: Tamper, statement: str) -> None:
    assert any("was changed" in problem for problem in tamper(statement))


@pytest.mark.parametrize("column", columns_of("metering_rollup"))
@pytest.mark.parametrize("span", [3600, 86400])
@pytest.mark.parametrize("change", ["{0} + 1", "{0} || '1'", "0.5"])
def test_any_change_of_a_roll_up_shows(tamper: Tamper, column: str, span: int, change: str) -> None:
    update = (
        f"UPDATE metering_rollup SET {column} = {change.format(column)} WHERE span = {span}"
        " AND key = 'key_1' AND start = (SELECT MIN(start) FROM metering_rollup"
        f" WHERE span = {span} AND key = 'key_1')"
    )
    problems = tamper(update)
    assert 1 <= len(problems) <= 2
    assert all(problem.startswith("roll-up of the ") for problem in problems)


@pytest.mark.parametrize("column", ["genesis", "seq", "head"])
@pytest.mark.parametrize("chain", [1, 2])
@pytest.mark.parametrize("value", [b"\0" * 31 + b"\1", "text", 1.5, 1000])
def test_any_change_of_a_chain_shows(
    tamper: Tamper, column: str, chain: int, value: object
) -> None:
    problems = tamper(f"UPDATE metering_chain SET {column} = ? WHERE id = {chain}", value=value)
    assert any(f"chain {chain}" in problem for problem in problems)


def test_a_changed_amount_is_one_problem_of_the_chain_and_its_sums(tamper: Tamper) -> None:
    problems = tamper("UPDATE metering_entry SET charge_nanousd = 23 WHERE hold = 2")
    assert problems == [
        "entry of hold 2 of attempt 'att_2' was changed: its hash is another",
        "roll-up of the hour 2026-05-28T21:00Z, org 'acme', key 'key_2', model 'gpt'"
        " differs from its rows: charge_nanousd is 24 for 23",
        "roll-up of the day 2026-05-28T00:00Z, org 'acme', key 'key_2', model 'gpt'"
        " differs from its rows: charge_nanousd is 27 for 26",
    ]


def test_an_amount_changed_with_its_sums_still_shows(tamper: Tamper) -> None:
    problems = tamper(
        "UPDATE metering_entry SET charge_nanousd = 23 WHERE hold = 2",
        "UPDATE metering_rollup SET charge_nanousd = charge_nanousd - 1 WHERE key = 'key_2'"
        " AND start <= 1780002000",
    )
    assert problems == ["entry of hold 2 of attempt 'att_2' was changed: its hash is another"]


def test_a_row_taken_away_shows_as_a_gap(tamper: Tamper) -> None:
    problems = tamper("DELETE FROM metering_entry WHERE hold = 2")
    assert sum("was due" in problem for problem in problems) == 1


def test_an_entry_without_its_hold_shows(tamper: Tamper) -> None:
    assert "entry of hold 2 has no hold" in tamper("DELETE FROM metering_hold WHERE id = 2")


def test_rows_cut_off_at_the_end_show(tamper: Tamper) -> None:
    problems = tamper("DELETE FROM metering_hold WHERE id = 9")
    assert problems == ["chain 2 has 2 rows by its head, and its last row is 1"]


def test_a_row_put_in_shows(tamper: Tamper) -> None:
    problems = tamper(
        "INSERT INTO metering_hold SELECT 50, chain, seq, 'att_50', exchange_id, number, org, key,"
        " model, deployment, price, amount_nanousd, held_at, hash FROM metering_hold WHERE id = 5"
    )
    assert any("was due" in problem for problem in problems)


def test_rows_of_a_chain_that_does_not_exist_show(tamper: Tamper) -> None:
    problems = tamper("DELETE FROM metering_chain WHERE id = 1")
    assert "hold 1 of attempt 'att_1' is of chain 1, which does not exist" in problems
    assert "chain 2 does not begin where the one before it ended" in problems


def test_a_chain_put_in_between_shows(tamper: Tamper) -> None:
    row = "3, 1, zeroblob(32), 0, zeroblob(32), 1"
    problems = tamper(f"INSERT INTO metering_chain VALUES ({row})")
    assert problems == ["chain 3 does not begin where the one before it ended"]


@pytest.mark.parametrize("change", ["price = price || ' '", "price = x'00'", "version = 'toml:0'"])
def test_a_changed_price_shows(tamper: Tamper, change: str) -> None:
    problems = tamper(f"UPDATE metering_price SET {change} WHERE version = '{PRICE.version}'")
    assert any("was changed: its version is another" in problem for problem in problems)


def test_a_price_taken_away_shows(tamper: Tamper) -> None:
    problems = tamper("DELETE FROM metering_price")
    assert f"price '{PRICE.version}' is missing, and holds were counted by it" in problems


def test_a_roll_up_that_is_missing_and_one_too_many_show(tamper: Tamper) -> None:
    missing = tamper("DELETE FROM metering_rollup WHERE span = 86400 AND key = 'key_0'")
    assert [problem.split(" model ")[1] for problem in missing] == ["'gpt' is missing"] * 1
    extra = tamper(
        "INSERT INTO metering_rollup SELECT span, start, 'other', key, model, attempts, requests,"
        " input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,"
        " cost_nanousd, charge_nanousd, exposure_nanousd FROM metering_rollup"
        " WHERE span = 86400 AND key = 'key_1'"
    )
    assert any("org 'other'" in each and "not in the ledger" in each for each in extra)


def test_a_charge_above_its_hold_shows_unless_the_provider_itself_told_the_usage(
    database: Database,
) -> None:
    with database.transaction() as connection:
        rows = Rows()
        cursor = connection.connection().cursor()
        rows.begin(cursor, NOW)
        rows.keep()
        holds = [make_hold(20), make_hold(21)]
        ends = [
            Entry(holds[0], "posted", Usage(1, 1), 2000, 2000, 0, NOW),
            Entry(holds[1], "estimated", COUNTED, 2000, 2000, 0, NOW),
        ]
        rows.write(cursor, holds, ends)
    (problem,) = verified(database)
    assert problem == (
        "entry of hold 21 of attempt 'att_21' charges 2000 nano-USD, above the 1000 that were held"
    )


def test_numbers_that_overflow_and_text_that_is_none_are_problems_and_no_crash(
    tamper: Tamper,
) -> None:
    most = 2**63 - 1
    assert tamper(f"UPDATE metering_entry SET cost_nanousd = {most}")
    assert tamper("UPDATE metering_hold SET org = CAST(x'ff' AS TEXT) WHERE id = 3")


def test_null_in_a_column_is_a_problem_and_no_crash(tamper: Tamper) -> None:
    problems = tamper(
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_master SET sql = REPLACE(sql, 'NOT NULL', '') WHERE name LIKE 'metering_%'",
    )
    assert problems == []
    problems = tamper("UPDATE metering_entry SET charge_nanousd = NULL WHERE hold = 2")
    assert problems[0] == (
        "entry of hold 2 of attempt 'att_2' holds a value of the wrong type in charge_nanousd"
    )


def test_many_problems_are_counted_after_the_first_hundred(
    tamper: Tamper, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = tamper("UPDATE metering_hold SET model = 'x'", "DELETE FROM metering_rollup")
    assert len(every) > 20
    monkeypatch.setattr(module, "SHOWN", 5)
    assert tamper() == [*every[:5], f"and {len(every) - 5} more problems"]


def test_what_is_written_meanwhile_is_not_seen(database: Database) -> None:
    with database.reading() as connection:
        assert audit(connection)["open_holds"] == 1
        other = sqlite3.connect(str(database.path))
        other.execute("DELETE FROM metering_entry WHERE hold = 2")
        other.commit()
        other.close()
        assert verify(connection) == []
        assert audit(connection)["open_holds"] == 1
    assert verified(database) != []


def test_the_sums_tell_states_holds_and_the_newest_link(database: Database) -> None:
    with database.reading() as connection:
        sums = audit(connection)
        head = connection.execute_sql("SELECT head FROM metering_chain WHERE id = 2").fetchone()[0]
    counted = {"state": "estimated", "evidence": "counted", "attempts": 4}
    orphan = {"state": "estimated", "evidence": "estimated", "attempts": 1}
    posted = {"state": "posted", "evidence": "provider", "attempts": 3}
    assert sums == {
        "entries": [
            counted | {"cost_nanousd": 12, "charge_nanousd": 12, "exposure_nanousd": 3988},
            orphan | {"cost_nanousd": 0, "charge_nanousd": 0, "exposure_nanousd": 1000},
            posted | {"cost_nanousd": 60, "charge_nanousd": 72, "exposure_nanousd": 0},
        ],
        "open_holds": 1,
        "held_nanousd": 1000,
        "exposure_nanousd": 4988,
        "chain": 2,
        "seq": 2,
        "head": head.hex(),
    }
    assert json.loads(json.dumps(sums)) == sums


def test_the_sums_stand_even_where_the_amounts_are_absurd(
    database: Database, tamper: Tamper
) -> None:
    tamper("UPDATE metering_entry SET cost_nanousd = 9223372036854775807 WHERE state = 'posted'")
    with database.reading() as connection:
        assert audit(connection)["entries"][-1]["cost_nanousd"] == 3 * (2**63 - 1)
