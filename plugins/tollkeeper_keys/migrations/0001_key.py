"""Virtual keys: the hash of each secret, never the secret."""

import peewee


def up(migrator, database):
    class Key(database.Model):
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

    database.create_tables([Key])


def down(migrator, database):
    database.execute_sql("DROP TABLE keys_key")
