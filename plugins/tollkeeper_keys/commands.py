"""`tollkeeper keys`: create, list, revoke."""

import json
import sys
import time
from copy import copy
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from tollkeeper import Database
from tollkeeper_keys import service

TOPIC = "keys"


class _Name(click.ParamType[str]):
    """A name that people can read: not empty, and nothing that a terminal would act on."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        if not value.strip() or not value.isprintable() or len(value) > 200:
            self.fail("a name is 1 to 200 printable characters", param, ctx)
        return value


NAME = _Name()


def keys_command(database: Database) -> click.Group:
    """The command group, working on this database."""
    group = click.Group("keys", help="Create, list and revoke virtual keys.")
    for command in (_create, _list, _revoke):
        group.add_command(_with_first(command, database))
    return group


def _with_first(command: click.Command, database: Database) -> click.Command:
    """A copy of a command whose function gets the database first."""
    bound = copy(command)
    bound.params = list(command.params)
    bound.callback = partial(command.callback, database) if command.callback else None
    return bound


@click.command("create", help="Make a virtual key. Its secret is shown this once.")
@click.option("--name", required=True, type=NAME, help="What to recognise it by.")
@click.option(
    "--org", type=NAME, default="default", show_default=True, help="Who pays; made if new."
)
@click.option("--rpm", type=click.IntRange(1, 1_000_000), help="Requests per minute.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def _create(database: Database, name: str, org: str, rpm: int | None, as_json: bool) -> None:
    with database.transaction() as connection:
        key = service.create_key(connection, name, org, rpm)
    confirmed = _announce(database)
    if as_json:
        _print_json(asdict(key))
    else:
        click.echo(key.key)
        click.echo(f"Key {key.id} ({name}) of org {key.org}. It is not shown again.", err=True)
    sys.exit(0 if confirmed else 1)


@click.command("list", help="List all keys, without their secrets.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def _list(database: Database, as_json: bool) -> None:
    with database.transaction() as connection:
        rows = service.list_keys(connection)
    if as_json:
        _print_json({"object": "list", "data": rows})
        return
    for row in rows:
        click.echo(_line(row))
    if not rows:
        click.echo("No keys yet. Make one with: tollkeeper keys create --name NAME", err=True)


@click.command("revoke", help="End a key for good, by its id.")
@click.argument("key_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def _revoke(database: Database, key_id: str, as_json: bool) -> None:
    with database.transaction() as connection:
        revoked = service.revoke_key(connection, key_id)
    if not revoked:
        raise click.ClickException(f"no valid key {key_id}; see: tollkeeper keys list")
    confirmed = _announce(database)
    if as_json:
        _print_json({"id": key_id, "revoked": True})
    else:
        click.echo(f"Key {key_id} is revoked.")
    sys.exit(0 if confirmed else 1)


def _announce(database: Database) -> bool:
    """Let serving processes apply the change; complain about those that do not confirm."""
    silent = database.announcer.tell_others(TOPIC)
    for socket in silent:
        click.echo(
            f"warning: the change is stored, but the gateway behind {socket} did not confirm it;"
            " restart it to be sure",
            err=True,
        )
    return not silent


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document))


def _line(row: dict[str, Any]) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(row["created_at"]))
    state = "revoked" if row["revoked_at"] else "valid"
    rpm = f"{row['rpm']} rpm" if row["rpm"] else ""
    return f"{row['id']}  {row['prefix']}...  {state:7}  {day}  {row['org']}  {row['name']}  {rpm}"
