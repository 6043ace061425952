"""Proof of the ledger: its chains, its sums, and what they leave to tell.

Everything is read as it is at one moment and row by row: a gateway may go on writing meanwhile.
"""

import hashlib
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator
from itertools import groupby, islice
from typing import Any

from peewee import JOIN, BlobField, CharField, DatabaseError, Field, IntegerField, fn

from tollkeeper.amounts import NANO
from tollkeeper_metering.chain import GENESIS, link
from tollkeeper_metering.models import Chain, Entry, HoldRow
from tollkeeper_metering.prices import VERSION_DIGITS
from tollkeeper_metering.usage import DAY, HOUR

SHOWN = 100
"""Problems that are told one by one."""

_FAR = 2**35  # seconds: a thousand years, and a moment that every system can tell

_Row = tuple[Any, ...]
_End = tuple[object, object]

_CHAINS = "SELECT id, started_at, genesis, seq, head, open_from FROM metering_chain ORDER BY id"
_PRICES = "SELECT version, price FROM metering_price ORDER BY version"
_ROWS = """
SELECT 'hold', id, chain, seq, attempt_id, exchange_id, number, org, key, model, deployment, price,
    amount_nanousd, held_at, hash, NULL
FROM metering_hold
UNION ALL
SELECT 'entry', hold, chain, seq, state, evidence, input_tokens, output_tokens, cache_read_tokens,
    cache_write_tokens, reasoning_tokens, cost_nanousd, charge_nanousd, exposure_nanousd,
    settled_at, hash
FROM metering_entry
ORDER BY 3, 4
"""
_PRICE = 11
"""Where a hold tells the version of its price."""
_PYTHON = {IntegerField: int, CharField: str, BlobField: bytes}
_TABLES = (("hold", HoldRow), ("entry", Entry), ("chain", Chain))
_FIELDS = {kind: table._meta.sorted_fields for kind, table in _TABLES}
_NAMES = {kind: [field.name for field in fields] for kind, fields in _FIELDS.items()}
_TYPES = {kind: [_PYTHON[type(field)] for field in fields] for kind, fields in _FIELDS.items()}

_PAIRS = """
SELECT e.hold, h.attempt_id, e.charge_nanousd, h.amount_nanousd
FROM metering_entry AS e LEFT JOIN metering_hold AS h ON h.id = e.hold
WHERE h.id IS NULL OR (e.charge_nanousd > h.amount_nanousd AND e.state <> 'posted')
ORDER BY e.hold
"""

_SUMS = (
    "attempts",
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_nanousd",
    "charge_nanousd",
    "exposure_nanousd",
)
_DIFFERENCES = """
WITH hours (span, start, org, key, model, attempts, requests, input, output, cache_read,
    cache_write, reasoning, cost, charge, exposure) AS MATERIALIZED (
    SELECT 3600, h.held_at - h.held_at % 3600, h.org, h.key, h.model, COUNT(*),
        SUM(CASE WHEN h.number = 1 THEN 1 ELSE 0 END), SUM(e.input_tokens), SUM(e.output_tokens),
        SUM(e.cache_read_tokens), SUM(e.cache_write_tokens), SUM(e.reasoning_tokens),
        SUM(e.cost_nanousd), SUM(e.charge_nanousd), SUM(e.exposure_nanousd)
    FROM metering_hold AS h JOIN metering_entry AS e ON e.hold = h.id
    GROUP BY 1, 2, 3, 4, 5
), added AS MATERIALIZED (
    SELECT * FROM hours
    UNION ALL
    SELECT 86400, start - start % 86400, org, key, model, SUM(attempts), SUM(requests), SUM(input),
        SUM(output), SUM(cache_read), SUM(cache_write), SUM(reasoning), SUM(cost), SUM(charge),
        SUM(exposure)
    FROM hours GROUP BY 1, 2, 3, 4, 5
), kept AS (
    SELECT span, start, org, key, model, attempts, requests, input_tokens, output_tokens,
        cache_read_tokens, cache_write_tokens, reasoning_tokens, cost_nanousd, charge_nanousd,
        exposure_nanousd
    FROM metering_rollup
)
SELECT 'added', * FROM (SELECT * FROM added EXCEPT SELECT * FROM kept)
UNION ALL
SELECT 'kept', * FROM (SELECT * FROM kept EXCEPT SELECT * FROM added)
ORDER BY 2, 3, 4, 5, 6
"""


def verify(database: Any) -> list[str]:  # noqa: ANN401
    """Every problem of the ledger: the first `SHOWN` of them, and a count of the others."""
    with database.atomic():
        problems = _problems(database)
        shown = list(islice(problems, SHOWN))
        others = sum(1 for _ in problems)
    return [*shown, f"and {others} more problems"] if others else shown


def _problems(database: Any) -> Iterator[str]:  # noqa: ANN401
    for check in (_chains, _pairs, _rollups):
        try:
            yield from check(database)
        except (sqlite3.Error, DatabaseError) as error:
            yield f"the ledger cannot be read to its end: {error}"


def _chains(database: Any) -> Iterator[str]:  # noqa: ANN401
    """Chains, their rows, and the prices that these name."""
    chains = database.execute_sql(_CHAINS).fetchall()
    starts = {row[0]: row[2] for row in chains}
    ends: dict[object, _End] = {}
    prices: set[object] = set()
    for chain, rows in groupby(database.execute_sql(_ROWS), key=lambda row: row[2]):
        if chain not in starts:
            yield f"{_name(database, next(rows))} is of chain {chain!r}, which does not exist"
            continue
        ends[chain] = yield from _links(database, rows, starts[chain], prices)
    yield from _ends(chains, ends)
    yield from _prices(database, prices)


def _links(
    database: Any,  # noqa: ANN401
    rows: Iterable[_Row],
    genesis: object,
    prices: set[object],
) -> Generator[str, None, _End]:
    """The problems of one chain's rows. Returns the number and the link of its last one."""
    seq, before = 0, genesis if isinstance(genesis, bytes) else b""
    for row in rows:
        values, found = _parted(row)
        if (problem := _wrong(values, found, seq + 1, before)) is not None:
            yield f"{_name(database, row)} {problem}"
        # From the stored link on, so that one bad row is one problem.
        before = found if isinstance(found, bytes) else link(before, values)
        seq = values[3] if isinstance(values[3], int) else seq + 1
        if row[0] == "hold":
            prices.add(values[_PRICE])
    return seq, before


def _parted(row: _Row) -> tuple[_Row, object]:
    """What is hashed, and the hash."""
    last = len(_NAMES[row[0]])
    return row[:last], row[last]


def _wrong(values: _Row, found: object, due: int, before: bytes) -> str | None:
    if bad := _mistyped(values[0], (*values[1:], found)):
        return f"holds a value of the wrong type in {bad}"
    if values[3] != due:
        return f"is row {values[3]} of chain {values[2]}, where row {due} was due"
    if link(before, values) != found:
        return "was changed: its hash is another"
    return None


def _mistyped(kind: str, row: _Row) -> str:
    """The columns with values that do not belong there: SQLite takes any type in any column."""
    types = _TYPES[kind]
    if list(map(type, row)) == types:
        return ""
    columns = zip(_NAMES[kind], row, types, strict=True)
    return ", ".join([name for name, value, wanted in columns if type(value) is not wanted])


def _name(database: Any, row: _Row) -> str:  # noqa: ANN401
    """How people find a row: by its hold and its attempt."""
    if row[0] == "hold":
        return f"hold {row[1]!r} of attempt {row[4]!r}"
    found = database.execute_sql("SELECT attempt_id FROM metering_hold WHERE id = ?", (row[1],))
    attempt = found.fetchone()
    return f"entry of hold {row[1]!r}" + (f" of attempt {attempt[0]!r}" if attempt else "")


def _ends(chains: list[_Row], ends: dict[object, _End]) -> Iterator[str]:
    """What the chains themselves say, against each other and against their rows."""
    before: object = GENESIS
    for row in chains:
        chain, _, genesis, seq, head, _ = row
        if bad := _mistyped("chain", row):
            yield f"chain {chain!r} holds a value of the wrong type in {bad}"
        if genesis != before:
            yield f"chain {chain!r} does not begin where the one before it ended"
        last, link_of_last = ends.get(chain, (0, genesis))
        if seq != last:
            yield f"chain {chain!r} has {seq!r} rows by its head, and its last row is {last}"
        elif head != link_of_last:
            yield f"chain {chain!r} has a head that is not the hash of its last row"
        before = head


def _prices(database: Any, used: set[object]) -> Iterator[str]:  # noqa: ANN401
    for version, text in database.execute_sql(_PRICES):
        used.discard(version)
        made = hashlib.sha256(str(text).encode()).hexdigest()[:VERSION_DIGITS]
        if str(version).partition(":")[2] != made:
            yield f"price {version!r} was changed: its version is another"
    for version in sorted(map(repr, used)):
        yield f"price {version} is missing, and holds were counted by it"


def _pairs(database: Any) -> Iterator[str]:  # noqa: ANN401
    """Entries without their hold, or above it."""
    for hold, attempt, charge, amount in database.execute_sql(_PAIRS):
        if attempt is None:
            yield f"entry of hold {hold!r} has no hold"
        else:
            yield (
                f"entry of hold {hold!r} of attempt {attempt!r} charges {charge!r} nano-USD,"
                f" above the {amount!r} that were held"
            )


def _rollups(database: Any) -> Iterator[str]:  # noqa: ANN401
    rows = database.execute_sql(_DIFFERENCES)
    for place, sides in groupby(rows, key=lambda row: row[1:6]):
        yield f"{_place(place)} {_difference({row[0]: row[6:] for row in sides})}"


def _place(place: _Row) -> str:
    span, start, org, key, model = place
    when = repr(start)
    if isinstance(start, int) and 0 <= start < _FAR:
        when = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(start))
    name = {HOUR: "hour", DAY: "day"}.get(span, f"{span!r} seconds")
    return f"roll-up of the {name} {when}, org {org!r}, key {key!r}, model {model!r}"


def _difference(sides: dict[str, _Row]) -> str:
    if "kept" not in sides:
        return "is missing"
    if "added" not in sides:
        return "sums up what is not in the ledger"
    pairs = zip(_SUMS, sides["kept"], sides["added"], strict=True)
    wrong = [f"{name} is {kept!r} for {added!r}" for name, kept, added in pairs if kept != added]
    return "differs from its rows: " + ", ".join(wrong)


def audit(database: Any) -> dict[str, Any]:  # noqa: ANN401
    """Sums by state and evidence, what is held, and the newest link: a JSON document."""
    with database.atomic():
        entries = _by_state(database)
        holds, held = _open(database)
        newest = database.execute_sql(_CHAINS).fetchall()[-1:]
    chain, seq, head = (newest[0][0], newest[0][3], newest[0][4]) if newest else (0, 0, GENESIS)
    return {
        "entries": entries,
        "open_holds": holds,
        "held_nanousd": held,
        "exposure_nanousd": sum(row["exposure_nanousd"] for row in entries),
        "chain": chain,
        "seq": seq,
        "head": head.hex() if isinstance(head, bytes) else None,
    }


def _by_state(database: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    names = ("cost_nanousd", "charge_nanousd", "exposure_nanousd")
    sums = [part for name in names for part in _halves(getattr(Entry, name))]
    group = (Entry.state, Entry.evidence)
    found = Entry.select(*group, fn.COUNT(Entry.hold), *sums).group_by(*group).order_by(*group)
    rows = []
    for state, evidence, attempts, *halves in found.tuples().execute(database):
        amounts = dict(zip(names, map(_whole, halves[::2], halves[1::2]), strict=True))
        rows.append({"state": state, "evidence": evidence, "attempts": attempts, **amounts})
    return rows


def _open(database: Any) -> tuple[int, int]:  # noqa: ANN401
    """How many holds are open, and their amount."""
    found = (
        HoldRow.select(fn.COUNT(HoldRow.id), *_halves(HoldRow.amount_nanousd))
        .join(Entry, JOIN.LEFT_OUTER, on=(Entry.hold == HoldRow.id))
        .where(Entry.hold.is_null())
    )
    ((count, dollars, rest),) = found.tuples().execute(database)
    return count, _whole(dollars, rest)


def _halves(field: Field) -> tuple[Any, Any]:
    """A sum as whole dollars and the rest: no amount that somebody wrote makes it overflow."""
    return fn.SUM(field / NANO), fn.SUM(field - field / NANO * NANO)


def _whole(dollars: int | None, rest: int | None) -> int:
    return (dollars or 0) * NANO + (rest or 0)
