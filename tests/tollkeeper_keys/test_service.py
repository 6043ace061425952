"""Virtual keys in the table and in memory: no secret kept, and guessing bounded."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tollkeeper import NewKey, Principal
from tollkeeper.management import KeyTerms, ManagedKey
from tollkeeper.storage import Database, make_database
from tollkeeper.testing import JumpClock
from tollkeeper_keys.service import (
    LAST_SECOND,
    LOOKUPS_PER_SECOND,
    UNKNOWN_KEPT,
    Holder,
    KeyRing,
    change_key,
    columns_of,
    create_key,
    find_holder,
    hash_of,
    issue_key,
    keys_of,
    list_keys,
    load_holders,
    note_uses,
    revoke_key,
    rotate_key,
    wrong_with,
)

ANN = Principal("default", key="key_ann", name="ann")
FOREVER = Holder("key_ann", ANN, None)
NOW = 1_800_000_000


@pytest.fixture
def connection() -> Iterator[Any]:
    """A database in memory with the table of keys, inside a transaction."""
    database: Database = make_database("sqlite:///:memory:", Path("/"))
    database.open()
    database.migrate_package("keys", "tollkeeper_keys")
    with database.transaction() as connection:
        yield connection
    database.close()


def make(connection: Any, name: str = "ci", org: str = "default", **terms: Any) -> NewKey:
    return issue_key(connection, org, KeyTerms(name=name, **terms), NOW)


def is_valid(connection: Any, secret: str, now: float = NOW) -> bool:
    """Whether the secret opens the gateway, by a look-up and by what is loaded of the table."""
    hashed = hash_of(secret)
    found, loaded = find_holder(connection, hashed, now), load_holders(connection, now)
    assert loaded.get(hashed) == found
    return found is not None


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
    holder = Holder(key.id, owner, None)
    assert find_holder(connection, hash_of(key.key), NOW) == holder
    assert load_holders(connection, NOW) == {hash_of(key.key): holder}
    assert find_holder(connection, hash_of("tk-other"), NOW) is None


def test_a_key_says_which_models_it_may_ask_for(connection: Any) -> None:
    for models in (None, (), ("m", "größer/m:1")):
        key = make(connection, models=models)
        holder = find_holder(connection, hash_of(key.key), NOW)
        assert holder is not None
        assert holder.principal.models == (None if models is None else frozenset(models))
        assert key.models == keys_of(connection, "default", NOW)[-1].models == models


def test_a_key_is_valid_to_the_second_before_it_expires(connection: Any) -> None:
    key = make(connection, expires_at=NOW + 60)
    holder = find_holder(connection, hash_of(key.key), NOW)
    assert holder is not None
    assert holder.until == NOW + 60
    assert is_valid(connection, key.key, NOW + 59.9)
    assert not is_valid(connection, key.key, NOW + 60)


def test_a_key_belongs_to_the_organization_found_by_name_or_made_under_it(connection: Any) -> None:
    connection.execute_sql("INSERT INTO org VALUES ('org_1', 'Acme', 1)")
    assert make(connection, org="Acme").org == make(connection, org="org_1").org == "org_1"
    assert make(connection, org="new").org == "new"
    ids = {row[0] for row in connection.execute_sql("SELECT id FROM org").fetchall()}
    assert ids == {"default", "org_1", "new"}


def test_an_id_is_not_taken_for_the_name_of_another_organization(connection: Any) -> None:
    connection.execute_sql("INSERT INTO org VALUES ('org_1', 'org_2', 1)")
    assert create_key(connection, "org_2", KeyTerms(name="ci"), NOW).org == "org_2"
    assert [key.name for key in keys_of(connection, "org_2", NOW)] == ["ci"]
    assert keys_of(connection, "org_1", NOW) == []


def test_a_revoked_key_is_found_no_more_and_others_still_are(connection: Any) -> None:
    gone, kept = make(connection, "gone"), make(connection, "kept")
    revoked = revoke_key(connection, "default", gone.id, NOW + 5)
    assert revoked is not None
    assert (revoked.id, revoked.revoked_at) == (gone.id, NOW + 5)
    assert find_holder(connection, hash_of(gone.key), NOW) is None
    assert load_holders(connection, NOW).keys() == {hash_of(kept.key)}


def test_a_key_is_revoked_once_and_only_by_its_id(connection: Any) -> None:
    key = make(connection)
    for other in ("key_none", key.name, key.key):
        assert revoke_key(connection, None, other, NOW) is None
    assert revoke_key(connection, None, key.id, NOW)
    before = list_keys(connection)
    assert revoke_key(connection, None, key.id, NOW + 1) is None
    assert list_keys(connection) == before


def test_a_key_of_another_organization_is_as_absent_as_none(connection: Any) -> None:
    key, terms = make(connection, org="acme"), KeyTerms(name="taken")
    before = list_keys(connection)
    for org, key_id in (("default", key.id), ("acme", "key_none"), ("", key.id)):
        assert change_key(connection, org, key_id, columns_of(terms), NOW) is None
        assert rotate_key(connection, org, key_id, 60, NOW) is None
        assert revoke_key(connection, org, key_id, NOW) is None
    assert list_keys(connection) == before
    assert is_valid(connection, key.key)


def test_new_terms_replace_all_of_the_old_ones_and_leave_the_secret(connection: Any) -> None:
    key = make(connection, rpm=7, models=("m",), expires_at=NOW + 60)
    terms = KeyTerms(name="new", models=("a", "b"), expires_at=NOW + 90)
    changed = change_key(connection, "default", key.id, columns_of(terms), NOW)
    assert changed == ManagedKey(
        key.id, key.prefix, "new", None, ("a", "b"), NOW, None, NOW + 90, None
    )
    principal = Principal("default", key.id, "new", None, frozenset({"a", "b"}))
    holder = find_holder(connection, hash_of(key.key), NOW)
    assert holder == Holder(key.id, principal, NOW + 90)


def test_a_key_that_has_ended_is_neither_listed_nor_changed_nor_rotated(connection: Any) -> None:
    expired, revoked = make(connection, expires_at=NOW + 60), make(connection)
    revoke_key(connection, "default", revoked.id, NOW)
    assert [key.id for key in keys_of(connection, "default", NOW)] == [expired.id]
    later = NOW + 60
    assert keys_of(connection, "default", later) == []
    for key in (expired, revoked):
        assert change_key(connection, "default", key.id, {"name": "ci"}, later) is None
        assert rotate_key(connection, "default", key.id, 60, later) is None
    assert revoke_key(connection, "default", expired.id, later)


def rotate(connection: Any, key: NewKey, grace: int, now: int = NOW) -> str:
    """The new secret."""
    rotated = rotate_key(connection, "default", key.id, grace, now)
    assert rotated is not None
    shown, secret = rotated
    assert (shown.id, shown.prefix) == (key.id, secret[: len(key.prefix)])
    return secret


def test_a_rotated_key_has_two_secrets_until_the_grace_is_over(connection: Any) -> None:
    key = make(connection, rpm=7)
    secret = rotate(connection, key, 60)
    assert secret != key.key
    holders = [find_holder(connection, hash_of(each), NOW) for each in (key.key, secret)]
    assert [holder and holder.until for holder in holders] == [NOW + 60, None]
    assert holders[0]
    assert holders[1]
    assert holders[0].principal == holders[1].principal
    assert is_valid(connection, key.key, NOW + 59.9)
    assert not is_valid(connection, key.key, NOW + 60)
    assert is_valid(connection, secret, NOW + 60)
    (row,) = connection.execute_sql("SELECT * FROM keys_key").fetchall()
    assert not any(each in str(row) for each in (key.key, secret))


def test_without_a_grace_the_old_secret_ends_with_the_rotation(connection: Any) -> None:
    key = make(connection)
    secret = rotate(connection, key, 0)
    assert [is_valid(connection, each) for each in (key.key, secret)] == [False, True]


def test_of_two_rotations_only_the_last_leaves_an_old_secret(connection: Any) -> None:
    key = make(connection)
    second = rotate(connection, key, 600)
    third = rotate(connection, key, 60)
    secrets = (key.key, second, third)
    assert [is_valid(connection, secret) for secret in secrets] == [False, True, True]


def test_a_grace_does_not_outlive_the_key(connection: Any) -> None:
    key = make(connection, expires_at=NOW + 30)
    rotate(connection, key, 60)
    holder = find_holder(connection, hash_of(key.key), NOW)
    assert holder is not None
    assert holder.until == NOW + 30
    assert not is_valid(connection, key.key, NOW + 30)


def test_revoking_ends_both_secrets(connection: Any) -> None:
    key = make(connection)
    secret = rotate(connection, key, 60)
    revoke_key(connection, "default", key.id, NOW)
    assert [is_valid(connection, each) for each in (key.key, secret)] == [False, False]


def test_a_use_is_stored_unless_a_later_one_is(connection: Any) -> None:
    one, two = make(connection, "one"), make(connection, "two")
    for minute in (NOW, NOW + 60, NOW - 60):
        note_uses(connection, {one.id: minute, "key_none": minute})
    assert [row.last_used_at for row in keys_of(connection, "default", NOW)] == [NOW + 60, None]
    assert two.id == keys_of(connection, "default", NOW)[1].id


@pytest.mark.parametrize(
    ("terms", "wrong"),
    [
        ({}, None),
        ({"name": "x" * 200, "rpm": 1_000_000, "models": ("m",), "expires_at": NOW + 1}, None),
        ({"models": (), "expires_at": LAST_SECOND}, None),
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x1b[2Jb"}, "name"),
        ({"rpm": 0}, "rpm"),
        ({"rpm": 1_000_001}, "rpm"),
        ({"models": ("m", "")}, "models"),
        ({"models": ("a\nb",)}, "models"),
        ({"expires_at": NOW}, "expires_at"),
        ({"expires_at": LAST_SECOND + 1}, "expires_at"),
    ],
)
def test_terms_that_cannot_be_are_named(terms: dict[str, Any], wrong: str | None) -> None:
    found = wrong_with(KeyTerms(**{"name": "ci", **terms}), NOW)
    assert (found and found[0]) == wrong


def test_the_list_tells_valid_keys_from_revoked_ones(connection: Any) -> None:
    keys = [make(connection, name, rpm=rpm) for name, rpm in (("a", None), ("b", 5), ("c", None))]
    revoke_key(connection, None, keys[1].id, NOW)
    rows = {row["name"]: row for row in list_keys(connection)}
    assert rows["a"]["revoked_at"] is None
    assert rows["b"]["revoked_at"] >= keys[1].created_at
    assert rows["b"] == {
        "id": keys[1].id,
        "prefix": keys[1].prefix,
        "name": "b",
        "org": "default",
        "rpm": 5,
        "models": None,
        "created_at": keys[1].created_at,
        "last_used_at": None,
        "expires_at": None,
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
    return KeyRing(clock)


def asked(ring: KeyRing, *hashes: str) -> int:
    """How many of these unknown keys are looked up in the database."""
    return sum(ring.may_look_up(hashed) for hashed in hashes)


def test_the_ring_knows_what_it_was_given_last(ring: KeyRing) -> None:
    ring.replace({"ann": FOREVER})
    assert ring.use("ann", 0.0) is ANN
    ring.replace({})
    assert ring.use("ann", 0.0) is None


def test_a_key_in_memory_ends_in_time_though_nothing_is_read(
    ring: KeyRing, clock: JumpClock
) -> None:
    ring.replace({"ann": Holder("key_ann", ANN, int(clock.time()) + 60)})
    clock.jump(59.9)
    assert ring.use("ann", 0.0) is ANN
    clock.jump(0.1)
    assert ring.use("ann", 0.0) is None


def test_a_key_that_never_expires_asks_no_clock() -> None:
    class NoClock(JumpClock):
        def time(self) -> float:
            raise AssertionError("was asked")

    ring = KeyRing(NoClock())
    ring.replace({"ann": FOREVER, "bob": Holder("key_bob", ANN, 60)})
    assert ring.use("ann", 0.0) is ANN
    with pytest.raises(AssertionError):
        ring.use("bob", 0.0)


async def test_the_ring_notes_the_minute_of_the_last_use(ring: KeyRing, clock: JumpClock) -> None:
    other = Holder("key_bob", Principal("default", key="key_bob"), int(clock.time()))
    ring.replace({"ann": FOREVER, "bob": other})
    arrived, minute = trio.current_time(), int(clock.time()) // 60 * 60
    ring.use("ann", arrived - 3600)
    ring.use("ann", arrived)
    ring.use("bob", arrived)
    ring.use("nobody", arrived)
    assert ring.last_use("key_ann") == minute
    assert ring.last_use("key_bob") is None
    assert ring.take_uses() == {"key_ann": minute}
    assert ring.last_use("key_ann") == minute
    assert ring.take_uses() == {}


async def test_uses_that_could_not_be_stored_are_taken_again(
    ring: KeyRing, clock: JumpClock
) -> None:
    bob = Holder("key_bob", Principal("default", key="key_bob"), None)
    ring.replace({"ann": FOREVER, "bob": bob})
    arrived, minute = trio.current_time(), int(clock.time()) // 60 * 60
    ring.use("ann", arrived - 60)
    ring.use("bob", arrived - 60)
    ring.take_uses()
    ring.use("ann", arrived)
    ring.take_back_uses()
    assert ring.take_uses() == {"key_ann": minute, "key_bob": minute - 60}


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
    ring.add("ann", FOREVER)
    assert ring.use("ann", 0.0) is ANN


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
