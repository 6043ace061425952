"""The model of a key and the table that the migrations make are the same."""

import shutil
from pathlib import Path

from tollkeeper import Principal
from tollkeeper.storage import find_migrations, make_database
from tollkeeper_keys.models import Key
from tollkeeper_keys.service import Holder, find_holder


def test_the_model_has_the_columns_of_the_table() -> None:
    database = make_database("sqlite:///:memory:", Path("/"))
    database.open()
    database.migrate_package("keys", "tollkeeper_keys")
    with database.transaction() as connection:
        columns = {column.name: column for column in connection.get_columns("keys_key")}
        indexes = connection.get_indexes("keys_key")
    database.close()
    fields = Key._meta.fields
    assert {name: column.null for name, column in columns.items()} == {
        name: field.null for name, field in fields.items()
    }
    assert [name for name, column in columns.items() if column.primary_key] == ["id"]
    unique = {index.columns[0] for index in indexes if index.unique}
    assert unique == {"id", *(name for name, field in fields.items() if field.unique)}


def test_keys_made_before_they_had_terms_may_do_all_and_never_expire(tmp_path: Path) -> None:
    folder = find_migrations("tollkeeper_keys")
    assert folder is not None
    shutil.copy(folder / "0001_key.py", tmp_path)
    database = make_database("sqlite:///:memory:", Path("/"))
    database.open()
    database.migrate("keys", tmp_path)
    with database.transaction() as connection:
        row = "('key_1', 'hash', 'tk-1', 'ci', 'default', 7, 1, NULL)"
        connection.execute_sql(f"INSERT INTO keys_key VALUES {row}")
    assert database.migrate_package("keys", "tollkeeper_keys") == ["0002_terms"]
    with database.transaction() as connection:
        found = find_holder(connection, "hash", 2.0)
    database.close()
    assert found == Holder("key_1", Principal("default", "key_1", "ci", 7), None)
