"""`tollkeeper keys` as an operator types it."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tollkeeper.storage import Database, make_database
from tollkeeper_keys import commands
from tollkeeper_keys.service import TOPIC, find_holder, hash_of


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = make_database("sqlite:///my.db", tmp_path)
    opened.open()
    opened.migrate_package("keys", "tollkeeper_keys")
    yield opened
    opened.close()


def run(database: Database, *args: str) -> Result:
    return CliRunner().invoke(commands.keys_command(database), args)


def run_json(database: Database, *args: str) -> Any:
    """The one JSON document on standard output."""
    result = run(database, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def is_valid(database: Database, secret: str) -> bool:
    with database.transaction() as connection:
        return find_holder(connection, hash_of(secret), time.time()) is not None


def test_a_key_made_is_one_document_with_all_there_is_to_know(database: Database) -> None:
    key = run_json(database, "create", "--name", "ci", "--org", "acme", "--rpm", "7")
    assert set(key) >= {"id", "key", "prefix", "name", "org", "created_at"}
    assert isinstance(key["id"], str)
    assert isinstance(key["created_at"], int)
    assert key["key"].startswith(key["prefix"])
    assert (key["name"], key["org"], key["rpm"]) == ("ci", "acme", 7)
    assert is_valid(database, key["key"])


def test_for_people_the_secret_stands_alone_so_that_a_shell_can_take_it(
    database: Database,
) -> None:
    result = run(database, "create", "--name", "ci")
    assert result.exit_code == 0
    (secret,) = result.stdout.splitlines()
    assert is_valid(database, secret)
    assert "ci" in result.stderr
    assert "default" in result.stderr
    assert secret not in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["create"],
        ["create", "--name", "ci", "--rpm", "0"],
        ["create", "--name", "ci", "--rpm", "1000001"],
        ["create", "--name", "ci", "--rpm", "many"],
        ["create", "--name", "ci", "--model", ""],
        ["create", "--name", "ci", "--expires", "soon"],
        ["create", "--name", "ci", "--expires", "0d"],
        ["create", "--name", "ci", "--expires", "2020-01-01"],
        ["rotate"],
        ["rotate", "key_1", "--grace", "-1"],
        ["rotate", "key_1", "--grace", "9999999999"],
        ["revoke"],
        ["destroy"],
    ],
)
def test_a_command_that_cannot_be_meant_is_a_usage_error_and_changes_nothing(
    database: Database, args: list[str]
) -> None:
    assert run(database, *args).exit_code == 2
    assert run_json(database, "list")["data"] == []


def test_the_list_shows_every_key_and_no_secret(database: Database) -> None:
    keys = [run_json(database, "create", "--name", name) for name in ("one", "two")]
    run_json(database, "revoke", keys[0]["id"])
    document = run_json(database, "list")
    assert document["object"] == "list"
    rows = {row["name"]: row for row in document["data"]}
    assert rows["one"]["revoked_at"] is not None
    assert rows["two"]["revoked_at"] is None
    shown = run(database, "list").stdout
    lines = {name: line for line in shown.splitlines() for name in ("one", "two") if name in line}
    assert "revoked" in lines["one"]
    assert "valid" in lines["two"]
    for key in keys:
        assert key["id"] in shown
        assert key["prefix"] in shown
        assert key["key"] not in shown + json.dumps(document)


def test_a_key_is_made_for_some_models_and_for_a_time(database: Database) -> None:
    args = ("create", "--name", "ci", "--model", "m", "--model", "n", "--expires", "30d")
    before = int(time.time())
    key = run_json(database, *args)
    assert key["models"] == ["m", "n"]
    assert before <= key["expires_at"] - 30 * 86_400 <= time.time()
    (row,) = run_json(database, "list")["data"]
    assert (row["models"], row["expires_at"]) == (key["models"], key["expires_at"])
    assert row["last_used_at"] is None
    day = time.strftime("%Y-%m-%d", time.gmtime(key["expires_at"]))
    assert f"only m, n  until {day}" in run(database, "list").stdout


def test_a_key_without_terms_has_them_all_the_same_as_null(database: Database) -> None:
    key = run_json(database, "create", "--name", "ci")
    assert (key["models"], key["expires_at"], key["rpm"]) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("1d", 1_000_000 + 86_400),
        ("30d", 1_000_000 + 30 * 86_400),
        ("1970-01-02", 86_400),
        ("1970-01-02T10:00", 86_400 + 36_000),
        ("1970-01-02T10:00:01+02:00", 86_400 + 28_801),
    ],
)
def test_an_expiry_is_a_number_of_days_or_a_moment_in_utc(text: str, second: int) -> None:
    assert commands.second_of(text, 1_000_000.9) == second


@pytest.mark.parametrize("text", ["", "30", "30h", "-1d", "1.5d", "d", "2026-13-01", "tomorrow"])
def test_an_expiry_that_is_neither_is_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        commands.second_of(text, 0.0)


def test_a_key_that_expired_is_listed_as_expired(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = run_json(database, "create", "--name", "ci", "--expires", "1d")
    later = time.time() + 2 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert "  expired  " in run(database, "list").stdout
    assert "no valid key" in run(database, "rotate", key["id"]).stderr
    assert run(database, "revoke", key["id"]).exit_code == 0


def test_a_rotated_key_has_a_new_secret_beside_the_old_one_for_the_grace(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = run_json(database, "create", "--name", "ci", "--rpm", "7")
    rotated = run_json(database, "rotate", key["id"], "--grace", "60")
    assert (rotated["id"], rotated["name"], rotated["rpm"]) == (key["id"], "ci", 7)
    assert rotated["key"].startswith(rotated["prefix"])
    assert is_valid(database, key["key"])
    assert is_valid(database, rotated["key"])
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert not is_valid(database, key["key"])
    assert is_valid(database, rotated["key"])


def test_for_people_a_rotation_prints_the_new_secret_alone(database: Database) -> None:
    key = run_json(database, "create", "--name", "ci")
    result = run(database, "rotate", key["id"])
    assert result.exit_code == 0
    (secret,) = result.stdout.splitlines()
    assert is_valid(database, secret)
    assert not is_valid(database, key["key"])
    assert key["id"] in result.stderr
    assert secret not in result.stderr


def test_a_key_that_is_not_there_or_was_revoked_cannot_be_rotated(database: Database) -> None:
    key = run_json(database, "create", "--name", "ci")
    run_json(database, "revoke", key["id"])
    for key_id in (key["id"], "key_none"):
        result = run(database, "rotate", key_id, "--json")
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"no valid key {key_id}" in result.stderr


def test_a_list_of_no_keys_says_how_to_make_one(database: Database) -> None:
    result = run(database, "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "tollkeeper keys create --name" in result.stderr


def test_a_revoked_key_is_valid_no_more(database: Database) -> None:
    key = run_json(database, "create", "--name", "ci")
    assert run_json(database, "revoke", key["id"]) == {"id": key["id"], "revoked": True}
    assert not is_valid(database, key["key"])


def test_a_key_that_is_not_there_or_was_revoked_before_cannot_be_revoked(
    database: Database,
) -> None:
    key = run_json(database, "create", "--name", "ci")
    run_json(database, "revoke", key["id"])
    for key_id in (key["id"], "key_none"):
        result = run(database, "revoke", key_id, "--json")
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"no valid key {key_id}" in result.stderr


@pytest.mark.parametrize("command", ["create", "rotate", "revoke"])
def test_a_gateway_that_does_not_confirm_is_a_warning_and_the_change_is_stored_all_the_same(
    database: Database, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = run_json(database, "create", "--name", "first")
    told: list[str] = []

    def tell_others(topic: str) -> list[str]:
        told.append(topic)
        return ["/run/my.db.7.sock"]

    monkeypatch.setattr(database.announcer, "tell_others", tell_others)
    args = ["create", "--name", "second"] if command == "create" else [command, key["id"]]
    result = run(database, *args, "--json")
    assert told == [TOPIC]
    assert result.exit_code == 1
    assert "/run/my.db.7.sock" in result.stderr
    document = json.loads(result.stdout)
    assert is_valid(database, document.get("key", key["key"])) is (command != "revoke")


def tollkeeper(config: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tollkeeper", *args, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_keys_are_made_by_the_installed_command_before_anything_was_ever_served(
    tmp_path: Path,
) -> None:
    config = tmp_path / "my.toml"
    config.write_text('[storage]\nurl = "sqlite:///data.db"\n[plugins.keys]\n')
    made = tollkeeper(config, "keys", "create", "--name", "ci", "--json")
    assert (made.returncode, made.stderr) == (0, "")
    listed = tollkeeper(config, "keys", "list", "--json")
    assert json.loads(listed.stdout)["data"][0]["id"] == json.loads(made.stdout)["id"]
    assert (tmp_path / "data.db").stat().st_mode & 0o777 == 0o600


def test_without_the_plugin_there_is_no_such_command(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[plugins.keys]\nenabled = false\n")
    refused = tollkeeper(config, "keys", "list")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "[plugins.keys]" in refused.stderr
