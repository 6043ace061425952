"""`tollkeeper users`: create, list, reset a password, log out."""

import json
import re
import sys
import time
from copy import copy
from functools import partial
from typing import Any

import click

from tollkeeper import Database, Refused
from tollkeeper.management import ROLES
from tollkeeper_accounts import orgs, service
from tollkeeper_accounts.passwords import hash_password

_ADDRESS = re.compile(r"[!-?A-~]+@[!-?A-~]+")
MIN_PASSWORD, MAX_PASSWORD = 10, 200


class _Email(click.ParamType[str]):
    """An e-mail address, as it is stored."""

    name = "email"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        email = service.normal_email(value)
        if not _ADDRESS.fullmatch(email) or not email.isprintable() or len(email) > 254:
            self.fail(f'"{value}" is no e-mail address', param, ctx)
        return email


class _OrgName(click.ParamType[str]):
    """The name or id of an organization."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        if not value.strip() or not value.isprintable() or len(value) > 100:
            self.fail("a name is 1 to 100 printable characters", param, ctx)
        return value.strip()


_email = click.option("--email", required=True, type=_Email(), help="Whose.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_stdin = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="Read the password from standard input."
)


def users_command(database: Database) -> click.Group:
    """The command group, working on this database."""
    group = click.Group("users", help="Create and list users, reset passwords, log users out.")
    for command in (_create, _list, _reset_password, _log_out):
        group.add_command(_with_first(command, database))
    return group


def _with_first(command: click.Command, database: Database) -> click.Command:
    """A copy of a command whose function gets the database first."""
    bound = copy(command)
    bound.params = list(command.params)
    bound.callback = partial(command.callback, database) if command.callback else None
    return bound


@click.command("create", help="Make a user, whoever else may register.")
@_email
@click.option("--org", type=_OrgName(), help="An organization to join, by name or id; made if new.")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    help="What to be in the organization; owner of one that has no members.",
)
@_stdin
@_json
def _create(database: Database, email: str, from_stdin: bool, as_json: bool, **into: Any) -> None:  # noqa: ANN401
    if into["role"] and not into["org"]:
        raise click.UsageError("--role says what to be in --org, which is missing")
    hashed, now = hash_password(_password(from_stdin)), int(time.time())
    org: str | None = None
    try:
        with database.transaction() as connection:
            account = service.add_user(connection, email, hashed, now)
            if into["org"] is not None:
                org = orgs.find_or_create_org(connection, into["org"], now)
                into["role"] = into["role"] or _first_role(connection, org)
                orgs.add_member(connection, org, account.id, into["role"])
    except Refused as refused:
        raise click.ClickException(refused.message) from None
    document = {"id": account.id, "email": email, "org": org, "role": into["role"] if org else None}
    if as_json:
        click.echo(json.dumps(document))
    else:
        place = f", {into['role']} of {org}" if org else ""
        click.echo(f"User {account.id} ({email}){place} can log in now.")


def _first_role(connection: Any, org: str) -> str:  # noqa: ANN401 -- peewee's
    if orgs.members(connection, org):
        raise click.ClickException(f"the organization {org} has members already: say --role")
    return "owner"


@click.command("list", help="List all users.")
@_json
def _list(database: Database, as_json: bool) -> None:
    with database.reading() as connection:
        rows = service.list_users(connection)
    if as_json:
        click.echo(json.dumps({"object": "list", "data": rows}))
        return
    for row in rows:
        day = time.strftime("%Y-%m-%d", time.gmtime(row["created_at"]))
        places = ", ".join(f"{org['role']} of {org['name']}" for org in row["orgs"])
        click.echo(f"{row['id']}  {day}  {row['email']}  {places}".rstrip())
    if not rows:
        click.echo("No users yet. Make one with: tollkeeper users create --email EMAIL", err=True)


@click.command("reset-password", help="Give a user another password, and end all sessions.")
@_email
@_stdin
@_json
def _reset_password(database: Database, email: str, from_stdin: bool, as_json: bool) -> None:
    user = _user(database, email)
    hashed = hash_password(_password(from_stdin))
    with database.transaction() as connection:
        service.set_password(connection, user, None, hashed)
    _tell(user, email, "has another password, and is logged in nowhere", as_json)


@click.command("log-out", help="End all sessions of a user.")
@_email
@_json
def _log_out(database: Database, email: str, as_json: bool) -> None:
    user = _user(database, email)
    with database.transaction() as connection:
        service.log_out(connection, user)
    _tell(user, email, "is logged in nowhere now", as_json)


def _user(database: Database, email: str) -> str:
    with database.reading() as connection:
        account = service.find_user(connection, email)
    if account is None:
        raise click.ClickException(f"no user {email}; see: tollkeeper users list")
    return account.id


def _tell(user: str, email: str, done: str, as_json: bool) -> None:
    click.echo(json.dumps({"id": user, "email": email}) if as_json else f"User {email} {done}.")


def _password(from_stdin: bool) -> str:
    """What is typed, twice and unseen, or the first line of standard input."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        limits = f"{MIN_PASSWORD} to {MAX_PASSWORD}"
        raise click.ClickException(f"a password has {limits} characters")
    return str(password)
