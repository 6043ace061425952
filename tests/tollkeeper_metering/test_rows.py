"""How the ledger's rows are laid down: linked, summed up, and once only."""

import contextlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tollkeeper import Usage
from tollkeeper.settings import PriceSettings
from tollkeeper.storage import Database, Session, make_database
from tollkeeper_metering.audit import verify
from tollkeeper_metering.entries import Entry, OpenHold
from tollkeeper_metering.prices import make_price
from tollkeeper_metering.rows import DAY, HOUR, Rows, roll_up

NOW = 1_780_000_000
PRICE = make_price(PriceSettings(input=Decimal(1), output=Decimal(2)), "toml")


def make_hold(number: int, at: int = NOW, key: str = "k", attempt: int = 1) -> OpenHold:
    ids = (number, f"att_{number}", f"req_{number}")
    return OpenHold(*ids, attempt, "acme", key, "m", "p/m", PRICE.version, 100, at, PRICE)


def end_of(hold: OpenHold, charge: int = 5) -> Entry:
    return Entry(hold, "posted", Usage(1, 2, 3, 4, 5), charge, charge, 0, NOW)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = make_database("sqlite:///my.db", tmp_path)
    opened.open()
    opened.migrate_package("metering", "tollkeeper_metering")
    yield opened
    opened.close()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as session:
        yield session


def write(
    session: Session,
    rows: Rows,
    holds: list[OpenHold] | None = None,
    ends: list[Entry] | None = None,
) -> None:
    with session.transaction() as cursor:
        rows.write(cursor, holds or [], ends or [])
    rows.keep()


def begin(session: Session, at: int = NOW) -> tuple[Rows, int]:
    rows = Rows()
    with session.transaction() as cursor:
        orphans = rows.begin(cursor, at)
    rows.keep()
    return rows, orphans


def asked(session: Session, sql: str) -> list[tuple[Any, ...]]:
    return list(session.database.execute_sql(sql).fetchall())


def open_from(session: Session) -> int:
    ((found,),) = asked(session, "SELECT open_from FROM metering_chain ORDER BY id DESC LIMIT 1")
    return int(found)


def test_a_new_ledger_begins_with_nothing(session: Session) -> None:
    rows, orphans = begin(session)
    assert (rows.next_hold, orphans) == (1, 0)
    assert asked(session, "SELECT id, seq FROM metering_chain") == [(1, 0)]


def test_what_is_written_can_be_proven(session: Session) -> None:
    rows, _ = begin(session)
    holds = [make_hold(number) for number in range(1, 6)]
    write(session, rows, holds[:3])
    write(session, rows, holds[3:], [end_of(hold) for hold in holds[:3]])
    write(session, rows, [], [end_of(hold) for hold in holds[3:]])
    assert verify(session.database) == []
    assert asked(session, "SELECT price FROM metering_price") == [(PRICE.text,)]


def test_a_hold_and_its_end_may_be_written_at_once(session: Session) -> None:
    rows, _ = begin(session)
    hold = make_hold(1)
    write(session, rows, [hold], [end_of(hold)])
    assert verify(session.database) == []
    assert begin(session)[1] == 0


def test_what_was_rolled_back_leaves_no_trace_in_the_chain(session: Session) -> None:
    rows, _ = begin(session)
    holds = [make_hold(1), make_hold(2)]
    with contextlib.suppress(RuntimeError), session.transaction() as cursor:
        rows.write(cursor, holds, [])
        raise RuntimeError
    assert asked(session, "SELECT count(*) FROM metering_price") == [(0,)]
    write(session, rows, holds)
    write(session, rows, [], [end_of(hold) for hold in holds])
    assert verify(session.database) == []


def test_open_holds_end_as_estimated_once_at_the_next_start(session: Session) -> None:
    rows, _ = begin(session)
    holds = [make_hold(number) for number in range(1, 5)]
    write(session, rows, holds)
    write(session, rows, [], [end_of(holds[0]), end_of(holds[2])])
    again, orphans = begin(session, NOW + 60)
    assert (orphans, again.next_hold) == (2, 5)
    assert begin(session, NOW + 120)[1] == 0
    found = asked(
        session,
        "SELECT hold, state, evidence, cost_nanousd, charge_nanousd, exposure_nanousd, settled_at"
        " FROM metering_entry WHERE state <> 'posted' ORDER BY hold",
    )
    closed = ("estimated", "estimated", 0, 0, 100, NOW + 60)
    assert found == [(2, *closed), (4, *closed)]
    assert verify(session.database) == []


def test_a_start_looks_no_further_back_than_the_oldest_open_hold(session: Session) -> None:
    rows, _ = begin(session)
    holds = [make_hold(number) for number in range(1, 9)]
    write(session, rows, holds)
    assert open_from(session) == 1
    write(session, rows, [], [end_of(hold) for hold in holds[:5]])
    write(session, rows, [], [end_of(holds[7])])
    assert open_from(session) == 6
    assert begin(session)[1] == 2


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1), (3, 2, 1)])
def test_no_order_of_endings_hides_an_open_hold_from_the_next_start(
    session: Session, order: tuple[int, int, int]
) -> None:
    """A crash may come behind any transaction."""
    rows, _ = begin(session)
    holds = {number: make_hold(number) for number in (1, 2, 3)}
    write(session, rows, [holds[1]])
    write(session, rows, [holds[2], holds[3]])
    left = {1, 2, 3}
    for number in order:
        write(session, rows, [], [end_of(holds[number])])
        left.discard(number)
        assert not left or open_from(session) <= min(left)
    write(session, rows, [make_hold(4)])
    assert open_from(session) <= 4
    assert begin(session)[1] == 1


def test_ids_that_were_never_written_leave_a_gap_and_no_doubt(session: Session) -> None:
    rows, _ = begin(session)
    write(session, rows, [make_hold(7)])
    again, orphans = begin(session)
    assert (orphans, again.next_hold) == (1, 8)
    assert verify(session.database) == []


def test_a_second_end_of_the_same_hold_is_refused_by_the_table(session: Session) -> None:
    rows, _ = begin(session)
    hold = make_hold(1)
    write(session, rows, [hold], [end_of(hold)])
    with pytest.raises(Exception, match="UNIQUE"):
        write(session, rows, [], [end_of(hold)])
    assert verify(session.database) == []


def test_an_end_without_its_hold_is_refused_by_the_table(session: Session) -> None:
    rows, _ = begin(session)
    with pytest.raises(Exception, match="FOREIGN KEY"):
        write(session, rows, [], [end_of(make_hold(1))])
    assert verify(session.database) == []


def test_the_day_has_what_its_hours_have() -> None:
    begin_of_day = NOW // DAY * DAY
    holds = [make_hold(n, begin_of_day + n * 1000, f"k{n % 2}") for n in range(1, 90)]
    rows = roll_up([end_of(hold, n) for n, hold in enumerate(holds)])
    hours = [row for row in rows if row[0] == HOUR]
    days = [row for row in rows if row[0] == DAY]
    assert len(days) == 4  # two days, two keys
    for column in range(5, 15):
        assert sum(row[column] for row in hours) == sum(row[column] for row in days)  # type: ignore[misc]
    assert all(row[1] % row[0] == 0 for row in rows)  # type: ignore[operator]


def test_only_the_first_attempt_of_an_exchange_is_a_request() -> None:
    ends = [end_of(make_hold(n, attempt=n)) for n in (1, 2, 3)]
    assert [row[5:7] for row in roll_up(ends)] == [(3, 1), (3, 1)]


def test_rows_of_the_same_hour_add_up_over_transactions(session: Session) -> None:
    rows, _ = begin(session)
    for number in range(1, 6):
        hold = make_hold(number)
        write(session, rows, [hold], [end_of(hold, number)])
    found = asked(session, "SELECT span, attempts, charge_nanousd FROM metering_rollup ORDER BY 1")
    assert found == [(HOUR, 5, 15), (DAY, 5, 15)]
