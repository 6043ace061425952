"""The tables of the ledger. Rows of holds and entries are written once and never changed."""

import peewee


class Chain(peewee.Model):
    """One writer's chain of hashes, from one start to its stop. Holds its newest link."""

    id = peewee.IntegerField(primary_key=True)
    started_at = peewee.IntegerField()
    genesis = peewee.BlobField()
    """The newest link of the chain before it; 32 zero bytes for the first."""
    seq = peewee.IntegerField()
    """Number of links so far."""
    head = peewee.BlobField()
    """The newest link."""
    open_from = peewee.IntegerField()
    """No hold with a smaller id is open."""

    class Meta:
        table_name = "metering_chain"


class Price(peewee.Model):
    """A price that holds were counted by. The version is made from its text."""

    version = peewee.CharField(primary_key=True)
    price = peewee.TextField()
    """JSON."""

    class Meta:
        table_name = "metering_price"


class HoldRow(peewee.Model):
    """What one attempt might cost, written before it was sent."""

    id = peewee.IntegerField(primary_key=True)
    chain = peewee.IntegerField()
    seq = peewee.IntegerField()
    attempt_id = peewee.CharField()
    exchange_id = peewee.CharField()
    number = peewee.IntegerField()
    org = peewee.CharField()
    key = peewee.CharField()
    model = peewee.CharField()
    deployment = peewee.CharField()
    price = peewee.CharField()
    amount_nanousd = peewee.IntegerField()
    held_at = peewee.IntegerField()
    hash = peewee.BlobField()

    class Meta:
        table_name = "metering_hold"


class Entry(peewee.Model):
    """How an attempt ended: one for each hold, which its primary key is."""

    hold = peewee.IntegerField(primary_key=True)
    chain = peewee.IntegerField()
    seq = peewee.IntegerField()
    state = peewee.CharField()
    evidence = peewee.CharField()
    input_tokens = peewee.IntegerField()
    output_tokens = peewee.IntegerField()
    cache_read_tokens = peewee.IntegerField()
    cache_write_tokens = peewee.IntegerField()
    reasoning_tokens = peewee.IntegerField()
    cost_nanousd = peewee.IntegerField()
    charge_nanousd = peewee.IntegerField()
    exposure_nanousd = peewee.IntegerField()
    settled_at = peewee.IntegerField()
    hash = peewee.BlobField()

    class Meta:
        table_name = "metering_entry"


class Rollup(peewee.Model):
    """Entries of one hour or one day, by org, key and model."""

    span = peewee.IntegerField()
    """Seconds: 3600 or 86400."""
    start = peewee.IntegerField()
    """Unix seconds; hours and days of UTC, in which the hold was made."""
    org = peewee.CharField()
    key = peewee.CharField()
    model = peewee.CharField()
    attempts = peewee.IntegerField()
    requests = peewee.IntegerField()
    input_tokens = peewee.IntegerField()
    output_tokens = peewee.IntegerField()
    cache_read_tokens = peewee.IntegerField()
    cache_write_tokens = peewee.IntegerField()
    reasoning_tokens = peewee.IntegerField()
    cost_nanousd = peewee.IntegerField()
    charge_nanousd = peewee.IntegerField()
    exposure_nanousd = peewee.IntegerField()

    class Meta:
        table_name = "metering_rollup"
        primary_key = peewee.CompositeKey("span", "start", "org", "key", "model")
