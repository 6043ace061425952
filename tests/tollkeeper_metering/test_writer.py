"""The ledger's thread: many rows in one transaction, in order, and none lost whatever fails."""

import contextlib
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tollkeeper import Failed, PluginError, Usage
from tollkeeper.settings import PriceSettings
from tollkeeper.storage import Database, Session, make_database
from tollkeeper_metering import ballast as ballast_module
from tollkeeper_metering import writer as module
from tollkeeper_metering.entries import Entry, OpenHold
from tollkeeper_metering.prices import make_price
from tollkeeper_metering.rows import Rows
from tollkeeper_metering.settings import MeteringSettings
from tollkeeper_metering.writer import FULL, Writer

NOW = 1_780_000_000
PRICE = make_price(PriceSettings(input=Decimal(1), output=Decimal(2)), "toml")
PATIENT = 20.0
SMALL = MeteringSettings(ballast=65536)


def make_hold(number: int) -> OpenHold:
    ids = (number, f"att_{number}", f"req_{number}")
    return OpenHold(*ids, 1, "acme", "k", "m", "p/m", PRICE.version, 100, NOW, PRICE)


def end_of(hold: OpenHold, usage: Usage = Usage(1, 2)) -> Entry:  # noqa: B008 -- frozen
    return Entry(hold, "posted", usage, 5, 5, 0, NOW)


class Written:
    """A writer at work, and what it said of holds."""

    def __init__(self, database: Database, settings: MeteringSettings = SMALL) -> None:
        self.database = database
        self.writer = Writer(database)
        self.writer.settings = settings
        self.batches: list[list[OpenHold]] = []
        self.died = threading.Event()
        self.tries = 0
        """Transactions tried so far, whatever became of them."""
        self.pending: list[str] = []
        """SQL for the writer's own connection, before its next try."""
        self._try = self.writer._try
        self.writer._try = self._trying  # type: ignore[method-assign]

    def _trying(self, session: Session, holds: Sequence[OpenHold]) -> bool:
        while self.pending:
            session.database.execute_sql(self.pending.pop())
        self.tries += 1
        return self._try(session, holds)

    def start(self) -> None:
        self.writer.open(NOW)
        self.writer.start(lambda holds: self.batches.append([*holds]), self.died.set)

    @property
    def told(self) -> list[OpenHold]:
        """The holds that need not wait any more."""
        return [hold for batch in self.batches for hold in batch]

    def add(self, *holds: OpenHold) -> None:
        for hold in holds:
            self.writer.add(hold)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask in the writer's own thread and on its own connection, behind all that waits."""
        answers: list[Any] = []
        answered = threading.Event()

        def tell(answer: object) -> None:
            answers.append(answer)
            answered.set()

        def ask(database: Any) -> list[tuple[Any, ...]]:
            return list(database.execute_sql(statement).fetchall())

        self.writer._queue.put((ask, tell))
        assert answered.wait(PATIENT)
        assert not isinstance(answers[0], Exception), answers[0]
        found: list[tuple[Any, ...]] = answers[0]
        return found

    def holds(self) -> list[int]:
        return [row[0] for row in self.sql("SELECT id FROM metering_hold ORDER BY id")]

    def ends(self) -> list[int]:
        return [row[0] for row in self.sql("SELECT hold FROM metering_entry ORDER BY hold")]


@contextlib.contextmanager
def working(database: Database, settings: MeteringSettings = SMALL) -> Iterator[Written]:
    work = Written(database, settings)
    work.start()
    try:
        yield work
    finally:
        stop(work.writer)


@contextlib.contextmanager
def locked(database: Database) -> Iterator[None]:
    """Another process that holds the database for itself."""
    other = sqlite3.connect(str(database.path), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def stop(writer: Writer) -> None:
    writer.stop()
    writer.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ballast_module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "BUSY_MS", 5)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.005)
    monkeypatch.setattr(module, "RECOVER_SECONDS", 0.02)


def test_many_holds_go_into_few_transactions_in_their_order(database: Database) -> None:
    work = Written(database)
    holds = [make_hold(number) for number in range(1, 1001)]
    work.add(*holds)
    work.start()
    assert work.holds() == list(range(1, 1001))
    assert work.told == holds
    assert work.writer.commits <= 3
    work.writer.add([end_of(hold) for hold in holds])
    stop(work.writer)


@pytest.mark.parametrize("surplus", [0, 1, 2, 1500])
def test_no_item_of_a_long_queue_is_lost(
    database: Database, monkeypatch: pytest.MonkeyPatch, surplus: int
) -> None:
    monkeypatch.setattr(module, "MOST_HOLDS", 1000)
    count = 1000 + surplus
    work = Written(database)
    holds = [make_hold(number) for number in range(1, count + 1)]
    work.add(*holds)
    work.start()
    assert work.holds() == list(range(1, count + 1))
    assert len(work.told) == count
    for hold in holds:
        work.writer.add([end_of(hold)])
    stop(work.writer)
    with database.reading() as connection:
        ends = connection.execute_sql("SELECT count(*) FROM metering_entry").fetchone()
    assert ends == (count,)


def test_a_hold_is_told_only_once_others_can_read_it(in_file: Database) -> None:
    other = sqlite3.connect(str(in_file.path))
    found: list[object] = []
    writer = Writer(in_file)
    writer.settings = SMALL
    told = threading.Event()

    def written(holds: Sequence[OpenHold]) -> None:
        found.append(len(holds))
        told.set()

    writer.open(NOW)
    writer.start(written, lambda: None)
    hold = make_hold(1)
    writer.add(hold)
    assert told.wait(PATIENT)
    assert other.execute("SELECT id FROM metering_hold").fetchall() == [(1,)]
    assert (found, hold.written) == ([1], True)
    writer.add([end_of(hold)])
    stop(writer)
    other.close()


def test_a_hold_that_nobody_waits_for_any_more_is_not_written_nor_its_end(
    database: Database,
) -> None:
    work = Written(database)
    left, stays = make_hold(1), make_hold(2)
    left.expired = True
    work.add(left, stays)
    work.start()
    work.writer.add([end_of(left), end_of(stays)])
    assert (work.holds(), work.ends()) == ([2], [2])
    stop(work.writer)


def test_a_hold_that_is_left_once_it_is_written_ends_like_any_other(database: Database) -> None:
    with working(database) as work:
        hold = make_hold(1)
        work.add(hold)
        assert work.holds() == [1]
        hold.expired = True
        work.writer.add([Entry(hold, "voided")])
        assert work.ends() == [1]


def test_what_is_added_before_the_stop_is_written_before_it(database: Database) -> None:
    with working(database) as work:
        holds = [make_hold(number) for number in range(1, 50)]
        work.add(*holds)
        work.writer.add([end_of(hold) for hold in holds])
    with database.reading() as connection:
        ends = connection.execute_sql("SELECT count(*) FROM metering_entry").fetchone()
    assert ends == (49,)
    assert not work.writer.alive


async def test_a_question_sees_what_was_added_before_it_and_nothing_behind(
    database: Database,
) -> None:
    def count(connection: Any, table: str) -> int:
        return int(connection.execute_sql(f"SELECT count(*) FROM {table}").fetchone()[0])

    with working(database) as work:
        hold, later = make_hold(1), make_hold(2)
        work.add(hold)
        assert await work.writer.ask(count, "metering_hold") == 1
        work.writer.add([end_of(hold)])
        assert await work.writer.ask(count, "metering_entry") == 1
        with pytest.raises(Exception, match="no such table"):
            await work.writer.ask(count, "nowhere")
        work.add(later)
        work.writer.add([end_of(later)])


# What goes wrong.


def test_a_locked_database_is_waited_for_and_nothing_is_lost(in_file: Database) -> None:
    with working(in_file) as work:
        first, late, given_up = make_hold(1), make_hold(2), make_hold(3)
        work.add(first)
        assert work.holds() == [1]
        with locked(in_file):
            work.writer.add([end_of(first)])
            work.add(late, given_up)
            until(work.writer._queue.empty)
            given_up.expired = True
            tries = work.tries
            until(lambda: work.tries > tries + 1)  # what was being tried meanwhile counted it in
            assert work.told == [first]
            assert not work.writer.trouble
        work.writer.add([end_of(given_up)])
        assert (work.holds(), work.ends()) == ([1, 2], [1])
        assert (late.written, given_up.written) == (True, False)
        assert late.failure is None
        work.writer.add([end_of(late)])


def test_the_log_is_not_flooded_while_the_database_is_locked(
    in_file: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with working(in_file) as work:
        with locked(in_file):
            work.add(hold := make_hold(1))
            until(work.writer._queue.empty)
            time.sleep(0.3)  # some 30 tries
        work.writer.add([end_of(hold)])
        assert work.ends() == [1]
    assert 1 <= caplog.text.count("cannot be written") <= 5


def test_on_a_full_disk_holds_are_refused_and_ends_wait_for_room(database: Database) -> None:
    with working(database) as work:
        running = [make_hold(number) for number in range(1, 400)]
        work.add(*running)
        assert len(work.holds()) == 399
        ((pages,),) = work.sql("PRAGMA page_count")
        work.sql(f"PRAGMA max_page_count = {pages}")
        number = 1000
        while not work.writer.trouble:  # some rows still fit into the pages that are there
            work.add(make_hold(number := number + 1))
            until(lambda: len(work.told) >= 399 + number - 1000)
        refused = work.told[-1]
        assert work.writer.trouble == FULL
        assert isinstance(refused.failure, Failed)
        assert (refused.failure.status, refused.failure.headers) == (503, {"retry-after": "5"})
        assert not refused.written
        fitted = [hold for hold in work.told[399:] if hold.failure is None]
        work.writer.add([end_of(hold) for hold in [*running, *fitted, refused]])
        tries = work.tries
        until(lambda: work.tries > tries + 2)
        assert work.writer.trouble
        work.pending.append("PRAGMA max_page_count = 100000")
        until(lambda: not work.writer.trouble)
        work.add(again := make_hold(9999))
        work.writer.add([end_of(again)])
        assert work.ends() == [hold.id for hold in [*running, *fitted, again]]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_running_calls_settle_in_the_space_of_the_ballast(small_disk: Path, open_in: Any) -> None:
    with (
        open_in(small_disk) as database,
        working(database, MeteringSettings(ballast=1024**2)) as work,
    ):
        running = [make_hold(number) for number in range(1, 200)]
        work.add(*running)
        assert len(work.holds()) == 199
        hog = small_disk / "hog"
        with hog.open("wb") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), b"x" * 4096)
        number = 1000
        while not work.writer.trouble:
            work.add(make_hold(number := number + 1))
            until(lambda: len(work.told) >= 199 + number - 1000)
        fitted = [hold for hold in work.told[199:] if hold.failure is None]
        work.writer.add([end_of(hold) for hold in [*running, *fitted]])
        assert work.ends() == [hold.id for hold in [*running, *fitted]]
        assert work.writer.trouble == FULL
        hog.unlink()
        until(lambda: not work.writer.trouble)
        work.add(again := make_hold(9999))
        work.writer.add([end_of(again)])
        assert work.ends()[-1] == 9999


def test_a_disk_that_is_full_at_the_start_refuses_until_there_is_room(
    small_disk: Path, open_in: Any
) -> None:
    with (
        open_in(small_disk) as database,
        working(database, MeteringSettings(ballast=16 * 1024**2)) as work,
    ):
        assert work.writer.trouble == FULL
        work.writer.settings = SMALL
        time.sleep(0.1)
        assert work.writer.trouble == FULL  # its size is read at the start
        subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
        until(lambda: not work.writer.trouble)


def test_a_hold_that_its_table_refuses_refuses_its_call(database: Database) -> None:
    with working(database) as work:
        work.add(taken := make_hold(1))
        assert work.holds() == [1]
        work.add(twice := make_hold(1), after := make_hold(2))
        assert work.holds() == [1, 2]
        until(lambda: len(work.told) == 3)
        assert isinstance(twice.failure, Failed)
        assert (twice.written, after.written, after.failure) == (False, True, None)
        work.writer.add([Entry(twice, "expired"), end_of(after)])
        assert work.ends() == [2]
        work.writer.add([end_of(taken)])
        assert work.ends() == [1, 2]
        assert work.sql("SELECT state FROM metering_entry WHERE hold = 1") == [("posted",)]


def test_an_end_that_its_table_refuses_keeps_no_other_from_being_written(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with working(database) as work:
        holds = [make_hold(number) for number in (1, 2, 3)]
        work.add(*holds)
        work.writer.add([end_of(holds[0])])
        assert work.ends() == [1]
        work.writer.add([end_of(hold) for hold in holds])
        assert work.ends() == [1, 2, 3]
    assert caplog.text.count("was refused by its table") == 1


def test_a_second_writer_is_refused_and_takes_nothing_from_the_first(in_file: Database) -> None:
    with working(in_file) as work:
        work.add(hold := make_hold(1))
        assert work.holds() == [1]
        with pytest.raises(PluginError, match="another gateway keeps its ledger in"):
            Writer(in_file).open(NOW)
        assert work.ends() == []  # its open hold is no orphan
        work.writer.add([end_of(hold)])
    with working(in_file) as work:
        assert work.holds() == [1]


def test_a_start_that_failed_can_be_tried_again(
    in_file: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise sqlite3.OperationalError("database is locked")

    writer = Writer(in_file)
    writer.settings = SMALL
    with monkeypatch.context() as patch:
        patch.setattr(Rows, "begin", fail)
        with pytest.raises(sqlite3.OperationalError):
            writer.open(NOW)
    assert writer.open(NOW) == 1
    writer.start(lambda _: None, lambda: None)
    stop(writer)


@pytest.mark.parametrize("trouble", [RuntimeError("bug"), MemoryError()])
def test_a_crash_of_the_thread_is_told(
    in_file: Database, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def crash(*_: object) -> None:
        raise trouble

    with working(in_file) as work:
        monkeypatch.setattr(Rows, "write", crash)
        work.add(make_hold(1))
        assert work.died.wait(PATIENT)
        assert not work.writer.alive


def test_a_sum_that_no_table_can_hold_does_not_kill_the_thread(tmp_path: Path) -> None:
    """Nobody can spend that; an upstream may tell it all the same."""
    huge = 2**62
    database = make_database("sqlite:///:memory:", tmp_path)
    database.open()
    database.migrate_package("metering", "tollkeeper_metering")
    with working(database) as work:
        holds = [make_hold(number) for number in range(1, 5)]
        work.add(*holds)
        for pair in (holds[:2], holds[2:]):
            work.writer.add([Entry(hold, "posted", Usage(1, 1), huge, 5, huge) for hold in pair])
        assert work.ends() == [1, 2, 3, 4]
        assert not work.died.is_set()
    database.close()


def test_a_hold_survives_a_power_cut_only_where_that_was_asked_for(in_file: Database) -> None:
    with working(in_file) as work:
        work.add(first := make_hold(1))
        assert work.holds() == [1]
        assert work.sql("PRAGMA synchronous") == [(1,)]  # normal
        work.writer.settings = MeteringSettings(ballast=65536, sync_holds=True)
        work.add(second := make_hold(2))
        assert work.holds() == [1, 2]
        assert work.sql("PRAGMA synchronous") == [(2,)]  # full
        assert work.sql("PRAGMA wal_autocheckpoint") == [(0,)]
        work.writer.add([end_of(first), end_of(second)])


def test_a_ledger_can_be_stopped_and_started_again_in_one_process(database: Database) -> None:
    work = Written(database)
    work.start()
    work.add(hold := make_hold(1))
    work.writer.add([end_of(hold)])
    stop(work.writer)
    assert work.writer.open(NOW) == 2
    work.writer.start(lambda holds: work.batches.append([*holds]), work.died.set)
    work.add(hold := make_hold(2))
    work.writer.add([end_of(hold)])
    assert work.ends() == [1, 2]
    if database.path is not None:
        assert work.sql("PRAGMA synchronous") == [(1,)]
    stop(work.writer)
