"""Organizations: who pays."""

import peewee


def up(migrator, database):
    class Org(database.Model):
        id = peewee.CharField(primary_key=True)
        name = peewee.CharField(unique=True)
        created_at = peewee.IntegerField()

        class Meta:
            table_name = "org"

    database.create_tables([Org])


def down(migrator, database):
    database.execute_sql("DROP TABLE org")
