"""What must hold after every test of the suite, whatever it is about."""

from typing import Any

import harness
import pytest

import tollkeeper.testing.gateway
from tollkeeper import Database
from tollkeeper.storage import make_database

OPEN = (
    "SELECT h.attempt_id FROM metering_hold h LEFT JOIN metering_entry e ON e.hold = h.id"
    " WHERE e.hold IS NULL"
)
CHARGED = (
    "SELECT coalesce(sum(charge_nanousd), 0) FROM metering_entry"
    " UNION ALL SELECT coalesce(sum(charge_nanousd), 0) FROM metering_rollup WHERE span = 3600"
)
TWICE = "SELECT attempt_id FROM metering_hold GROUP BY attempt_id HAVING count(*) > 1"


def ledger_problems(database: Database) -> list[str]:
    """Which invariants the ledger of a gateway that has stopped does not keep."""
    from tollkeeper_metering.audit import verify

    if database.path is None and database._database.is_closed():
        return []
    with database.reading() as connection:
        if not connection.table_exists("metering_hold"):
            return []
        problems = list(verify(connection))
        found = connection.execute_sql(OPEN).fetchall()
        problems += [f"{attempt} is open although all is quiet" for (attempt,) in found]
        found = connection.execute_sql(TWICE).fetchall()
        problems += [f"{attempt} was held twice" for (attempt,) in found]
        entries, rolled_up = (row[0] for row in connection.execute_sql(CHARGED).fetchall())
        if entries != rolled_up:
            problems.append(f"{entries} nano-USD are charged, and {rolled_up} rolled up")
    return problems


@pytest.fixture(autouse=True)
def the_ledger_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that a test started leaves a ledger that is whole, with nothing held."""

    def make(*args: Any) -> Database:
        database = make_database(*args)
        close = database.close

        def check_and_close() -> None:
            problems = ledger_problems(database)
            close()
            assert not problems

        database.close = check_and_close  # type: ignore[method-assign]
        return database

    monkeypatch.setattr(tollkeeper.testing.gateway, "make_database", make)
    monkeypatch.setattr(harness, "make_database", make)
