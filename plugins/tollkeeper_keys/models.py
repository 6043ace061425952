"""The table of virtual keys."""

import peewee


class Key(peewee.Model):
    """One virtual key. `hash` is the SHA-256 of its secret, in hex."""

    id = peewee.CharField(primary_key=True)
    hash = peewee.CharField(unique=True)
    prefix = peewee.CharField()
    name = peewee.CharField()
    org = peewee.CharField(index=True)
    rpm = peewee.IntegerField(null=True)
    created_at = peewee.IntegerField()
    revoked_at = peewee.IntegerField(null=True)

    class Meta:
        table_name = "keys_key"
