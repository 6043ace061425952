"""The tables as peewee knows them are those that the migrations make."""

from pathlib import Path
from typing import Any

import peewee
import pytest

from tollkeeper.storage import make_database
from tollkeeper_metering.models import Chain, Entry, HoldRow, Price, Rollup


@pytest.mark.parametrize("model", [Chain, Entry, HoldRow, Price, Rollup])
def test_a_table_has_the_columns_of_its_model_in_their_order(model: type[peewee.Model]) -> None:
    database = make_database("sqlite:///:memory:", Path("/"))
    database.open()
    database.migrate_package("metering", "tollkeeper_metering")
    meta: Any = model._meta
    with database.reading() as connection:
        found = connection.execute_sql(f"PRAGMA table_info({meta.table_name})").fetchall()
    database.close()
    assert [name for _, name, *_ in found] == [f.column_name for f in meta.sorted_fields]
    keys = {name for _, name, _, _, _, key in found if key}
    assert keys == {f.column_name for f in meta.get_primary_keys()}
    assert all(not_null or key for _, _, _, not_null, _, key in found)
