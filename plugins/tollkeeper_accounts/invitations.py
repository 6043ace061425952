"""Invitations: one-time tokens, each for one e-mail address; and registering by them."""

import hmac
from dataclasses import dataclass
from typing import Any

from tollkeeper import Refused
from tollkeeper_accounts.models import Invitation, Member, User
from tollkeeper_accounts.orgs import OWNER, Actor, Membership, add_member, membership, not_found
from tollkeeper_accounts.service import (
    Account,
    add_user,
    address_taken,
    find_user,
    has_users,
    hash_of,
    new_id,
    new_secret,
)

MANY = 1000
"""Invitations that an organization may have open at once."""


@dataclass(frozen=True, slots=True)
class Invited:
    """An invitation without its token, which nobody can read again."""

    id: str
    email: str
    role: str
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Whom to invite as what, and until when."""

    email: str
    role: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Admission:
    """By what somebody may register: as the very first, by an invitation, or by nothing at all."""

    is_first: bool = False
    invitation: str = ""


class FirstUser:
    """The one-time token for the first user of a gateway that lets nobody else in."""

    def __init__(self) -> None:
        self._token = ""

    def make(self) -> str | None:
        """The token, the first time; None afterwards."""
        if self._token:
            return None
        self._token = new_secret("inv-")
        return self._token

    def is_it(self, token: str) -> bool:
        """Whether this is the token."""
        given = token.encode("utf-8", "replace")
        return bool(self._token) and hmac.compare_digest(self._token.encode(), given)


def not_admitted() -> Refused:
    """The refusal of a registration: the same for whatever is wrong with an invitation."""
    return Refused(403, "auth_error", "Registering needs a valid invitation for this address.")


def may_register(database: Any, email: str, admission: Admission, now: int) -> None:  # noqa: ANN401
    """Raise `Refused` where nobody is let in by this. Worth asking before a password is hashed."""
    if admission.is_first and has_users(database):
        raise not_admitted()
    if admission.invitation and _find(database, admission.invitation, email, now) is None:
        raise not_admitted()
    if find_user(database, email) is not None:
        raise address_taken()


def register(
    database: Any,  # noqa: ANN401
    email: str,
    password: str,
    admission: Admission,
    now: int,
) -> Account:
    """A new user, who joins where they were invited to. Raises `Refused`."""
    may_register(database, email, admission, now)
    account = add_user(database, email, password, now)
    if admission.invitation:
        _redeem(database, account.id, admission.invitation, email, now)
    return account


def invite(database: Any, actor: Actor, terms: Terms, now: int) -> tuple[Invited, str]:  # noqa: ANN401
    """An invitation and its token. Raises `Refused` where the actor may not invite so."""
    if terms.role == OWNER and actor.role != OWNER:
        raise Refused(403, "auth_error", "Only an owner invites owners.")
    joined = Member.select(Member.id).join(User, on=(User.id == Member.user))
    joined = joined.where(Member.org == actor.org, User.email == terms.email).limit(1)
    if list(joined.tuples().execute(database)):
        raise Refused(409, "conflict", "Already a member of this organization.", param="email")
    if Invitation.select().where(Invitation.org == actor.org).count(database) >= MANY:
        raise Refused(409, "conflict", f"{MANY} invitations are open already; withdraw some.")
    same = (Invitation.org == actor.org) & (Invitation.email == terms.email)
    Invitation.delete().where(same).execute(database)  # one at a time: the last one counts
    token = new_secret("inv-")
    invited = Invited(new_id("inv"), terms.email, terms.role, now, terms.expires_at)
    Invitation.insert(
        id=invited.id,
        hash=hash_of(token),
        org=actor.org,
        email=terms.email,
        role=terms.role,
        made_by=actor.user,
        created_at=now,
        expires_at=terms.expires_at,
    ).execute(database)
    return invited, token


def invitations(database: Any, org: str, now: int) -> list[Invited]:  # noqa: ANN401
    """The invitations that are still valid, oldest first."""
    rows = _rows().where(Invitation.org == org, Invitation.expires_at > now)
    ordered = rows.order_by(Invitation.created_at, Invitation.id)
    return [Invited(*row) for row in ordered.tuples().execute(database)]


def withdraw(database: Any, org: str, invitation: str) -> Invited:  # noqa: ANN401
    """End an invitation. Raises `Refused` where there is none."""
    which = (Invitation.org == org) & (Invitation.id == invitation)
    for row in _rows().where(which).tuples().execute(database):
        Invitation.delete().where(which).execute(database)
        return Invited(*row)
    raise not_found("invitation")


def accept(
    database: Any,  # noqa: ANN401
    user: str,
    email: str,
    token: str,
    now: int,
) -> Membership:
    """Join where one was invited to. Raises `Refused` where the invitation is not for them."""
    return membership(database, _redeem(database, user, token, email, now), user)


def _redeem(database: Any, user: str, token: str, email: str, now: int) -> str:  # noqa: ANN401
    found = _find(database, token, email, now)
    if found is None:
        raise not_found("invitation for you")
    org, role = found
    add_member(database, org, user, role)
    # The others that they got for the same organization have come to their end as well.
    spent = (Invitation.org == org) & (Invitation.email == email)
    Invitation.delete().where(spent).execute(database)
    return org


def _find(database: Any, token: str, email: str, now: int) -> tuple[str, str] | None:  # noqa: ANN401
    """Organization and role of a valid invitation."""
    rows = Invitation.select(Invitation.org, Invitation.role).where(
        Invitation.hash == hash_of(token),
        Invitation.email == email,
        Invitation.expires_at > now,
    )
    return next(iter(rows.tuples().execute(database)), None)


def _rows() -> Any:  # noqa: ANN401 -- a query
    return Invitation.select(
        Invitation.id,
        Invitation.email,
        Invitation.role,
        Invitation.created_at,
        Invitation.expires_at,
    )


def delete_expired(database: Any, now: int) -> None:  # noqa: ANN401
    """Forget invitations that are out of date."""
    Invitation.delete().where(Invitation.expires_at <= now).execute(database)
