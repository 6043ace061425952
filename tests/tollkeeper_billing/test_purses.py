"""Purses: stored whole, and empty where there is none."""

from pathlib import Path

from tollkeeper.storage import make_database
from tollkeeper_billing.purses import Drawn, read_purse, write_purse


def test_a_purse_is_read_as_it_was_written(tmp_path: Path) -> None:
    database = make_database("sqlite:///my.db", tmp_path)
    database.open()
    database.migrate_package("billing", "tollkeeper_billing")
    with database.transaction() as db:
        assert read_purse(db, "acme") == Drawn()
        for purse in (
            Drawn(1, 2, 3, 4, 5, 6, "sub_a", "pro", 7, 8, 9),
            Drawn(9, 8, 7, 6, 5, 4, "sub_b", "max", 3, 2, 1),
        ):
            write_purse(db, "acme", purse)
            assert read_purse(db, "acme") == purse
    database.close()
