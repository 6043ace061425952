"""Purses: stored whole, and empty where there is none."""

from pathlib import Path

from tollkeeper.storage import make_database
from tollkeeper_billing.purchases import add_credit
from tollkeeper_billing.purses import Drawn, read_purse, write_purse


def test_a_purse_is_read_as_it_was_written(tmp_path: Path) -> None:
    database = make_database("sqlite:///my.db", tmp_path)
    database.open()
    database.migrate_package("billing", "tollkeeper_billing")
    with database.transaction() as db:
        assert read_purse(db, "acme") == Drawn()
        add_credit(db, ("acme", "pack", 10), "co_1", "", 0)
        for purse in (
            Drawn(1, 2, 3, 4, 5, 5, "sub_a", 8, 9),
            Drawn(9, 8, 7, 6, 5, 4, "sub_b", 2, 1),
        ):
            write_purse(db, "acme", purse)
            assert read_purse(db, "acme") == purse
    database.close()


def test_of_an_allowance_no_more_is_left_than_there_is(tmp_path: Path) -> None:
    database = make_database("sqlite:///my.db", tmp_path)
    database.open()
    database.migrate_package("billing", "tollkeeper_billing")
    with database.transaction() as db:
        write_purse(db, "acme", Drawn(charged=7, metered=3, exempt=2, included=9, lapsing=8))
        for more, left in ((1, 0), (2, 1), (5, 6), (9, 9)):
            add_credit(db, ("acme", "pack", more), f"co_{more}", "", 0)
            purse = read_purse(db, "acme")
            assert (purse.included, purse.lapsing) == (left, min(left, 8))
    database.close()
