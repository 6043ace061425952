"""Sums of the ledger: from roll-ups where they reach, from rows where nothing else is exact."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from peewee import Case, Expression, Field, fn

from tollkeeper.ledger import UsageQuery, UsageSum
from tollkeeper_metering.models import Entry, HoldRow, Rollup

HOUR = 3600
DAY = 86400
FOREVER = 2**62
"""Later than any moment of the ledger."""

_SUMMED = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_nanousd",
    "charge_nanousd",
    "exposure_nanousd",
)

_ATTEMPTS = """
SELECT h.attempt_id, h.exchange_id, h.org, h.key, h.model, COALESCE(e.state, 'open'), e.evidence,
    COALESCE(e.input_tokens, 0), COALESCE(e.output_tokens, 0), COALESCE(e.cache_read_tokens, 0),
    COALESCE(e.cache_write_tokens, 0), COALESCE(e.reasoning_tokens, 0),
    COALESCE(e.cost_nanousd, 0), COALESCE(e.charge_nanousd, 0), h.number, h.deployment,
    h.amount_nanousd, COALESCE(e.exposure_nanousd, 0), h.price, h.held_at, e.settled_at
FROM metering_hold AS h LEFT JOIN metering_entry AS e ON e.hold = h.id
ORDER BY h.id
"""
ATTEMPT_FIELDS = (
    "attempt_id",
    "exchange_id",
    "org",
    "key",
    "model",
    "state",
    "evidence",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_nanousd",
    "charge_nanousd",
    "number",
    "deployment",
    "hold_nanousd",
    "exposure_nanousd",
    "price",
    "held_at",
    "settled_at",
)
"""Of each attempt as `attempts` gives it."""


def attempts(database: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
    """Every attempt, oldest first; an open hold has the state "open" and no evidence."""
    yield from database.execute_sql(_ATTEMPTS)


def sum_usage(database: Any, query: UsageQuery) -> list[UsageSum]:  # noqa: ANN401
    """What the query asks for, in the order of its keys: whole days, and hours at the ends."""
    counted = [fn.SUM(Rollup.requests), fn.SUM(Rollup.attempts)]
    sums = counted + [fn.SUM(getattr(Rollup, name)) for name in _SUMMED]
    group = _group(query, Rollup, Rollup.start)
    found = (
        Rollup.select(group, *sums)
        .where(_reached(*_hours(query)), *_filters(query, Rollup))
        .group_by(group)
        .order_by(group)
    )
    return _read(database, query, found)


def sum_raw(database: Any, query: UsageQuery) -> list[UsageSum]:  # noqa: ANN401
    """The same as `sum_usage`, from every row of the ledger: slow, and the proof of it."""
    requests = fn.SUM(Case(None, [(HoldRow.number == 1, 1)], 0))
    sums = [requests, fn.COUNT(Entry.hold)] + [fn.SUM(getattr(Entry, name)) for name in _SUMMED]
    group = _group(query, HoldRow, HoldRow.held_at)
    found = (
        HoldRow.select(group, *sums)
        .join(Entry, on=(Entry.hold == HoldRow.id))
        .where(_between(HoldRow.held_at, *_hours(query)), *_filters(query, HoldRow))
        .group_by(group)
        .order_by(group)
    )
    return _read(database, query, found)


def spent_since(database: Any, since: int) -> list[tuple[str, str, int]]:  # noqa: ANN401
    """Org, key and charge in nano-USD of what was held at or after this second and has ended."""
    next_hour = -(-since // HOUR) * HOUR
    spent: Counter[tuple[str, str]] = Counter()
    with database.atomic():  # of one moment: what is settled meanwhile is in both or in neither
        for org, key, charge in _rolled_up(next_hour).tuples().execute(database):
            spent[org, key] += charge
        if since < next_hour:
            for org, key, charge in _raw(since, next_hour).tuples().execute(database):
                spent[org, key] += charge
    return [(org, key, charge) for (org, key), charge in sorted(spent.items())]


def _rolled_up(since: int) -> Any:  # noqa: ANN401 -- a query
    whole = (Rollup.org, Rollup.key)
    found = Rollup.select(*whole, fn.SUM(Rollup.charge_nanousd))
    return found.where(_reached(since, FOREVER)).group_by(*whole)


def _raw(since: int, until: int) -> Any:  # noqa: ANN401 -- a query
    whole = (HoldRow.org, HoldRow.key)
    found = HoldRow.select(*whole, fn.SUM(Entry.charge_nanousd))
    joined = found.join(Entry, on=(Entry.hold == HoldRow.id))
    return joined.where(_between(HoldRow.held_at, since, until)).group_by(*whole)


def _hours(query: UsageQuery) -> tuple[int, int]:
    until = FOREVER if query.until is None else query.until
    return query.since // HOUR * HOUR, until // HOUR * HOUR


def _reached(since: int, until: int) -> Expression:
    """The roll-ups that make up a time given in whole hours, each hour in one of them."""
    first, last = -(-since // DAY) * DAY, until // DAY * DAY
    begin = (Rollup.span == HOUR) & _between(Rollup.start, since, min(first, until))
    days = (Rollup.span == DAY) & _between(Rollup.start, first, last)
    end = (Rollup.span == HOUR) & _between(Rollup.start, max(first, last), until)
    return begin | days | end


def _between(field: Field, begin: int, end: int) -> Expression:
    return (field >= begin) & (field < end)


def _group(query: UsageQuery, table: Any, moment: Field) -> Expression | Field:  # noqa: ANN401
    return moment / DAY * DAY if query.by == "day" else getattr(table, query.by)


def _filters(query: UsageQuery, table: Any) -> list[Expression]:  # noqa: ANN401
    wanted = {"org": query.org, "key": query.key, "model": query.model}
    return [getattr(table, name) == value for name, value in wanted.items() if value is not None]


def _read(database: Any, query: UsageQuery, found: Any) -> list[UsageSum]:  # noqa: ANN401
    rows = found.tuples().execute(database)
    if query.by != "day":
        return [UsageSum(*row) for row in rows]
    return [UsageSum(time.strftime("%Y-%m-%d", time.gmtime(day)), *sums) for day, *sums in rows]
