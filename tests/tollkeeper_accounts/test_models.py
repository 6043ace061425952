"""The tables as the migrations make them and as the models name them."""

import pytest

from tollkeeper.storage import Database
from tollkeeper_accounts import models

TABLES = [
    models.User,
    models.Member,
    models.Invitation,
    models.Session,
    models.RefreshToken,
    models.Claim,
    models.Audit,
]


@pytest.mark.parametrize("model", TABLES, ids=lambda model: str(model.__name__))
def test_the_migrations_make_what_the_models_name(
    database: Database, model: type[models.User]
) -> None:
    with database.reading() as connection:
        made = {
            column.name: column.null for column in connection.get_columns(model._meta.table_name)
        }
        indexes = connection.get_indexes(model._meta.table_name)
    assert made == {name: field.null for name, field in model._meta.columns.items()}
    unique = {tuple(index.columns) for index in indexes if index.unique}
    for name, field in model._meta.columns.items():
        assert not field.unique or (name,) in unique


def test_a_user_is_in_an_organization_once(database: Database) -> None:
    with database.reading() as connection:
        indexes = connection.get_indexes("accounts_member")
    assert ["org", "user"] in [index.columns for index in indexes if index.unique]
