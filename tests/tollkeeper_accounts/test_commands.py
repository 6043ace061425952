"""`tollkeeper users` as an operator types it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tollkeeper.storage import Database
from tollkeeper_accounts import commands, orgs, service
from tollkeeper_accounts.passwords import verify_password
from tollkeeper_accounts.service import Account, Lifetimes

Run = Callable[..., Any]
PASSWORD = "correct horse"
STDIN = PASSWORD + "\n"


def users(database: Database, *args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(commands.users_command(database), args, input=stdin)


def users_json(database: Database, *args: str, stdin: str | None = None) -> Any:
    """The one JSON document on standard output."""
    result = users(database, *args, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def create(database: Database, email: str, *args: str) -> Any:
    return users_json(database, "create", "--email", email, "--password-stdin", *args, stdin=STDIN)


def test_a_user_that_was_made_has_the_password_and_owns_the_organization(
    database: Database, run: Run
) -> None:
    made = create(database, " Ann@Example.com", "--org", "acme")
    assert set(made) == {"id", "email", "org", "role"}
    assert (made["email"], made["role"]) == ("ann@example.com", "owner")
    account = run(service.find_user, "ann@example.com")
    assert account.id == made["id"]
    assert verify_password(account.password, PASSWORD).is_right
    (org,) = run(orgs.memberships, account.id)
    assert (org.id, org.name, org.role) == (made["org"], "acme", "owner")


def test_another_user_joins_the_same_organization_as_told(database: Database, run: Run) -> None:
    first = create(database, "ann@example.com", "--org", "acme")
    second = create(database, "bob@example.com", "--org", first["org"], "--role", "billing")
    assert (second["org"], second["role"]) == (first["org"], "billing")
    default = create(database, "carol@example.com", "--org", "default")
    assert default["org"] == "default"


def test_without_an_organization_a_user_has_none(database: Database) -> None:
    made = create(database, "ann@example.com")
    assert (made["org"], made["role"]) == (None, None)


def test_the_password_is_asked_for_twice_and_not_shown(database: Database, run: Run) -> None:
    asked = users(database, "create", "--email", "ann@example.com", stdin=STDIN * 2)
    assert asked.exit_code == 0, asked.output
    assert PASSWORD not in asked.output
    assert "ann@example.com" in asked.stdout
    account = run(service.find_user, "ann@example.com")
    assert verify_password(account.password, PASSWORD).is_right
    typo = f"{PASSWORD}\n{PASSWORD}x\n"
    assert users(database, "create", "--email", "bob@example.com", stdin=typo).exit_code == 1


@pytest.mark.parametrize("password", ["", "too short", "x" * 201])
def test_a_password_that_is_too_short_or_long_makes_nobody(
    database: Database, password: str
) -> None:
    result = users(
        database, "create", "--email", "a@b.c", "--password-stdin", stdin=password + "\n"
    )
    assert (result.exit_code, result.stdout) == (1, "")
    assert "10 to 200" in result.stderr
    assert users_json(database, "list")["data"] == []


def test_a_taken_address_is_an_error_and_changes_nothing(database: Database, run: Run) -> None:
    create(database, "ann@example.com")
    args = ("create", "--email", "ANN@example.com", "--org", "new", "--password-stdin")
    result = users(database, *args, stdin=STDIN)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "registered already" in result.stderr
    assert users_json(database, "list")["data"][0]["orgs"] == []


@pytest.mark.parametrize(
    "args",
    [
        ["create"],
        ["create", "--email", "ann"],
        ["create", "--email", "a b@c"],
        ["create", "--email", "a@b\x1b[2J"],
        ["create", "--email", "x" * 254 + "@y"],
        ["create", "--email", "a@b", "--role", "root"],
        ["create", "--email", "a@b", "--org", " "],
        ["create", "--email", "a@b", "--org", "a\x1bb"],
        ["reset-password"],
        ["log-out"],
        ["destroy"],
    ],
)
def test_a_command_that_cannot_be_meant_is_a_usage_error(
    database: Database, args: list[str]
) -> None:
    assert users(database, *args, stdin=STDIN).exit_code == 2
    assert users_json(database, "list")["data"] == []


def test_the_list_shows_who_is_where_and_no_hash(database: Database) -> None:
    empty = users(database, "list")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "tollkeeper users create" in empty.stderr
    create(database, "ann@example.com", "--org", "acme")
    create(database, "bob@example.com")
    document = users_json(database, "list")
    assert document["object"] == "list"
    rows = {row["email"]: row for row in document["data"]}
    assert set(rows["ann@example.com"]) == {"id", "email", "created_at", "orgs"}
    assert rows["ann@example.com"]["orgs"][0]["name"] == "acme"
    shown = users(database, "list").stdout
    assert "owner of acme" in shown
    assert "argon2" not in shown + json.dumps(document)


def sessions(run: Run, account: Account) -> int:
    rows = run(
        lambda database: database.execute_sql(
            "SELECT count(*) FROM accounts_session WHERE user = ?", (account.id,)
        ).fetchone()
    )
    return int(rows[0])


def test_a_reset_password_is_the_new_one_and_ends_all_sessions(
    database: Database, run: Run, ann: Account
) -> None:
    run(service.open_session, ann, Lifetimes(9, 9), 0)
    args = ("reset-password", "--email", "Ann@example.com", "--password-stdin")
    assert users_json(database, *args, stdin=STDIN) == {"id": ann.id, "email": ann.email}
    after = run(service.find_user, ann.email)
    assert verify_password(after.password, PASSWORD).is_right
    assert (after.epoch, sessions(run, ann)) == (1, 0)


def test_logging_out_ends_all_sessions_of_one_user(
    database: Database, run: Run, ann: Account, bob: Account
) -> None:
    for account in (ann, bob):
        run(service.open_session, account, Lifetimes(9, 9), 0)
    told = users(database, "log-out", "--email", ann.email)
    assert (told.exit_code, told.stdout) == (0, f"User {ann.email} is logged in nowhere now.\n")
    assert (sessions(run, ann), sessions(run, bob)) == (0, 1)


@pytest.mark.parametrize("command", ["reset-password", "log-out"])
def test_whom_nobody_knows_is_an_error_that_says_where_to_look(
    database: Database, command: str
) -> None:
    result = users(database, command, "--email", "no@body.com", stdin=STDIN)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "tollkeeper users list" in result.stderr
