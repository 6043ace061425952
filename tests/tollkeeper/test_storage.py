"""The database: opened by several at once, migrated per plugin, readable by its owner only."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.errors import ConfigError
from tollkeeper.storage import (
    DEFAULT_ORG,
    Database,
    StorageError,
    check_storage_url,
    ensure_org,
    make_database,
)

CREATE = """
def up(migrator, database):
    database.execute_sql("CREATE TABLE {table} (name TEXT)")
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = make_database("sqlite:///my.db", tmp_path)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def memory() -> Iterator[Database]:
    opened = make_database("sqlite:///:memory:", Path("/nowhere"))
    opened.open()
    yield opened
    opened.close()


def migrations(folder: Path, plugin: str, source: str) -> Path:
    """A plugin's `migrations/` with one file, which has the same name in every plugin."""
    directory = folder / plugin / "migrations"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "0001_first.py").write_text(source)
    return directory


def tables(database: Database) -> set[str]:
    with database.transaction() as connection:
        return set(connection.get_tables())


def orgs(connection: Any) -> list[tuple[str, str]]:
    return list(connection.execute_sql("SELECT id, name FROM org ORDER BY id").fetchall())


def test_migrations_of_the_same_file_name_are_applied_for_each_plugin(
    database: Database, tmp_path: Path
) -> None:
    one = migrations(tmp_path, "one", CREATE.format(table="one_things"))
    two = migrations(tmp_path, "two", CREATE.format(table="two_things"))
    assert database.migrate("one", one) == ["0001_first"]
    assert database.migrate("two", two) == ["0001_first"]
    assert tables(database) >= {"one_things", "two_things"}
    assert database.migrate("one", one) == database.migrate("two", two) == []


def test_only_what_is_new_is_applied(database: Database, tmp_path: Path) -> None:
    directory = migrations(tmp_path, "one", CREATE.format(table="first"))
    database.migrate("one", directory)
    (directory / "0002_second.py").write_text(CREATE.format(table="second"))
    assert database.migrate("one", directory) == ["0002_second"]


@pytest.mark.parametrize(
    "ending",
    [
        '    database.execute_sql("NONSENSE")',
        '    raise RuntimeError("no")',
        '    {}["missing"]',
    ],
)
def test_a_migration_that_fails_leaves_nothing_and_can_be_tried_again(
    database: Database, tmp_path: Path, ending: str
) -> None:
    before = tables(database)
    good = CREATE.format(table="half")
    directory = migrations(tmp_path, "one", good + ending)
    with pytest.raises(StorageError, match="migrations of one failed"):
        database.migrate("one", directory)
    assert tables(database) - before <= {"migrations_one"}
    (directory / "0001_first.py").write_text(good)
    assert database.migrate("one", directory) == ["0001_first"]
    assert "half" in tables(database)


def test_of_several_new_migrations_all_are_applied_or_none(
    database: Database, tmp_path: Path
) -> None:
    directory = migrations(tmp_path, "one", CREATE.format(table="first"))
    (directory / "0002_second.py").write_text(CREATE.format(table="first"))
    with pytest.raises(StorageError, match="first"):
        database.migrate("one", directory)
    assert "first" not in tables(database)


@pytest.mark.parametrize("source", ["def up(:", "def upp(migrator, database): ..."])
def test_a_migration_that_is_none_is_a_storage_error(
    database: Database, tmp_path: Path, source: str
) -> None:
    with pytest.raises(StorageError, match="migrations of one failed"):
        database.migrate("one", migrations(tmp_path, "one", source))


def test_a_plugin_without_migrations_or_without_a_package_has_none(database: Database) -> None:
    assert database.migrate_package("limits", "tollkeeper_limits") == []
    assert database.migrate_package("gone", "no_such_package_anywhere") == []
    assert database.migrate_package("keys", "tollkeeper_keys") != []


def test_only_its_owner_may_read_the_file_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        database = make_database("sqlite:///my.db", tmp_path)
        database.open()
        with database.transaction() as connection:
            ensure_org(connection, "acme")
            files = list(tmp_path.glob("my.db*"))
            assert {path.name for path in files} >= {"my.db", "my.db-wal"}
            assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    finally:
        os.umask(umask)


def open_at_once(actions: list[Callable[[], None]]) -> list[StorageError]:
    """Run each in a thread, all begun at the same moment. What they raised."""
    barrier = threading.Barrier(len(actions))
    errors: list[StorageError] = []

    def run(action: Callable[[], None]) -> None:
        barrier.wait()
        try:
            action()
        except StorageError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[action]) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_many_may_open_and_migrate_one_fresh_file_at_once(tmp_path: Path) -> None:
    directory = migrations(tmp_path, "one", CREATE.format(table="things"))
    applied: list[str] = []

    def open_and_migrate() -> None:
        database = make_database("sqlite:///my.db", tmp_path)
        database.open()
        applied.extend(database.migrate("one", directory))

    assert open_at_once([open_and_migrate] * 6) == []
    assert applied == ["0001_first"]


def test_opening_waits_for_another_process_that_is_making_the_file(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "my.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE made_by_other (name TEXT)")
    timer = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    timer.start()
    try:
        database = make_database("sqlite:///my.db", tmp_path)
        database.open()
        assert tables(database) >= {"made_by_other", "org"}
    finally:
        timer.join()
        other.close()


@pytest.mark.parametrize("what", ["no folder", "a folder", "no database"])
def test_a_file_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path, what: str) -> None:
    path = tmp_path / ("none/my.db" if what == "no folder" else "my.db")
    if what == "a folder":
        path.mkdir()
    elif what == "no database":
        path.write_bytes(b"garbage " * 1000)
    with pytest.raises(StorageError) as caught:
        make_database(f"sqlite:///{path}", tmp_path).open()
    assert str(path) in str(caught.value)


def test_opening_twice_changes_nothing(tmp_path: Path) -> None:
    first = make_database("sqlite:///my.db", tmp_path)
    first.open()
    with first.transaction() as connection:
        before = orgs(connection)
    again = make_database("sqlite:///my.db", tmp_path)
    again.open()
    with again.transaction() as connection:
        assert orgs(connection) == before == [(DEFAULT_ORG, DEFAULT_ORG)]


def test_an_organization_is_found_by_id_and_by_name_and_made_where_it_is_neither(
    memory: Database,
) -> None:
    with memory.transaction() as connection:
        connection.execute_sql("INSERT INTO org VALUES ('org_1', 'Acme', 1)")
        assert ensure_org(connection, "org_1") == "org_1"
        assert ensure_org(connection, "Acme") == "org_1"
        assert ensure_org(connection, "new") == "new"
        assert ensure_org(connection, "new") == "new"
        assert orgs(connection) == [("default", "default"), ("new", "new"), ("org_1", "Acme")]


def test_an_id_wins_over_another_organization_that_took_it_for_its_name(memory: Database) -> None:
    with memory.transaction() as connection:
        connection.execute_sql("INSERT INTO org VALUES ('a_rogue', 'org_1', 1)")
        connection.execute_sql("INSERT INTO org VALUES ('org_1', 'Acme', 1)")
        assert ensure_org(connection, "org_1") == "org_1"


def test_what_fails_in_a_transaction_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as connection:
            ensure_org(connection, "half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.transaction() as connection:
        assert orgs(connection) == [("default", "default")]


@pytest.mark.parametrize("kind", ["database", "memory"])
async def test_work_runs_in_threads_and_gives_its_result_back(
    kind: str, request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(kind)
    here = threading.get_ident()

    def make(connection: Any, name: str) -> tuple[str, int]:
        return ensure_org(connection, name), threading.get_ident()

    name, thread = await database.write(make, "acme")
    assert name == "acme"
    assert thread != here
    assert await database.read(orgs) == [("acme", "acme"), ("default", "default")]


@pytest.mark.parametrize("kind", ["database", "memory"])
async def test_a_write_that_fails_leaves_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    database: Database = request.getfixturevalue(kind)

    def fail(connection: Any) -> None:
        ensure_org(connection, "half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.write(fail)
    assert await database.read(orgs) == [("default", "default")]


async def test_a_database_is_usable_until_its_file_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    database = make_database("sqlite:///my.db", folder)
    database.open()
    assert await database.is_usable()
    shutil.rmtree(folder)
    assert not await database.is_usable()


def test_data_in_memory_ends_with_the_database(memory: Database) -> None:
    with memory.transaction() as connection:
        ensure_org(connection, "acme")
    other = make_database("sqlite:///:memory:", Path("/nowhere"))
    other.open()
    with other.transaction() as connection:
        assert orgs(connection) == [("default", "default")]
    other.close()


def test_a_relative_file_is_relative_to_the_configuration_and_an_absolute_one_is_not() -> None:
    assert make_database("sqlite:///a/my.db", Path("/conf")).path == Path("/conf/a/my.db")
    assert make_database("sqlite:////data/my.db", Path("/conf")).path == Path("/data/my.db")
    assert make_database("sqlite:///:memory:", Path("/conf")).path is None


def test_a_storage_that_is_not_built_says_so() -> None:
    assert "PostgreSQL" in (check_storage_url("postgresql://u:p@h/db") or "")
    for url in ("mysql://h/db", "sqlite://my.db", "sqlite:///", "my.db", ""):
        assert "sqlite:///FILE" in (check_storage_url(url) or "")
    assert check_storage_url("sqlite:///my.db") is None


def test_no_message_shows_the_password_of_a_storage() -> None:
    with pytest.raises(ConfigError) as caught:
        make_database("postgresql://me:hunter2@host/db", Path("/"))
    assert "hunter2" not in str(caught.value)
    assert "PostgreSQL" in str(caught.value)
