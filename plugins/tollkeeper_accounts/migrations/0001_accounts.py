"""Users, members, invitations, sessions, idempotency keys, and the audit log."""

import peewee

TABLES = (
    "accounts_user",
    "accounts_member",
    "accounts_invitation",
    "accounts_session",
    "accounts_refresh_token",
    "accounts_claim",
    "accounts_audit",
)


def up(migrator, database):
    make_people(database)
    make_sessions(database)
    make_log(database)


def make_people(database):
    class User(database.Model):
        id = peewee.CharField(primary_key=True)
        email = peewee.CharField(unique=True)
        password = peewee.CharField()
        epoch = peewee.IntegerField()
        created_at = peewee.IntegerField()

        class Meta:
            table_name = "accounts_user"

    class Member(database.Model):
        id = peewee.CharField(primary_key=True)
        org = peewee.CharField()
        user = peewee.CharField(index=True)
        role = peewee.CharField()

        class Meta:
            table_name = "accounts_member"
            indexes = ((("org", "user"), True),)

    class Invitation(database.Model):
        id = peewee.CharField(primary_key=True)
        hash = peewee.CharField(unique=True)
        org = peewee.CharField(index=True)
        email = peewee.CharField()
        role = peewee.CharField()
        made_by = peewee.CharField()
        created_at = peewee.IntegerField()
        expires_at = peewee.IntegerField()

        class Meta:
            table_name = "accounts_invitation"

    database.create_tables([User, Member, Invitation])


def make_sessions(database):
    class Session(database.Model):
        id = peewee.CharField(primary_key=True)
        user = peewee.CharField(index=True)
        expires_at = peewee.IntegerField(index=True)

        class Meta:
            table_name = "accounts_session"

    class RefreshToken(database.Model):
        hash = peewee.CharField(primary_key=True)
        session = peewee.CharField(index=True)
        is_used = peewee.BooleanField()
        expires_at = peewee.IntegerField(index=True)

        class Meta:
            table_name = "accounts_refresh_token"

    database.create_tables([Session, RefreshToken])


def make_log(database):
    class Claim(database.Model):
        user = peewee.CharField()
        key = peewee.CharField()
        digest = peewee.CharField()
        status = peewee.IntegerField()
        body = peewee.BlobField()
        created_at = peewee.IntegerField(index=True)

        class Meta:
            table_name = "accounts_claim"
            primary_key = peewee.CompositeKey("user", "key")

    class Audit(database.Model):
        id = peewee.CharField(primary_key=True)
        at = peewee.IntegerField()
        org = peewee.CharField()
        user = peewee.CharField()
        email = peewee.CharField()
        action = peewee.CharField()
        target = peewee.CharField()

        class Meta:
            table_name = "accounts_audit"
            indexes = ((("org", "id"), False),)

    database.create_tables([Claim, Audit])


def down(migrator, database):
    for name in TABLES:
        migrator.migrate(migrator.drop_table(name))
