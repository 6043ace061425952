"""Kept responses, each with the input items that it answers."""

import peewee


def up(migrator, database):
    class KeptResponse(database.Model):
        org = peewee.CharField()
        id = peewee.CharField()
        previous = peewee.CharField(null=True)
        input = peewee.TextField()
        response = peewee.TextField()
        created_at = peewee.IntegerField(index=True)

        class Meta:
            table_name = "responses_response"
            primary_key = peewee.CompositeKey("org", "id")

    database.create_tables([KeptResponse])


def down(migrator, database):
    database.execute_sql("DROP TABLE responses_response")
