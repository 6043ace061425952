"""The tables of users, organizations' members, sessions, and what was written by whom."""

import peewee

DatabaseError = peewee.PeeweeException
"""The database did not do what it was asked to."""


class User(peewee.Model):
    """Somebody who can log in. Tokens of an earlier `epoch` than the user's are void."""

    id = peewee.CharField(primary_key=True)
    email = peewee.CharField(unique=True)
    password = peewee.CharField()
    epoch = peewee.IntegerField()
    created_at = peewee.IntegerField()

    class Meta:
        table_name = "accounts_user"


class Member(peewee.Model):
    """A user in an organization. Ids sort by age."""

    id = peewee.CharField(primary_key=True)
    org = peewee.CharField()
    user = peewee.CharField(index=True)
    role = peewee.CharField()

    class Meta:
        table_name = "accounts_member"
        indexes = ((("org", "user"), True),)


class Invitation(peewee.Model):
    """One is asked to join. `hash` is the SHA-256 of the token, in hex."""

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


class Session(peewee.Model):
    """What began with a login. Without its row none of its tokens is valid."""

    id = peewee.CharField(primary_key=True)
    user = peewee.CharField(index=True)
    expires_at = peewee.IntegerField(index=True)

    class Meta:
        table_name = "accounts_session"


class RefreshToken(peewee.Model):
    """A refresh token of a session, by its SHA-256. Kept once used, to know it again."""

    hash = peewee.CharField(primary_key=True)
    session = peewee.CharField(index=True)
    is_used = peewee.BooleanField()
    expires_at = peewee.IntegerField(index=True)

    class Meta:
        table_name = "accounts_refresh_token"


class Claim(peewee.Model):
    """An idempotency key in use: what was asked, and what it came to. `status` 0 still runs."""

    user = peewee.CharField()
    key = peewee.CharField()
    digest = peewee.CharField()
    status = peewee.IntegerField()
    body = peewee.BlobField()
    created_at = peewee.IntegerField(index=True)

    class Meta:
        table_name = "accounts_claim"
        primary_key = peewee.CompositeKey("user", "key")


class Audit(peewee.Model):
    """Who wrote what. Ids sort by age; `org` is empty for what belongs to none."""

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
