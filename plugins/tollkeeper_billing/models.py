"""The tables of billing. Amounts are nano-USD or US cents, by their names; moments Unix seconds."""

import peewee

DatabaseError = peewee.PeeweeException
"""The database did not do what it was asked to."""
total = peewee.fn.SUM
"""The sum of a column; None over no rows."""
newest = peewee.fn.MAX
"""The greatest of a column; None over no rows."""


class State(peewee.Model):
    """What is true of the whole: `since`, from when on charges are drawn from balances."""

    name = peewee.CharField(primary_key=True)
    value = peewee.IntegerField()

    class Meta:
        table_name = "billing_state"


class Customer(peewee.Model):
    """An organization at Stripe, and its subscription as Stripe told it last."""

    org = peewee.CharField(primary_key=True)
    nonce = peewee.CharField()
    """What its customer is made under, so that it is made once."""
    email = peewee.CharField()
    customer = peewee.CharField(null=True)
    """Its id, None until Stripe has answered."""
    plan = peewee.CharField()
    """Name in the TOML, empty without a plan."""
    status = peewee.CharField()
    """Stripe's word for the subscription's, empty without one."""
    subscription = peewee.CharField()
    period_start = peewee.IntegerField()
    period_end = peewee.IntegerField()
    prices = peewee.CharField()
    """Their ids at Stripe, by spaces."""
    is_paid = peewee.BooleanField()
    """Whether none of its invoices waits to be paid."""
    heard = peewee.IntegerField()
    """How many events said that something changed."""
    looked = peewee.IntegerField()
    """How many of them had come when Stripe was asked last."""
    topup_pack = peewee.CharField()
    """Which pack is bought when the balance falls low, empty for none."""
    topup_below_nanousd = peewee.IntegerField()
    topup_error = peewee.CharField()
    """Why the last one failed, and none is bought until the organization says so again."""

    class Meta:
        table_name = "billing_customer"


class Checkout(peewee.Model):
    """Something that an organization wants to buy, as it was offered. The authority on its price.

    `kind` is pack, plan or topup; `status` is open, paid or closed.
    """

    id = peewee.CharField(primary_key=True)
    org = peewee.CharField()
    kind = peewee.CharField()
    name = peewee.CharField()
    cents = peewee.IntegerField()
    credit_nanousd = peewee.IntegerField()
    customer = peewee.CharField()
    session = peewee.CharField(null=True)
    payment_intent = peewee.CharField(null=True)
    paid_cents = peewee.IntegerField()
    """With taxes; 0 until it is paid."""
    reversed_nanousd = peewee.IntegerField()
    """Of the credit, what refunds and disputes took back."""
    status = peewee.CharField()
    made_by = peewee.CharField()
    created_at = peewee.IntegerField()

    class Meta:
        table_name = "billing_checkout"


class Credit(peewee.Model):
    """A change of a balance that is no charge. Written once; each source counts once."""

    id = peewee.AutoField()
    org = peewee.CharField()
    kind = peewee.CharField()
    """pack, topup, included, lapse, reversal, grant or opening."""
    amount_nanousd = peewee.IntegerField()
    source = peewee.CharField(unique=True)
    note = peewee.CharField()
    created_at = peewee.IntegerField()

    class Meta:
        table_name = "billing_credit"


class Reversal(peewee.Model):
    """A refund or a dispute by its id at Stripe; of its states the highest rank is the last."""

    id = peewee.CharField(primary_key=True)
    payment_intent = peewee.CharField(index=True)
    cents = peewee.IntegerField()
    rank = peewee.IntegerField()
    counts = peewee.BooleanField()
    """Whether the money is back with the customer."""
    created_at = peewee.IntegerField()

    class Meta:
        table_name = "billing_reversal"


class Event(peewee.Model):
    """A webhook event whose effect is in force."""

    id = peewee.CharField(primary_key=True)
    type = peewee.CharField()
    outcome = peewee.CharField()
    received_at = peewee.IntegerField(index=True)

    class Meta:
        table_name = "billing_event"


class Purse(peewee.Model):
    """How far the charges of an organization were drawn, and from what."""

    org = peewee.CharField(primary_key=True)
    charged_nanousd = peewee.IntegerField()
    metered_nanousd = peewee.IntegerField()
    """Of it, what Stripe bills by a meter."""
    exempt_nanousd = peewee.IntegerField()
    """Of it, what was used while the organization was exempt."""
    units = peewee.IntegerField()
    """Cents of that which stand in meter events."""
    included_nanousd = peewee.IntegerField()
    """What is left of the allowance of a plan."""
    lapsing_nanousd = peewee.IntegerField()
    """Of what is left, what is of an earlier period."""
    included_of = peewee.CharField()
    """Which subscription the newest allowance is of, by its id at Stripe."""
    included_start = peewee.IntegerField()
    included_until = peewee.IntegerField()

    class Meta:
        table_name = "billing_purse"


class Draw(peewee.Model):
    """What an organization was charged on a day (of UTC, in which holds were made), as drawn."""

    org = peewee.CharField()
    day = peewee.IntegerField()
    charged_nanousd = peewee.IntegerField()
    included_nanousd = peewee.IntegerField()
    metered_nanousd = peewee.IntegerField()

    class Meta:
        table_name = "billing_draw"
        primary_key = peewee.CompositeKey("org", "day")


class MeterEvent(peewee.Model):
    """Cents that Stripe is to bill. `state` is waiting, unsure, sent or dead."""

    id = peewee.AutoField()
    org = peewee.CharField()
    day = peewee.IntegerField()
    units = peewee.IntegerField()
    meter = peewee.CharField()
    identifier = peewee.CharField(unique=True)
    customer = peewee.CharField()
    at = peewee.IntegerField()
    state = peewee.CharField()
    first_try = peewee.IntegerField()
    """Of those that may have arrived, 0 while none has."""
    last_try = peewee.IntegerField()
    next_try = peewee.IntegerField()
    tries = peewee.IntegerField()
    error = peewee.CharField()

    class Meta:
        table_name = "billing_meter_event"


class Lease(peewee.Model):
    """Who may send now."""

    name = peewee.CharField(primary_key=True)
    holder = peewee.CharField()
    until = peewee.IntegerField()

    class Meta:
        table_name = "billing_lease"
