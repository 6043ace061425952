"""`tollkeeper ledger` and `tollkeeper usage`."""

import csv
import json
import sys
import time
from collections.abc import Iterable, Sequence
from copy import copy
from functools import partial
from typing import Any

import click
import msgspec

from tollkeeper import Database
from tollkeeper.amounts import dollars, read_moment
from tollkeeper.ledger import UsageQuery, UsageSum
from tollkeeper_metering.audit import audit, verify
from tollkeeper_metering.usage import ATTEMPT_FIELDS, attempts, sum_usage

_MONEY = ("cost", "charge", "exposure")


class _Moment(click.ParamType[int]):
    """A moment as people write it, in Unix seconds."""

    name = "when"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        if (moment := read_moment(value, int(time.time()))) is not None:
            return moment
        return self.fail(
            f'"{value}" is no time; write 2026-11-25, 2026-11-25T10:00 (UTC), 7d or 24h', param, ctx
        )


WHEN = _Moment()


def ledger_command(database: Database) -> click.Group:
    """The command group `ledger`, working on this database."""
    group = click.Group("ledger", help="Prove, sum up and export the ledger.")
    for command in (_verify, _audit, _export):
        group.add_command(_with_first(command, database))
    return group


def usage_command(database: Database) -> click.Command:
    """The command `usage`, working on this database."""
    return _with_first(_usage, database)


def _with_first(command: click.Command, database: Database) -> click.Command:
    """A copy of a command whose function gets the database first."""
    bound = copy(command)
    bound.params = list(command.params)
    bound.callback = partial(command.callback, database) if command.callback else None
    return bound


def _tell(problems: Sequence[str]) -> None:
    for problem in problems:
        click.echo(problem, err=True)


@click.command("verify", help="Prove that no row was changed, added or taken away.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def _verify(database: Database, as_json: bool) -> None:
    with database.reading() as connection:
        problems = verify(connection)
    _tell(problems)
    if as_json:
        click.echo(json.dumps({"ok": not problems, "problems": problems}))
    elif not problems:
        click.echo("The ledger is whole.")
    sys.exit(1 if problems else 0)


@click.command("audit", help="Prove the ledger, and print its sums.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def _audit(database: Database, as_json: bool) -> None:
    with database.reading() as connection:
        problems = verify(connection)
        _tell(problems)
        sums = audit(connection)
    if as_json:
        click.echo(json.dumps({"ok": not problems, "problems": problems, **sums}))
    else:
        _print_audit(sums)
    sys.exit(1 if problems else 0)


def _print_audit(sums: dict[str, Any]) -> None:
    rows = [
        (
            row["state"],
            row["evidence"],
            row["attempts"],
            *(dollars(row[f"{m}_nanousd"]) for m in _MONEY),
        )
        for row in sums["entries"]
    ]
    _print_table(("state", "evidence", "attempts", *_MONEY), rows)
    click.echo(f"Held by {sums['open_holds']} open holds: {dollars(sums['held_nanousd'])} USD.")
    click.echo(f"Exposure: {dollars(sums['exposure_nanousd'])} USD.")
    click.echo(f"Chain {sums['chain']} has {sums['seq']} rows; its head is {sums['head']}.")


@click.command("export", help="Print every attempt, oldest first, as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line instead.")
def _export(database: Database, as_json: bool) -> None:
    with database.reading() as connection:
        rows = attempts(connection)
        if as_json:
            for row in rows:  # millions: without a flush for each
                line = msgspec.json.encode(dict(zip(ATTEMPT_FIELDS, row, strict=True)))
                sys.stdout.write(line.decode() + "\n")
        else:
            _print_csv(ATTEMPT_FIELDS, rows)


@click.command("usage", help="Sum up attempts, tokens and money (USD).")
@click.option("--org", help="Of this organization only, by its id.")
@click.option("--key", help="Of this virtual key only, by its id.")
@click.option("--model", help="Of this model only, by the name that clients ask for.")
@click.option(
    "--since",
    type=WHEN,
    default=0,
    help="From this hour on: 2026-11-25, 2026-11-25T10:00 (UTC), 7d or 24h ago.",
)
@click.option("--until", type=WHEN, help="Before this hour, written likewise.")
@click.option(
    "--by",
    type=click.Choice(["day", "model", "key", "org"]),
    default="day",
    show_default=True,
    help="One sum for each of them; days are of UTC.",
)
@click.option("--csv", "shape", flag_value="csv", help="Print CSV.")
@click.option("--json", "shape", flag_value="json", help="Print one JSON document.")
def _usage(database: Database, shape: str | None, **options: Any) -> None:  # noqa: ANN401
    query = UsageQuery(**options)
    with database.reading() as connection:
        rows = [_readable(row) for row in sum_usage(connection, query)]
    names = UsageSum.__struct_fields__
    if shape == "json":
        click.echo(json.dumps({"object": "list", "data": rows}))
    elif shape == "csv":
        _print_csv(names, [tuple(row.values()) for row in rows])
    else:
        _print_table((query.by, *names[1:]), [tuple(row.values()) for row in rows])


def _readable(row: UsageSum) -> dict[str, Any]:
    fields = msgspec.structs.asdict(row)
    return {name: dollars(value) if name in _MONEY else value for name, value in fields.items()}


def _print_csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)


def _print_table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they must be: text to the left, numbers and amounts to the right."""
    lines = [[str(cell) for cell in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = sum(1 for name in names if name in ("state", "evidence", "day", "model", "key", "org"))
    for line in lines:
        left = [cell.ljust(width) for cell, width in zip(line[:texts], widths, strict=False)]
        right = [
            cell.rjust(width) for cell, width in zip(line[texts:], widths[texts:], strict=True)
        ]
        click.echo("  ".join([*left, *right]))
