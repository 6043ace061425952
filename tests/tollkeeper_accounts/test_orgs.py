"""Organizations and their members."""

from collections.abc import Callable
from typing import Any

import pytest

from tollkeeper import Refused, ensure_org
from tollkeeper.management import ROLES
from tollkeeper_accounts import orgs, service
from tollkeeper_accounts.orgs import Actor, Membership
from tollkeeper_accounts.service import Account

Run = Callable[..., Any]
NOW = 1_000_000


def refused(run: Run, work: Callable[..., Any], *args: object) -> int:
    """The status that a call is refused with."""
    with pytest.raises(Refused) as caught:
        run(work, *args)
    return caught.value.status


@pytest.fixture
def acme(run: Run, ann: Account) -> str:
    """An organization of Ann's."""
    return str(run(orgs.create_org, ann.id, "acme", NOW).id)


def actor(account: Account, org: str, role: str = "owner") -> Actor:
    return Actor(account.id, org, role)


def member_id(run: Run, org: str, account: Account) -> str:
    return next(str(p.id) for p in run(orgs.members, org) if p.user == account.id)


def roles(run: Run, org: str) -> dict[str, str]:
    return {person.email.partition("@")[0]: person.role for person in run(orgs.members, org)}


def test_whoever_makes_an_organization_owns_it(run: Run, ann: Account, bob: Account) -> None:
    made = run(orgs.create_org, ann.id, "acme", NOW)
    assert made == Membership(made.id, "acme", "owner", NOW)
    assert made.id.startswith("org_")
    assert run(orgs.memberships, ann.id) == [made]
    assert run(orgs.membership, made.id, ann.id) == made
    assert refused(run, orgs.membership, made.id, bob.id) == 404
    assert refused(run, orgs.membership, "org_none", ann.id) == 404


def test_a_name_is_taken_once_and_cannot_be_anothers_id(run: Run, ann: Account, acme: str) -> None:
    for name in ("acme", "default", acme):
        assert refused(run, orgs.create_org, ann.id, name, NOW) == 409
    assert len(run(orgs.memberships, ann.id)) == 1


def test_an_organization_is_found_by_id_or_name_or_made_without_anybody(
    run: Run, acme: str
) -> None:
    for name in ("acme", acme):
        assert run(orgs.find_or_create_org, name, NOW) == acme
    assert run(orgs.find_or_create_org, "default", NOW) == "default"
    new = run(orgs.find_or_create_org, "new", NOW)
    assert run(orgs.members, new) == []
    assert run(ensure_org, "new") == new


def test_organizations_of_a_user_begin_with_the_one_joined_last(
    run: Run, ann: Account, bob: Account, acme: str
) -> None:
    theirs = run(orgs.create_org, bob.id, "theirs", NOW - 1000).id
    run(orgs.add_member, theirs, ann.id, "member")
    assert [org.id for org in run(orgs.memberships, ann.id)] == [theirs, acme]
    assert refused(run, orgs.add_member, theirs, ann.id, "owner") == 409
    account, found = run(orgs.read_me, ann.id)
    assert (account, len(found)) == (ann, 2)


@pytest.mark.parametrize("by", ["owner", "admin"])
@pytest.mark.parametrize("old", ROLES)
@pytest.mark.parametrize("new", ROLES)
def test_managers_give_roles_and_only_owners_make_or_unmake_owners(
    run: Run, ann: Account, bob: Account, acme: str, by: str, old: str, new: str
) -> None:
    run(orgs.add_member, acme, bob.id, old)
    change = (actor(ann, acme, by), member_id(run, acme, bob), new)
    if by == "admin" and "owner" in (old, new):
        assert refused(run, orgs.change_role, *change) == 403
        assert roles(run, acme)["bob"] == old
    else:
        assert run(orgs.change_role, *change).role == new
        assert roles(run, acme)["bob"] == new


def test_the_last_owner_stays_one(run: Run, ann: Account, bob: Account, acme: str) -> None:
    mine = member_id(run, acme, ann)
    run(orgs.add_member, acme, bob.id, "admin")
    assert refused(run, orgs.change_role, actor(ann, acme), mine, "admin") == 409
    assert refused(run, orgs.remove_member, actor(ann, acme), mine) == 409
    assert run(orgs.change_role, actor(ann, acme), mine, "owner").role == "owner"
    run(orgs.change_role, actor(ann, acme), member_id(run, acme, bob), "owner")
    run(orgs.change_role, actor(ann, acme), mine, "billing")
    assert roles(run, acme) == {"ann": "billing", "bob": "owner"}
    # Two owners that unmake each other: the second request knew a role that is gone.
    theirs = member_id(run, acme, bob)
    assert refused(run, orgs.change_role, actor(ann, acme), theirs, "member") == 409


@pytest.mark.parametrize("by", ROLES)
@pytest.mark.parametrize("role", ROLES)
def test_who_may_remove_whom(
    run: Run, ann: Account, bob: Account, acme: str, by: str, role: str
) -> None:
    run(orgs.add_member, acme, bob.id, role)
    removal = (actor(ann, acme, by), member_id(run, acme, bob))
    if by == "owner" or (by == "admin" and role != "owner"):
        assert run(orgs.remove_member, *removal).email == bob.email
        assert roles(run, acme) == {"ann": "owner"}
    else:
        assert refused(run, orgs.remove_member, *removal) == 403
        assert len(roles(run, acme)) == 2


@pytest.mark.parametrize("role", ROLES)
def test_whoever_is_in_may_leave(run: Run, bob: Account, acme: str, role: str) -> None:
    run(orgs.add_member, acme, bob.id, role)
    run(orgs.remove_member, actor(bob, acme, role), member_id(run, acme, bob))
    assert roles(run, acme) == {"ann": "owner"}


def test_a_member_of_another_organization_is_as_absent_as_none(
    run: Run, ann: Account, bob: Account, acme: str
) -> None:
    theirs = run(orgs.create_org, bob.id, "theirs", NOW).id
    foreign = member_id(run, theirs, bob)
    for member in (foreign, "mem_none", ""):
        for work, rest in ((orgs.change_role, ("member",)), (orgs.remove_member, ())):
            assert refused(run, work, actor(ann, acme), member, *rest) == 404
    assert roles(run, theirs) == {"bob": "owner"}


def test_a_user_is_asked_for_who_is_there(run: Run) -> None:
    assert refused(run, orgs.read_me, "usr_none") == 404
    assert run(service.list_users) == []
