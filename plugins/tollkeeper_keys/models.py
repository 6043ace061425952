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
    models = peewee.TextField(null=True)
    """A JSON array of the models it may ask for, null for all."""
    expires_at = peewee.IntegerField(null=True)
    last_used_at = peewee.IntegerField(null=True)
    previous_hash = peewee.CharField(null=True, unique=True)
    """Of the secret before the last rotation, which is valid until `previous_until`."""
    previous_until = peewee.IntegerField(null=True)

    class Meta:
        table_name = "keys_key"
