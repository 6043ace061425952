"""The ledger: chains, prices, holds, entries, roll-ups."""

TABLES = (
    "CREATE TABLE metering_chain (id INTEGER PRIMARY KEY, started_at INTEGER NOT NULL,"
    " genesis BLOB NOT NULL, seq INTEGER NOT NULL, head BLOB NOT NULL,"
    " open_from INTEGER NOT NULL)",
    "CREATE TABLE metering_price (version TEXT PRIMARY KEY, price TEXT NOT NULL)",
    "CREATE TABLE metering_hold (id INTEGER PRIMARY KEY, chain INTEGER NOT NULL,"
    " seq INTEGER NOT NULL, attempt_id TEXT NOT NULL, exchange_id TEXT NOT NULL,"
    " number INTEGER NOT NULL, org TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,"
    " deployment TEXT NOT NULL, price TEXT NOT NULL, amount_nanousd INTEGER NOT NULL,"
    " held_at INTEGER NOT NULL, hash BLOB NOT NULL)",
    "CREATE TABLE metering_entry (hold INTEGER PRIMARY KEY REFERENCES metering_hold (id),"
    " chain INTEGER NOT NULL, seq INTEGER NOT NULL, state TEXT NOT NULL,"
    " evidence TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,"
    " cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,"
    " reasoning_tokens INTEGER NOT NULL, cost_nanousd INTEGER NOT NULL,"
    " charge_nanousd INTEGER NOT NULL, exposure_nanousd INTEGER NOT NULL,"
    " settled_at INTEGER NOT NULL, hash BLOB NOT NULL)",
    "CREATE TABLE metering_rollup (span INTEGER NOT NULL, start INTEGER NOT NULL,"
    " org TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, attempts INTEGER NOT NULL,"
    " requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL,"
    " output_tokens INTEGER NOT NULL, cache_read_tokens INTEGER NOT NULL,"
    " cache_write_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,"
    " cost_nanousd INTEGER NOT NULL, charge_nanousd INTEGER NOT NULL,"
    " exposure_nanousd INTEGER NOT NULL, PRIMARY KEY (span, start, org, key, model))"
    " WITHOUT ROWID",
)


def up(migrator, database):
    for statement in TABLES:
        database.execute_sql(statement)


def down(migrator, database):
    for name in ("rollup", "entry", "hold", "price", "chain"):
        database.execute_sql(f"DROP TABLE metering_{name}")
