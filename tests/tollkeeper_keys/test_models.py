"""The model of a key and the table that the migrations make are the same."""

from pathlib import Path

from tollkeeper.storage import make_database
from tollkeeper_keys.models import Key


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
