"""What was written is brought to the disk soon, beside the thread that writes."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tollkeeper.storage import Database, make_database
from tollkeeper_metering import syncing as module
from tollkeeper_metering.settings import MeteringSettings
from tollkeeper_metering.syncing import Syncer

PATIENT = 5.0
FAST = MeteringSettings(sync_interval=0.002)


class Writing:
    """A writer, as its syncer sees it."""

    def __init__(self) -> None:
        self.commits = 0
        self.settings = FAST


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = make_database("sqlite:///my.db", tmp_path)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were synced."""
    files: list[str] = []

    def note(descriptor: int) -> None:
        files.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fdatasync", note, raising=False)
    return files


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_log_is_synced_after_a_commit_and_not_without_one(
    database: Database, synced: list[str]
) -> None:
    writing = Writing()
    syncer = Syncer(database, writing)
    with database.session() as session:
        session.database.execute_sql("CREATE TABLE t (x)")
        syncer.start()
        writing.commits = 1
        until(lambda: synced == ["my.db-wal"])
        writing.commits = 2
        until(lambda: len(synced) == 2)
        syncer.stop()
    assert synced == ["my.db-wal"] * 3


def test_it_syncs_once_more_when_it_stops(database: Database, synced: list[str]) -> None:
    writing = Writing()
    writing.settings = MeteringSettings(sync_interval=3600)
    syncer = Syncer(database, writing)
    with database.session() as session:
        session.database.execute_sql("CREATE TABLE t (x)")
        syncer.start()
        writing.commits = 1
        syncer.stop()
    assert synced == ["my.db-wal"]


def test_the_log_is_copied_into_the_database_after_many_commits(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_COMMITS", 3)
    assert database.path is not None
    writing = Writing()
    syncer = Syncer(database, writing)
    with database.session(wal_autocheckpoint=0) as session:
        session.database.execute_sql("CREATE TABLE t (x)")
        before = database.path.stat().st_size
        session.database.execute_sql("INSERT INTO t VALUES (zeroblob(1000000))")
        syncer.start()
        writing.commits = 2
        threading.Event().wait(0.02)
        assert database.path.stat().st_size == before
        writing.commits = 3
        until(lambda: database.path is not None and database.path.stat().st_size > 1_000_000)
        syncer.stop()


def test_it_outlives_a_disk_that_cannot_be_synced(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def fail(descriptor: int) -> None:
        tries.append(descriptor)
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "fdatasync", fail, raising=False)
    writing = Writing()
    syncer = Syncer(database, writing)
    with database.session() as session:
        session.database.execute_sql("CREATE TABLE t (x)")
        syncer.start()
        for commits in (1, 2):
            writing.commits = commits
            until(lambda wanted=commits: len(tries) >= wanted)  # type: ignore[misc]
        syncer.stop()
    assert "could not be synced" in caplog.text


def test_what_could_not_be_synced_is_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def fail_once(descriptor: int) -> None:
        tries.append(descriptor)
        if len(tries) == 1:
            raise OSError("not now")

    monkeypatch.setattr(os, "fdatasync", fail_once, raising=False)
    writing = Writing()
    syncer = Syncer(database, writing)
    with database.session() as session:
        session.database.execute_sql("CREATE TABLE t (x)")
        syncer.start()
        writing.commits = 1
        until(lambda: len(tries) >= 2)
        syncer.stop()


def test_a_log_that_is_not_there_yet_is_no_failure(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    syncer = Syncer(database, Writing())
    syncer._sync()
    assert not caplog.text
