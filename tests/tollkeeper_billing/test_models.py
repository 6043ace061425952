"""The tables as peewee knows them are those that the migrations make."""

from pathlib import Path
from typing import Any

import peewee
import pytest
from playhouse.migrations import Runner

from tollkeeper.storage import Database, find_migrations, make_database
from tollkeeper_billing import models

MODELS: list[Any] = [
    each
    for each in vars(models).values()
    if isinstance(each, type) and issubclass(each, peewee.Model)
]


@pytest.fixture
def database() -> Database:
    opened = make_database("sqlite:///:memory:", Path("/"))
    opened.open()
    opened.migrate_package("billing", "tollkeeper_billing")
    return opened


def tables(database: Database) -> set[str]:
    with database.reading() as db:
        return {name for name in db.get_tables() if name.startswith("billing_")}


def test_the_migrations_make_the_tables_of_the_models_and_no_others(database: Database) -> None:
    assert tables(database) == {model._meta.table_name for model in MODELS}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model.__name__))
def test_a_table_has_the_columns_of_its_model_in_their_order(
    database: Database, model: Any
) -> None:
    meta = model._meta
    with database.reading() as db:
        found = db.execute_sql(f"PRAGMA table_info({meta.table_name})").fetchall()
    assert [name for _, name, *_ in found] == [field.column_name for field in meta.sorted_fields]
    keys = {name for _, name, _, _, _, key in found if key}
    assert keys == {field.column_name for field in meta.get_primary_keys()}
    may_be_null = {name for _, name, _, not_null, _, key in found if not (not_null or key)}
    assert may_be_null == {field.column_name for field in meta.sorted_fields if field.null}


def indexes(database: Database, table: str, *, unique: bool) -> set[tuple[str, ...]]:
    with database.reading() as db:
        return {tuple(each.columns) for each in db.get_indexes(table) if each.unique >= unique}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model.__name__))
def test_what_a_model_calls_unique_or_indexed_is(database: Database, model: Any) -> None:
    meta = model._meta
    unique = indexes(database, meta.table_name, unique=True)
    first = {columns[0] for columns in indexes(database, meta.table_name, unique=False)}
    for field in meta.sorted_fields:
        assert not field.unique or (field.column_name,) in unique
        assert not field.index or field.column_name in first


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("billing_customer", "customer"),
        ("billing_checkout", "session"),
        ("billing_checkout", "payment_intent"),
        ("billing_credit", "source"),
        ("billing_meter_event", "identifier"),
    ],
)
def test_what_must_not_count_twice_is_unique(database: Database, table: str, column: str) -> None:
    assert (column,) in indexes(database, table, unique=True)


def test_the_migrations_can_be_taken_back(database: Database) -> None:
    folder = find_migrations("tollkeeper_billing")
    runner = Runner(database._database, str(folder), table_name="migrations_billing")
    with database.transaction():
        runner.down()
    assert tables(database) == set()
