"""What a key may ask for and until when, its last use, and the secret that a rotation replaced."""

import peewee


def up(migrator, database):
    migrator.migrate(
        migrator.add_column("keys_key", "models", peewee.TextField(null=True)),
        migrator.add_column("keys_key", "expires_at", peewee.IntegerField(null=True)),
        migrator.add_column("keys_key", "last_used_at", peewee.IntegerField(null=True)),
        migrator.add_column("keys_key", "previous_hash", peewee.CharField(null=True)),
        migrator.add_column("keys_key", "previous_until", peewee.IntegerField(null=True)),
    )
    # Nulls are no duplicates of each other.
    database.execute_sql("CREATE UNIQUE INDEX keys_key_previous_hash ON keys_key (previous_hash)")


def down(migrator, database):
    database.execute_sql("DROP INDEX keys_key_previous_hash")
    for column in ("previous_until", "previous_hash", "last_used_at", "expires_at", "models"):
        migrator.migrate(migrator.drop_column("keys_key", column))
