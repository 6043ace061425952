"""What bodies may be."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tollkeeper.management import ManagedKey
from tollkeeper_accounts import models, schemas

TABLES = [models.User, models.Member, models.Invitation, models.Session, models.Audit]
BODIES = [
    schemas.Register,
    schemas.Login,
    schemas.Refresh,
    schemas.Logout,
    schemas.ChangePassword,
    schemas.Accept,
    schemas.NewOrg,
    schemas.ChangeMember,
    schemas.Invite,
    schemas.NewKey,
    schemas.ChangeKey,
    schemas.RotateKey,
]


def is_taken(model: type[BaseModel], **fields: Any) -> bool:
    try:
        model.model_validate_json(json.dumps(fields))
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("model", BODIES, ids=lambda model: str(model.__name__))
def test_a_column_of_a_table_is_not_writable_unless_a_body_declares_it(
    model: type[BaseModel],
) -> None:
    columns = {name for table in TABLES for name in table._meta.columns}
    for name in {*columns, *ManagedKey.__struct_fields__, "is_admin"} - set(model.model_fields):
        with pytest.raises(ValidationError) as caught:
            model.model_validate_json(json.dumps({name: "x"}))
        assert "extra_forbidden" in {error["type"] for error in caught.value.errors()}


@pytest.mark.parametrize(
    "email",
    ["a@b", "Ann@Example.com", "  ann+x@mail.example.com ", "x" * 252 + "@y"],
)
def test_what_looks_like_an_address_is_one(email: str) -> None:
    assert is_taken(schemas.Login, email=email, password="x")


@pytest.mark.parametrize(
    "email",
    [
        *("", "@", "a@", "@b", "ab", "a@b@c", "a b@c", "a@b c", "a\n@b", "a@b\x00", "a\u202e@b"),
        *("x" * 253 + "@y", 1, None, ["a@b"], "a@\u200bb"),
    ],
)
def test_what_does_not_is_none(email: object) -> None:
    assert not is_taken(schemas.Login, email=email, password="x")


def test_a_new_password_has_10_to_200_characters() -> None:
    for length, taken in ((9, False), (10, True), (200, True), (201, False)):
        assert is_taken(schemas.Register, email="a@b", password="ä" * length) is taken
        assert is_taken(schemas.ChangePassword, current="x", new="ä" * length) is taken


@pytest.mark.parametrize("name", ["a", "Acme Ltd", "x" * 100, "Ünï & Söhne", "東京", "🔑 keys"])
def test_a_name_is_what_people_can_read(name: str) -> None:
    assert is_taken(schemas.NewOrg, name=name)
    assert is_taken(schemas.NewKey, name=name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " a",
        "a ",
        "a\n",
        "\na",
        "a\x00b",
        "a\x7f",
        "a\u202eb",
        "a\u2028b",
        "\ufeffa",
        "x" * 101,
    ],
)
def test_a_name_is_nothing_that_a_terminal_would_act_on(name: str) -> None:
    assert not is_taken(schemas.NewOrg, name=name)
    if len(name) < 100:
        assert not is_taken(schemas.NewKey, name=name)


def test_a_key_is_bound_to_sane_terms() -> None:
    wrong: list[dict[str, Any]] = [
        {"rpm": 0},
        {"rpm": 1_000_001},
        {"rpm": "7"},
        {"rpm": 7.0},
        {"rpm": True},
        {"models": []},
        {"models": [""]},
        {"models": "gpt"},
        {"models": [1]},
        {"expires_at": 0},
        {"expires_at": "tomorrow"},
        {"expires_at": 10**12},
        {"name": None},
    ]
    for fields in wrong:
        assert not is_taken(schemas.NewKey, **{"name": "ci", **fields}), fields
        assert not is_taken(schemas.ChangeKey, **fields), fields
    right: list[dict[str, Any]] = [{"rpm": None, "models": None, "expires_at": None}]
    for good in (*right, {"models": ["a", "b"]}):
        assert is_taken(schemas.NewKey, name="ci", **good)
        assert is_taken(schemas.ChangeKey, **good)


def test_what_a_change_does_not_name_is_not_set() -> None:
    assert schemas.ChangeKey.model_validate_json("{}").model_fields_set == set()
    assert schemas.ChangeKey.model_validate_json('{"rpm":null}').model_fields_set == {"rpm"}


def test_roles_and_graces_and_pages_have_bounds() -> None:
    assert not is_taken(schemas.ChangeMember, role="root")
    assert not is_taken(schemas.Invite, email="a@b", role="Owner")
    for seconds, taken in ((0, True), (604_800, True), (604_801, False), (-1, False), (0.5, False)):
        assert is_taken(schemas.RotateKey, grace_seconds=seconds) is taken
    for limit, taken in ((1, True), (1000, True), (0, False), (1001, False)):
        assert is_taken(schemas.AuditQuery, limit=limit) is taken
