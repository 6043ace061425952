"""Organizations and their members. Every query begins at the organization of the caller."""

from dataclasses import dataclass
from typing import Any

from tollkeeper import Org, Refused
from tollkeeper_accounts.models import Invitation, Member, User
from tollkeeper_accounts.service import Account, aged_id, get_user, new_id

MANY_ORGS = 100
"""That a user may belong to, to make another."""
OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Membership:
    """An organization, and what a user is in it."""

    id: str
    name: str
    role: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Person:
    """A member, as the organization sees them."""

    id: str
    email: str
    role: str
    user: str


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes an organization."""

    user: str
    org: str
    role: str


def not_found(what: str) -> Refused:
    """The same for what belongs to others as for what is not there."""
    return Refused(404, "not_found", f"There is no such {what}.")


def create_org(database: Any, user: str, name: str, now: int) -> Membership:  # noqa: ANN401
    """A new organization, owned by its maker. Raises `Refused` where the name is taken."""
    # A name that is another one's id would be that one, for whoever may write either.
    taken = Org.select(Org.id).where((Org.name == name) | (Org.id == name)).limit(1)
    if list(taken.tuples().execute(database)):
        raise Refused(409, "conflict", "This name is taken.", param="name")
    if Member.select().where(Member.user == user).count(database) >= MANY_ORGS:
        raise Refused(409, "conflict", f"A user belongs to {MANY_ORGS} organizations at most.")
    org = new_id("org")
    Org.insert(id=org, name=name, created_at=now).execute(database)
    add_member(database, org, user, OWNER)
    return Membership(org, name, OWNER, now)


def find_or_create_org(database: Any, name: str, now: int) -> str:  # noqa: ANN401
    """The id of the organization of this id or name; made, with nobody in it, if there is none."""
    found = Org.select(Org.id).where((Org.id == name) | (Org.name == name)).order_by(Org.id != name)
    for (org,) in found.limit(1).tuples().execute(database):
        return str(org)
    org = new_id("org")
    Org.insert(id=org, name=name, created_at=now).execute(database)
    return org


def add_member(database: Any, org: str, user: str, role: str) -> str:  # noqa: ANN401
    """Let a user in; the id of the membership. Raises `Refused` for one who is in already."""
    there = Member.select(Member.id).where(Member.org == org, Member.user == user).limit(1)
    if list(there.tuples().execute(database)):
        raise Refused(409, "conflict", "Already a member of this organization.")
    member = aged_id("mem")
    Member.insert(id=member, org=org, user=user, role=role).execute(database)
    return member


def memberships(database: Any, user: str) -> list[Membership]:  # noqa: ANN401
    """The organizations of a user, the one joined last first."""
    rows = Member.select(Org.id, Org.name, Member.role, Org.created_at)
    rows = rows.join(Org, on=(Org.id == Member.org)).where(Member.user == user)
    return [Membership(*row) for row in rows.order_by(Member.id.desc()).tuples().execute(database)]


def membership(database: Any, org: str, user: str) -> Membership:  # noqa: ANN401
    """An organization as its member sees it. Raises `Refused` for others."""
    for found in memberships(database, user):
        if found.id == org:
            return found
    raise not_found("organization")


def read_me(database: Any, user: str) -> tuple[Account, list[Membership]]:  # noqa: ANN401
    """A user, and their organizations."""
    account = get_user(database, user)
    if account is None:
        raise not_found("user")
    return account, memberships(database, user)


def members(database: Any, org: str) -> list[Person]:  # noqa: ANN401
    """Who is in an organization, oldest first."""
    rows = _people(org).order_by(Member.id)
    return [Person(*row) for row in rows.tuples().execute(database)]


def change_role(database: Any, actor: Actor, member: str, role: str) -> Person:  # noqa: ANN401
    """Give a member another role. Raises `Refused` where the actor may not, or nobody would own."""
    person = _member(database, actor.org, member)
    if actor.role != OWNER and OWNER in (role, person.role):
        raise _only_owners()
    if role == person.role:
        return person
    _keep_an_owner(database, actor.org, person)
    Member.update(role=role).where(Member.org == actor.org, Member.id == member).execute(database)
    _withdraw_invitations(database, actor.org, person.user)
    return Person(person.id, person.email, role, person.user)


def remove_member(database: Any, actor: Actor, member: str) -> Person:  # noqa: ANN401
    """Let a member go. Raises `Refused` where the actor may not, or nobody would own."""
    person = _member(database, actor.org, member)
    if person.user != actor.user:
        if actor.role not in (OWNER, "admin"):
            raise Refused(403, "auth_error", "Only owners and admins may remove others.")
        if person.role == OWNER and actor.role != OWNER:
            raise _only_owners()
    _keep_an_owner(database, actor.org, person)
    Member.delete().where(Member.org == actor.org, Member.id == member).execute(database)
    _withdraw_invitations(database, actor.org, person.user)
    return person


def _people(org: str) -> Any:  # noqa: ANN401 -- a query
    rows = Member.select(Member.id, User.email, Member.role, Member.user)
    return rows.join(User, on=(User.id == Member.user)).where(Member.org == org)


def _member(database: Any, org: str, member: str) -> Person:  # noqa: ANN401
    for row in _people(org).where(Member.id == member).tuples().execute(database):
        return Person(*row)
    raise not_found("member")


def _keep_an_owner(database: Any, org: str, person: Person) -> None:  # noqa: ANN401
    if person.role != OWNER:
        return
    others = (Member.org == org) & (Member.role == OWNER) & (Member.id != person.id)
    if not list(Member.select(Member.id).where(others).limit(1).tuples().execute(database)):
        raise Refused(409, "conflict", "An organization needs an owner, and this is the last one.")


def _withdraw_invitations(database: Any, org: str, user: str) -> None:  # noqa: ANN401
    """Whoever is no longer what they were invites nobody, neither in advance."""
    made = (Invitation.org == org) & (Invitation.made_by == user)
    Invitation.delete().where(made).execute(database)


def _only_owners() -> Refused:
    return Refused(403, "auth_error", "Only an owner makes or unmakes owners.")
