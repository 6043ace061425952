"""What a summary of usage costs, against the same sum over the raw rows of the ledger.

    python bench/rollup.py [ROWS]

Builds a ledger of ROWS attempts (10 million by default; about 0.3 GB for each million) in a
temporary directory: 90 days, 20 keys in 4 orgs, 5 models, with roll-ups and without real hashes.
Then it sums up all of it by day, by model and by key, once from the roll-ups and once from the raw
rows, in turns, and prints the medians of five runs and their ratio. Both are complete: from the
query to the list of sums in Python, on a file that the system has read before.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tollkeeper.ledger import UsageQuery, UsageSum
from tollkeeper.storage import make_database
from tollkeeper_metering.usage import sum_raw, sum_usage

ROWS = 10_000_000
DAYS = 90
RUNS = 5
LIMIT = 100
"""A summary over `ROWS` rows must cost at most one part of so many of the raw sum."""
START = 1_780_000_000 // 86400 * 86400

HOLDS = """
WITH RECURSIVE counter (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < :rows)
INSERT INTO metering_hold
SELECT n, 1, 2 * n - 1, printf('att_%016x%08x', 1, n), printf('req_%016x%08x', 1, n),
    1 + (n % 50 = 0), 'org_' || (n * 7919 % 20 % 4), printf('key_%016x', n * 7919 % 20),
    'model-' || (n / 20 % 5), 'provider/model-' || (n / 20 % 5), 'toml:0123456789ab',
    40000000, :start + n * (:days * 86400 - 1) / :rows, zeroblob(32)
FROM counter
"""
ENTRIES = """
INSERT INTO metering_entry
SELECT id, 1, 2 * id, 'posted', 'provider', 1000 + id % 977, 200 + id % 89, id % 512, 0, id % 31,
    300000 + id % 99991, 330000 + id % 99991, 0, held_at + 3, zeroblob(32)
FROM metering_hold
"""
HOURS = """
INSERT INTO metering_rollup
SELECT 3600, held_at / 3600 * 3600, org, key, model, COUNT(*), SUM(number = 1), SUM(input_tokens),
    SUM(output_tokens), SUM(cache_read_tokens), SUM(cache_write_tokens), SUM(reasoning_tokens),
    SUM(cost_nanousd), SUM(charge_nanousd), SUM(exposure_nanousd)
FROM metering_hold JOIN metering_entry ON hold = id
GROUP BY 2, 3, 4, 5
"""
DAYS_OF_HOURS = """
INSERT INTO metering_rollup
SELECT 86400, start / 86400 * 86400, org, key, model, SUM(attempts), SUM(requests),
    SUM(input_tokens), SUM(output_tokens), SUM(cache_read_tokens), SUM(cache_write_tokens),
    SUM(reasoning_tokens), SUM(cost_nanousd), SUM(charge_nanousd), SUM(exposure_nanousd)
FROM metering_rollup GROUP BY 2, 3, 4, 5
"""

Sums = Callable[[Any, UsageQuery], list[UsageSum]]


def build(database: Any, rows: int) -> None:  # noqa: ANN401
    """Fill the tables. The planner gets its statistics, for the good of the raw sum too."""
    connection = database.connection()
    for pragma in ("journal_mode = off", "synchronous = off", "cache_size = -200000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    connection.execute(HOLDS, {"rows": rows, "start": START, "days": DAYS})
    for statement in (ENTRIES, HOURS, DAYS_OF_HOURS):
        connection.execute(statement)
    connection.execute("COMMIT")
    connection.execute("ANALYZE")


def timed(sums: Sums, database: Any, query: UsageQuery) -> tuple[float, list[UsageSum]]:  # noqa: ANN401
    """Seconds, and what came of them."""
    began = time.perf_counter()
    found = sums(database, query)
    return time.perf_counter() - began, found


def compare(database: Any, query: UsageQuery) -> float:  # noqa: ANN401
    """Print one line; returns how many times dearer the raw sum is."""
    summary, raw = [], []
    for _ in range(RUNS):
        seconds, short = timed(sum_usage, database, query)
        summary.append(seconds)
        seconds, long = timed(sum_raw, database, query)
        raw.append(seconds)
        if short != long:
            raise SystemExit(f"by {query.by}: the roll-ups do not tell what the rows tell")
    quick, slow = statistics.median(summary), statistics.median(raw)
    print(
        f"summary by {query.by}: 1/{slow / quick:.0f} of the raw sum"
        f" ({quick * 1000:.2f} ms against {slow * 1000:.0f} ms)",
        flush=True,
    )
    return slow / quick


def main() -> None:
    """Build, compare, and exit with 1 where a summary is too dear."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as folder:
        database = make_database("sqlite:///ledger.db", Path(folder))
        database.open()
        database.migrate_package("metering", "tollkeeper_metering")
        began = time.perf_counter()
        with database._database.connection_context():
            build(database._database, rows)
        size = (Path(folder) / "ledger.db").stat().st_size / 10**9
        print(f"{rows:,} rows, {size:.1f} GB, built in {time.perf_counter() - began:.0f} s")
        with database.reading() as connection:
            queries = [UsageQuery(by="day"), UsageQuery(by="model"), UsageQuery(by="key")]
            ratios = [compare(connection, query) for query in queries]
        database.close()
    sys.exit(1 if rows >= ROWS and min(ratios) < LIMIT else 0)


if __name__ == "__main__":
    main()
