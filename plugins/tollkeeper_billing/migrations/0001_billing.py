"""Customers, checkouts, credits, reversals, events, draws, meter events."""

TABLES = (
    "CREATE TABLE billing_state (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "CREATE TABLE billing_customer (org TEXT PRIMARY KEY, nonce TEXT NOT NULL,"
    " email TEXT NOT NULL, customer TEXT UNIQUE, plan TEXT NOT NULL, status TEXT NOT NULL,"
    " subscription TEXT NOT NULL, period_start INTEGER NOT NULL, period_end INTEGER NOT NULL,"
    " prices TEXT NOT NULL, is_paid INTEGER NOT NULL,"
    " heard INTEGER NOT NULL, looked INTEGER NOT NULL,"
    " topup_pack TEXT NOT NULL, topup_below_nanousd INTEGER NOT NULL, topup_error TEXT NOT NULL)",
    "CREATE TABLE billing_checkout (id TEXT PRIMARY KEY, org TEXT NOT NULL, kind TEXT NOT NULL,"
    " name TEXT NOT NULL, cents INTEGER NOT NULL, credit_nanousd INTEGER NOT NULL,"
    " customer TEXT NOT NULL, session TEXT UNIQUE, payment_intent TEXT UNIQUE,"
    " paid_cents INTEGER NOT NULL, reversed_nanousd INTEGER NOT NULL, status TEXT NOT NULL,"
    " made_by TEXT NOT NULL, created_at INTEGER NOT NULL)",
    "CREATE INDEX billing_checkout_org ON billing_checkout (org, created_at)",
    "CREATE INDEX billing_checkout_status ON billing_checkout (status, created_at)",
    "CREATE TABLE billing_credit (id INTEGER PRIMARY KEY AUTOINCREMENT, org TEXT NOT NULL,"
    " kind TEXT NOT NULL, amount_nanousd INTEGER NOT NULL, source TEXT NOT NULL UNIQUE,"
    " note TEXT NOT NULL, created_at INTEGER NOT NULL)",
    "CREATE INDEX billing_credit_org ON billing_credit (org, id)",
    "CREATE TABLE billing_reversal (id TEXT PRIMARY KEY, payment_intent TEXT NOT NULL,"
    " cents INTEGER NOT NULL, rank INTEGER NOT NULL, counts INTEGER NOT NULL,"
    " created_at INTEGER NOT NULL)",
    "CREATE INDEX billing_reversal_payment ON billing_reversal (payment_intent)",
    "CREATE TABLE billing_event (id TEXT PRIMARY KEY, type TEXT NOT NULL,"
    " outcome TEXT NOT NULL, received_at INTEGER NOT NULL)",
    "CREATE INDEX billing_event_received ON billing_event (received_at)",
    "CREATE TABLE billing_purse (org TEXT PRIMARY KEY, charged_nanousd INTEGER NOT NULL,"
    " metered_nanousd INTEGER NOT NULL, exempt_nanousd INTEGER NOT NULL,"
    " units INTEGER NOT NULL,"
    " included_nanousd INTEGER NOT NULL, lapsing_nanousd INTEGER NOT NULL,"
    " included_of TEXT NOT NULL, included_start INTEGER NOT NULL,"
    " included_until INTEGER NOT NULL)",
    "CREATE TABLE billing_draw (org TEXT NOT NULL, day INTEGER NOT NULL,"
    " charged_nanousd INTEGER NOT NULL, included_nanousd INTEGER NOT NULL,"
    " metered_nanousd INTEGER NOT NULL, PRIMARY KEY (org, day)) WITHOUT ROWID",
    "CREATE TABLE billing_meter_event (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " org TEXT NOT NULL, day INTEGER NOT NULL, units INTEGER NOT NULL, meter TEXT NOT NULL,"
    " identifier TEXT NOT NULL UNIQUE, customer TEXT NOT NULL, at INTEGER NOT NULL,"
    " state TEXT NOT NULL, first_try INTEGER NOT NULL, last_try INTEGER NOT NULL,"
    " next_try INTEGER NOT NULL, tries INTEGER NOT NULL, error TEXT NOT NULL)",
    "CREATE INDEX billing_meter_event_state ON billing_meter_event (state, org, id)",
    "CREATE INDEX billing_meter_event_day ON billing_meter_event (org, day)",
    "CREATE TABLE billing_lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL,"
    " until INTEGER NOT NULL)",
)
NAMES = (
    *("lease", "meter_event", "draw", "purse", "event"),
    *("reversal", "credit", "checkout", "customer", "state"),
)


def up(migrator, database):
    for statement in TABLES:
        database.execute_sql(statement)


def down(migrator, database):
    for name in NAMES:
        database.execute_sql(f"DROP TABLE billing_{name}")
