"""The ledger's rows: how holds and entries are laid down, linked and summed up."""

from collections.abc import Mapping, Sequence
from operator import add
from typing import Any

from tollkeeper_metering.chain import GENESIS, link
from tollkeeper_metering.entries import Entry, OpenHold, orphaned
from tollkeeper_metering.prices import Price

HOUR, DAY = 3600, 86400

_SIZES = (64, 32, 16, 8, 4, 2, 1)


def _for_each_size(before: str, row: str, after: str = "") -> dict[int, str]:
    """A statement that inserts so many rows at once, for every size."""
    return {size: before + ",".join([row] * size) + after for size in _SIZES}


_HOLD = _for_each_size("INSERT INTO metering_hold VALUES ", "(?,?,?,?,?,?,?,?,?,?,?,?,?,?)")
_ENTRY = _for_each_size("INSERT INTO metering_entry VALUES ", "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")
_ROLLUP = _for_each_size(
    "INSERT INTO metering_rollup VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    " ON CONFLICT (span, start, org, key, model) DO UPDATE SET"
    " attempts = attempts + excluded.attempts, requests = requests + excluded.requests,"
    " input_tokens = input_tokens + excluded.input_tokens,"
    " output_tokens = output_tokens + excluded.output_tokens,"
    " cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,"
    " cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,"
    " reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,"
    " cost_nanousd = cost_nanousd + excluded.cost_nanousd,"
    " charge_nanousd = charge_nanousd + excluded.charge_nanousd,"
    " exposure_nanousd = exposure_nanousd + excluded.exposure_nanousd",
)
_PRICE = "INSERT OR IGNORE INTO metering_price VALUES (?,?)"
_HEAD = "UPDATE metering_chain SET seq = ?, head = ?, open_from = ? WHERE id = ?"
_LAST = "SELECT id, head, open_from FROM metering_chain ORDER BY id DESC LIMIT 1"
_CHAIN = "INSERT INTO metering_chain VALUES (?,?,?,?,?,?)"
_NEXT = "SELECT coalesce(max(id), 0) + 1 FROM metering_hold"
_ORPHANS = (
    "SELECT h.id, h.attempt_id, h.exchange_id, h.number, h.org, h.key, h.model, h.deployment,"
    " h.price, h.amount_nanousd, h.held_at FROM metering_hold h"
    " LEFT JOIN metering_entry e ON e.hold = h.id WHERE h.id >= ? AND e.hold IS NULL"
)


class Rows:
    """Where one writer's chain stands. What `write` did counts once `keep` is called."""

    def __init__(self) -> None:
        self.next_hold = 1
        self._chain = 1
        self._seq = self._staged_seq = 0
        self._head = self._staged_head = GENESIS
        self._open: dict[int, None] = {}
        """Holds without an end, oldest first."""
        self._staged: tuple[Sequence[OpenHold], Sequence[Entry]] = ((), ())
        self._prices: set[str] = set()

    def begin(self, cursor: Any, now: int) -> int:  # noqa: ANN401 -- the driver's
        """Begin a chain behind the last one, and close what was left open. Returns how many."""
        last = cursor.execute(_LAST).fetchone()
        chain, self._head, open_from = last or (0, GENESIS, 1)
        self._chain = chain + 1
        self.next_hold = cursor.execute(_NEXT).fetchone()[0]
        row = (self._chain, now, self._head, 0, self._head, self.next_hold)
        cursor.execute(_CHAIN, row)
        found = cursor.execute(_ORPHANS, (open_from,)).fetchall()
        holds = [OpenHold(*columns) for columns in found]
        self.write(cursor, [], [orphaned(hold, now) for hold in holds])
        return len(holds)

    def write(self, cursor: Any, holds: Sequence[OpenHold], entries: Sequence[Entry]) -> None:  # noqa: ANN401
        """Lay rows down in the transaction of `cursor`."""
        self._staged_seq, self._staged_head = self._seq, self._head
        if holds:
            self._write_prices(cursor, {hold.rate.version: hold.rate for hold in holds})
            insert(cursor, _HOLD, [self._hold_row(hold) for hold in holds])
        if entries:
            insert(cursor, _ENTRY, [self._entry_row(entry) for entry in entries])
            insert(cursor, _ROLLUP, roll_up(entries))
        self._staged = (holds, entries)
        cursor.execute(_HEAD, (self._staged_seq, self._staged_head, self._open_from(), self._chain))

    def keep(self) -> None:
        """What was written last is committed."""
        holds, entries = self._staged
        self._seq, self._head, self._staged = self._staged_seq, self._staged_head, ((), ())
        for hold in holds:
            self._open[hold.id] = None
            self._prices.add(hold.price)
        for entry in entries:
            self._open.pop(entry.hold.id, None)

    def _open_from(self) -> int:
        """As of the last commit: holds may have ended since, but none before it is open."""
        holds, _ = self._staged
        first = holds[0].id if holds else self.next_hold
        self.next_hold = max(self.next_hold, holds[-1].id + 1) if holds else self.next_hold
        return next(iter(self._open), first)

    def _write_prices(self, cursor: Any, prices: dict[str, Price]) -> None:  # noqa: ANN401
        if new := prices.keys() - self._prices:
            cursor.executemany(_PRICE, [(version, prices[version].text) for version in new])

    def _hold_row(self, hold: OpenHold) -> tuple[object, ...]:
        self._staged_seq += 1
        row = (
            hold.id,
            self._chain,
            self._staged_seq,
            hold.attempt_id,
            hold.exchange_id,
            hold.number,
            hold.org,
            hold.key,
            hold.model,
            hold.deployment,
            hold.price,
            hold.amount,
            hold.at,
        )
        self._staged_head = link(self._staged_head, ("hold", *row))
        return (*row, self._staged_head)

    def _entry_row(self, entry: Entry) -> tuple[object, ...]:
        self._staged_seq += 1
        usage = entry.usage
        row = (
            entry.hold.id,
            self._chain,
            self._staged_seq,
            entry.state,
            usage.evidence,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            entry.cost,
            entry.charge,
            entry.exposure,
            entry.at,
        )
        self._staged_head = link(self._staged_head, ("entry", *row))
        return (*row, self._staged_head)


def insert(
    cursor: Any,  # noqa: ANN401 -- the driver's
    statements: Mapping[int, str],
    rows: Sequence[tuple[object, ...]],
) -> None:
    """Insert rows, many by one statement: each statement lets go of the interpreter once."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            part = rows[start : start + size]
            cursor.execute(statements[size], [value for row in part for value in row])
            start += size


def roll_up(entries: Sequence[Entry]) -> list[tuple[object, ...]]:
    """The rows of hours and days that some entries add to."""
    sums: dict[tuple[int, int, str, str, str], list[int]] = {}
    for entry in entries:
        hold, usage = entry.hold, entry.usage
        added = (
            1,
            hold.number == 1,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            entry.cost,
            entry.charge,
            entry.exposure,
        )
        where = (HOUR, hold.at - hold.at % HOUR, hold.org, hold.key, hold.model)
        known = sums.get(where)
        sums[where] = [*map(add, known, added)] if known else [*added]
    days: dict[tuple[int, int, str, str, str], list[int]] = {}
    for (_, start, org, key, model), hour in sums.items():
        day = (DAY, start - start % DAY, org, key, model)
        known = days.get(day)
        days[day] = [*map(add, known, hour)] if known else hour
    return [(*where, *added) for where, added in [*sums.items(), *days.items()]]
