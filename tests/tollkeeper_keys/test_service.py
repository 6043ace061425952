"""Virtual keys in the table and in memory: no secret kept, and guessing bounded."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tollkeeper import NewKey, Principal
from tollkeeper.storage import Database, make_database
from tollkeeper.testing import JumpClock
from tollkeeper_keys.service import (
    LOOKUPS_PER_SECOND,
    UNKNOWN_KEPT,
    KeyRing,
    create_key,
    find_principal,
    hash_of,
    list_keys,
    load_principals,
    revoke_key,
)

ANN = Principal("default", key="key_ann", name="ann")


@pytest.fixture
def connection() -> Iterator[Any]:
    """A database in memory with the table of keys, inside a transaction."""
    database: Database = make_database("sqlite:///:memory:", Path("/"))
    database.open()
    database.migrate_package("keys", "tollkeeper_keys")
    with database.transaction() as connection:
        yield connection
    database.close()


def make(connection: Any, name: str = "ci", org: str = "default", rpm: int | None = None) -> NewKey:
    return create_key(connection, name, org, rpm)


def test_a_key_is_a_secret_that_is_recognised_by_its_beginning(connection: Any) -> None:
    key = make(connection, rpm=7)
    assert key.key.startswith("tk-")
    assert len(key.key) > 40
    assert key.prefix == key.key[: len(key.prefix)]
    assert len(key.prefix) <= len("tk-") + 8
    assert (key.name, key.org, key.rpm) == ("ci", "default", 7)


def test_no_two_keys_have_anything_in_common(connection: Any) -> None:
    keys = [make(connection) for _ in range(50)]
    assert len({key.key for key in keys}) == len({key.id for key in keys}) == 50


def test_of_the_secret_only_its_hash_is_stored(connection: Any) -> None:
    key = make(connection)
    (row,) = connection.execute_sql("SELECT * FROM keys_key").fetchall()
    assert hashlib.sha256(key.key.encode()).hexdigest() in row
    assert not any(key.key in str(value) for value in row)
    assert key.key not in str(list_keys(connection))
    assert hash_of(key.key) not in str(list_keys(connection))


def test_a_secret_of_any_characters_has_a_hash() -> None:
    assert hash_of("tk-\udcff") != hash_of("tk-a")


def test_a_key_made_is_found_with_its_owner(connection: Any) -> None:
    key = make(connection, rpm=7)
    owner = Principal(org="default", key=key.id, name="ci", rpm=7)
    assert find_principal(connection, hash_of(key.key)) == owner
    assert load_principals(connection) == {hash_of(key.key): owner}
    assert find_principal(connection, hash_of("tk-other")) is None


def test_a_key_belongs_to_the_organization_found_by_name_or_made_under_it(connection: Any) -> None:
    connection.execute_sql("INSERT INTO org VALUES ('org_1', 'Acme', 1)")
    assert make(connection, org="Acme").org == make(connection, org="org_1").org == "org_1"
    assert make(connection, org="new").org == "new"
    ids = {row[0] for row in connection.execute_sql("SELECT id FROM org").fetchall()}
    assert ids == {"default", "org_1", "new"}


def test_a_revoked_key_is_found_no_more_and_others_still_are(connection: Any) -> None:
    gone, kept = make(connection, "gone"), make(connection, "kept")
    assert revoke_key(connection, gone.id)
    assert find_principal(connection, hash_of(gone.key)) is None
    assert load_principals(connection).keys() == {hash_of(kept.key)}


def test_a_key_is_revoked_once_and_only_by_its_id(connection: Any) -> None:
    key = make(connection)
    assert not revoke_key(connection, "key_none")
    assert not revoke_key(connection, key.name)
    assert not revoke_key(connection, key.key)
    assert revoke_key(connection, key.id)
    (before,) = list_keys(connection)
    assert not revoke_key(connection, key.id)
    assert list_keys(connection) == [before]


def test_the_list_tells_valid_keys_from_revoked_ones(connection: Any) -> None:
    keys = [make(connection, name, rpm=rpm) for name, rpm in (("a", None), ("b", 5), ("c", None))]
    revoke_key(connection, keys[1].id)
    rows = {row["name"]: row for row in list_keys(connection)}
    assert rows["a"]["revoked_at"] is None
    assert rows["b"]["revoked_at"] >= keys[1].created_at
    assert rows["b"] == {
        "id": keys[1].id,
        "prefix": keys[1].prefix,
        "name": "b",
        "org": "default",
        "rpm": 5,
        "created_at": keys[1].created_at,
        "revoked_at": rows["b"]["revoked_at"],
    }


def test_the_list_is_oldest_first(connection: Any) -> None:
    keys = {name: make(connection, name) for name in "abc"}
    for name, made in (("a", 30), ("b", 10), ("c", 20)):
        connection.execute_sql(
            "UPDATE keys_key SET created_at = ? WHERE id = ?", (made, keys[name].id)
        )
    assert [row["name"] for row in list_keys(connection)] == ["b", "c", "a"]


@pytest.fixture
def clock() -> JumpClock:
    return JumpClock()


@pytest.fixture
def ring(clock: JumpClock) -> KeyRing:
    return KeyRing(clock.monotonic)


def asked(ring: KeyRing, *hashes: str) -> int:
    """How many of these unknown keys are looked up in the database."""
    return sum(ring.may_look_up(hashed) for hashed in hashes)


def test_the_ring_knows_what_it_was_given_last(ring: KeyRing) -> None:
    ring.replace({"ann": ANN})
    assert ring.get("ann") is ANN
    ring.replace({})
    assert ring.get("ann") is None


def test_an_unknown_key_is_looked_up_once_until_the_table_changes(ring: KeyRing) -> None:
    assert ring.may_look_up("x")
    assert asked(ring, *["x"] * 5) == 0
    ring.replace({})
    assert ring.may_look_up("x")


def test_guessing_is_bounded_however_many_guess(ring: KeyRing, clock: JumpClock) -> None:
    allowed = int(LOOKUPS_PER_SECOND)
    assert asked(ring, *[f"a{n}" for n in range(1000)]) == allowed
    clock.jump(0.5)
    assert asked(ring, *[f"b{n}" for n in range(1000)]) == allowed // 2
    clock.jump(3600)
    assert asked(ring, *[f"c{n}" for n in range(1000)]) == allowed


def test_a_key_that_could_not_be_looked_up_may_be_later(ring: KeyRing, clock: JumpClock) -> None:
    asked(ring, *[f"a{n}" for n in range(1000)])
    assert not ring.may_look_up("late")
    clock.jump(1)
    assert ring.may_look_up("late")


def test_a_key_found_in_the_table_is_known_from_then_on(ring: KeyRing) -> None:
    assert ring.may_look_up("ann")
    ring.add("ann", ANN)
    assert ring.get("ann") is ANN


def test_what_is_remembered_of_guesses_is_bounded_and_the_oldest_is_forgotten(
    ring: KeyRing, clock: JumpClock
) -> None:
    for number in range(UNKNOWN_KEPT + 1):
        clock.jump(1)
        assert ring.may_look_up(f"guess{number}")
    clock.jump(1)
    assert not ring.may_look_up(f"guess{UNKNOWN_KEPT}")
    assert not ring.may_look_up("guess1")
    assert ring.may_look_up("guess0")
