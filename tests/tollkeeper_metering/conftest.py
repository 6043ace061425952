"""Databases with a ledger, in a file and in memory, which is whole in the end."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tollkeeper.storage import Database, make_database
from tollkeeper_metering.audit import verify


@contextlib.contextmanager
def opened(folder: Path, name: str = "my.db") -> Iterator[Database]:
    database = make_database(f"sqlite:///{name}", folder)
    database.open()
    database.migrate_package("metering", "tollkeeper_metering")
    yield database
    with database.reading() as connection:
        problems = verify(connection)
    database.close()
    assert not problems


@pytest.fixture
def in_file(tmp_path: Path) -> Iterator[Database]:
    with opened(tmp_path) as database:
        yield database


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(tmp_path, "my.db" if request.param == "file" else ":memory:") as database:
        yield database


Open = Callable[[Path], contextlib.AbstractContextManager[Database]]


@pytest.fixture
def open_in() -> Open:
    """Opens one in a folder."""
    return opened
