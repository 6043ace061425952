"""Users and their sessions. Knows neither HTTP nor hooks.

Every function takes peewee's database first, and runs in the transaction of whoever calls it.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

import peewee

from tollkeeper import Org, Refused
from tollkeeper.management import Caller
from tollkeeper_accounts.models import Member, RefreshToken, Session, User
from tollkeeper_accounts.tokens import Claims

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Account:
    """A user, with the hash of their password."""

    id: str
    email: str
    password: str
    epoch: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A session as of now, and the one refresh token that carries it on."""

    user: str
    epoch: int
    session: str
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds that tokens live."""

    access: int
    refresh: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Who an access token is of, and what they are in the organization that is meant."""

    email: str
    org: str
    """Empty where they are no member of it, or of none."""
    role: str


def normal_email(email: str) -> str:
    """An address as it is stored and compared."""
    return email.strip().lower()


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return f"{prefix}_{secrets.token_hex(8)}"


def aged_id(prefix: str) -> str:
    """An id that sorts by age."""
    return f"{prefix}_{time.time_ns():016x}{secrets.token_hex(4)}"


def new_secret(prefix: str) -> str:
    """A secret of 256 random bits."""
    return prefix + secrets.token_urlsafe(SECRET_BYTES)


DAY = 86_400


def hash_of(secret: str) -> str:
    """What is stored of a secret. Its 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def has_users(database: Any) -> bool:  # noqa: ANN401
    """Whether anybody ever registered."""
    return bool(list(User.select(User.id).limit(1).tuples().execute(database)))


def add_user(database: Any, email: str, password: str, now: int) -> Account:  # noqa: ANN401
    """A new user; `password` is its hash. Raises `Refused` where the address is taken."""
    if find_user(database, email) is not None:
        raise address_taken()
    account = Account(new_id("usr"), email, password, 0, now)
    User.insert(id=account.id, email=email, password=password, epoch=0, created_at=now).execute(
        database
    )
    return account


def address_taken() -> Refused:
    """The refusal of an e-mail address that somebody has."""
    return Refused(409, "conflict", "This e-mail address is registered already.", param="email")


def find_user(database: Any, email: str) -> Account | None:  # noqa: ANN401
    """The user of an e-mail address."""
    return _find(database, User.email == email)


def get_user(database: Any, user: str) -> Account | None:  # noqa: ANN401
    """The user of an id."""
    return _find(database, User.id == user)


def _find(database: Any, which: Any) -> Account | None:  # noqa: ANN401
    rows = User.select(User.id, User.email, User.password, User.epoch, User.created_at)
    return next((Account(*row) for row in rows.where(which).tuples().execute(database)), None)


def list_users(database: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """All users, oldest first, each with their organizations."""
    users = User.select(User.id, User.email, User.created_at).order_by(User.created_at, User.id)
    found = {row["id"]: {**row, "orgs": []} for row in users.dicts().execute(database)}
    rows = Member.select(Member.user, Member.org, Org.name, Member.role)
    rows = rows.join(Org, on=(Org.id == Member.org)).order_by(Member.id)
    for user, org, name, role in rows.tuples().execute(database):
        found[user]["orgs"].append({"id": org, "name": name, "role": role})
    return list(found.values())


def rehash(database: Any, account: Account, password: str) -> None:  # noqa: ANN401
    """Store a better hash of the same password, unless it changed meanwhile."""
    same = (User.id == account.id) & (User.password == account.password)
    User.update(password=password).where(same).execute(database)


def set_password(database: Any, user: str, old: str | None, new: str) -> bool:  # noqa: ANN401
    """Store the hash of a new password and end all sessions.

    False, and nothing done, where `old` is no longer the hash that is stored; None does not ask.
    """
    which = User.id == user if old is None else (User.id == user) & (User.password == old)
    if not User.update(password=new).where(which).execute(database):
        return False
    log_out(database, user)
    return True


def log_out(database: Any, user: str) -> None:  # noqa: ANN401
    """End everything that ever began with a login of this user."""
    User.update(epoch=User.epoch + 1).where(User.id == user).execute(database)
    for (session,) in (
        Session.select(Session.id).where(Session.user == user).tuples().execute(database)
    ):
        end_session(database, session)


def end_session(database: Any, session: str) -> None:  # noqa: ANN401
    """End one login: its access tokens and its refresh tokens."""
    RefreshToken.delete().where(RefreshToken.session == session).execute(database)
    Session.delete().where(Session.id == session).execute(database)


def session_of(token_id: str) -> str:
    """The session that an access token belongs to, by the token's id."""
    return token_id.partition(".")[0]


def open_session(
    database: Any,  # noqa: ANN401
    account: Account,
    lifetimes: Lifetimes,
    now: int,
) -> Opened | None:
    """What a login begins; None where the password changed since it was checked."""
    current = get_user(database, account.id)
    if current is None or (current.password, current.epoch) != (account.password, account.epoch):
        return None
    session = new_id("ses")
    expires = now + max(lifetimes.refresh, lifetimes.access)
    Session.insert(id=session, user=account.id, expires_at=expires).execute(database)
    token = _add_refresh_token(database, session, now + lifetimes.refresh)
    return Opened(account.id, account.epoch, session, token)


def refresh_session(
    database: Any,  # noqa: ANN401
    token: str,
    lifetimes: Lifetimes,
    now: int,
) -> Opened | None:
    """The session carried on under a new refresh token; None for a token that is not valid.

    One that was used before is in two hands: its session ends, whoever holds the newer one.
    """
    hashed = hash_of(token)
    columns = (RefreshToken.session, RefreshToken.is_used, RefreshToken.expires_at)
    rows = (
        RefreshToken.select(*columns, User.id, User.epoch)
        .join(Session, on=(Session.id == RefreshToken.session))
        .join(User, on=(User.id == Session.user))
        .where(RefreshToken.hash == hashed)
    )
    for session, is_used, expires_at, user, epoch in rows.tuples().execute(database):
        if is_used:
            end_session(database, session)
        if is_used or expires_at <= now:
            return None
        kept = min(expires_at, now + DAY)  # long enough to notice that it comes again
        used = RefreshToken.update(is_used=True, expires_at=kept)
        used.where(RefreshToken.hash == hashed).execute(database)
        expires = now + max(lifetimes.refresh, lifetimes.access)
        Session.update(expires_at=expires).where(Session.id == session).execute(database)
        return Opened(
            user, epoch, session, _add_refresh_token(database, session, now + lifetimes.refresh)
        )
    return None


def _add_refresh_token(database: Any, session: str, expires_at: int) -> str:  # noqa: ANN401
    token = new_secret("rt-")
    RefreshToken.insert(
        hash=hash_of(token), session=session, is_used=False, expires_at=expires_at
    ).execute(database)
    return token


def find_standing(database: Any, claims: Claims, org: str | None) -> Standing | None:  # noqa: ANN401
    """Who the claims are of, in the organization named, or else in the one joined last.

    None where the session has ended, the user is gone, or all their tokens were ended. One query.
    """
    ours = Member.user == User.id if org is None else (Member.user == User.id) & (Member.org == org)
    rows = (
        User.select(User.email, Member.org, Member.role)
        .join(Session, on=(Session.user == User.id))
        .join(Member, peewee.JOIN.LEFT_OUTER, on=ours)
        .where(User.id == claims.user, User.epoch == claims.epoch, Session.id == claims.session)
        .order_by(Member.id.desc())
        .limit(1)
    )
    for email, found, role in rows.tuples().execute(database):
        return Standing(email, found or "", role or "")
    return None


def goes_on(database: Any, caller: Caller) -> bool:  # noqa: ANN401
    """Whether a caller's session goes on."""
    session = Session.select().where(Session.id == session_of(caller.token))
    return session.count(database) > 0


def still_stands(database: Any, caller: Caller) -> bool:  # noqa: ANN401
    """Whether a caller is what they were in their organization."""
    here = Member.select().where(
        Member.user == caller.user, Member.org == caller.org, Member.role == caller.role
    )
    return not caller.org or bool(here.count(database))


def delete_expired(database: Any, now: int) -> None:  # noqa: ANN401
    """Forget sessions and refresh tokens that are out of date."""
    RefreshToken.delete().where(RefreshToken.expires_at <= now).execute(database)
    Session.delete().where(Session.expires_at <= now).execute(database)
