"""`tollkeeper keys`: create, list, rotate, revoke."""

import json
import re
import sys
import time
from copy import copy
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click
import msgspec

from tollkeeper import Database
from tollkeeper.management import KeyTerms
from tollkeeper.storage import DEFAULT_ORG
from tollkeeper_keys import service

DAY = 86_400


class _Name(click.ParamType[str]):
    """A name that people can read: not empty, and nothing that a terminal would act on."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        if not service.is_name(value):
            self.fail("a name is 1 to 200 printable characters", param, ctx)
        return value


class _Expiry(click.ParamType[int]):
    """A time to come: so many days from now, or a moment in UTC."""

    name = "when"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The Unix second that is meant."""
        now = time.time()
        try:
            second = second_of(value, now)
        except ValueError:
            self.fail("write 30d, 2026-12-31 or 2026-12-31T10:00", param, ctx)
        if second <= now:
            self.fail(f"{value} is over", param, ctx)
        return second


def second_of(text: str, now: float) -> int:
    """The Unix second of `30d`, counted from now, or of an ISO date, in UTC unless it says else.

    A date alone is its first moment. Raises `ValueError` for anything else.
    """
    if days := re.fullmatch("([1-9][0-9]{0,4})d", text):
        return int(now) + int(days[1]) * DAY
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


NAME = _Name()
EXPIRY = _Expiry()


def keys_command(database: Database) -> click.Group:
    """The command group, working on this database."""
    group = click.Group("keys", help="Create, list, rotate and revoke virtual keys.")
    for command in (_create, _list, _rotate, _revoke):
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
@click.option("--rpm", type=click.IntRange(1, service.MAX_RPM), help="Requests per minute.")
@click.option(
    "--model",
    "models",
    type=NAME,
    multiple=True,
    callback=lambda _ctx, _param, names: names or None,
    help="A model that it may ask for; can be repeated. All models without it.",
)
@click.option(
    "--expires",
    "expires_at",
    type=EXPIRY,
    help="When it ends: in 30d, or at the UTC moment 2026-12-31 or 2026-12-31T10:00.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def _create(database: Database, org: str, as_json: bool, **terms: Any) -> None:  # noqa: ANN401
    with database.transaction() as connection:
        known = service.org_is_known(connection, org)
        key = service.issue_key(connection, org, KeyTerms(**terms), time.time())
    if known and org != DEFAULT_ORG:
        click.echo(f"The organization {key.org} ({org}) was there already.", err=True)
    confirmed = _announce(database)
    if as_json:
        _print_json(asdict(key))
    else:
        click.echo(key.key)
        click.echo(f"Key {key.id} ({key.name}) of org {key.org}. It is not shown again.", err=True)
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
        click.echo(_line(row, time.time()))
    if not rows:
        click.echo("No keys yet. Make one with: tollkeeper keys create --name NAME", err=True)


@click.command("rotate", help="Give a key a new secret, by its id. It is shown this once.")
@click.argument("key_id")
@click.option(
    "--grace",
    type=click.IntRange(0, service.MAX_GRACE),
    default=0,
    show_default=True,
    metavar="SECONDS",
    help="How long the old secret stays valid.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def _rotate(database: Database, key_id: str, grace: int, as_json: bool) -> None:
    with database.transaction() as connection:
        rotated = service.rotate_key(connection, None, key_id, grace, time.time())
    if rotated is None:
        raise click.ClickException(f"no valid key {key_id}; see: tollkeeper keys list")
    key, secret = rotated
    confirmed = _announce(database)
    if as_json:
        _print_json({**msgspec.structs.asdict(key), "key": secret})
    else:
        click.echo(secret)
        ending = f"is valid for {grace} seconds more" if grace else "is valid no more"
        click.echo(f"Key {key_id}: the old secret {ending}; this one is not shown again.", err=True)
    sys.exit(0 if confirmed else 1)


@click.command("revoke", help="End a key for good, by its id.")
@click.argument("key_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def _revoke(database: Database, key_id: str, as_json: bool) -> None:
    with database.transaction() as connection:
        revoked = service.revoke_key(connection, None, key_id, time.time())
    if revoked is None:
        raise click.ClickException(f"no valid key {key_id}; see: tollkeeper keys list")
    confirmed = _announce(database)
    if as_json:
        _print_json({"id": key_id, "revoked": True})
    else:
        click.echo(f"Key {key_id} is revoked.")
    sys.exit(0 if confirmed else 1)


def _announce(database: Database) -> bool:
    """Let serving processes apply the change; complain about those that do not confirm."""
    silent = database.announcer.tell_others(service.TOPIC)
    for socket in silent:
        click.echo(
            f"warning: the change is stored, but the gateway behind {socket} did not confirm it;"
            " restart it to be sure",
            err=True,
        )
    return not silent


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document))


def _line(row: dict[str, Any], now: float) -> str:
    expires_at = row["expires_at"]
    is_over = expires_at is not None and expires_at <= now
    state = "revoked" if row["revoked_at"] else "expired" if is_over else "valid"
    parts = [row["id"], f"{row['prefix']}...", f"{state:7}", _day(row["created_at"])]
    parts += [row["org"], row["name"], f"{row['rpm']} rpm" if row["rpm"] else ""]
    if row["models"] is not None:
        parts.append(f"only {', '.join(row['models']) or 'nothing'}")
    if expires_at is not None:
        parts.append(f"until {_day(expires_at)}")
    return "  ".join(parts)


def _day(second: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(second))
