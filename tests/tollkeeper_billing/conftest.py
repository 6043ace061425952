"""A database with this plugin's tables, and owners that log in quickly."""

from collections.abc import Iterator
from pathlib import Path

import argon2
import pytest

from tollkeeper.storage import Database, make_database
from tollkeeper_accounts import passwords


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = make_database("sqlite:///my.db", tmp_path)
    opened.open()
    opened.migrate_package("billing", "tollkeeper_billing")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _owners_log_in_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_HASHER", cheap)
