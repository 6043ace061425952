"""Invitations, and who may register by what."""

from collections.abc import Callable
from typing import Any

import pytest

from tollkeeper import Refused
from tollkeeper.management import ROLES
from tollkeeper.storage import Database
from tollkeeper_accounts import invitations, orgs
from tollkeeper_accounts.invitations import Admission, FirstUser, Terms
from tollkeeper_accounts.orgs import Actor
from tollkeeper_accounts.service import Account

Run = Callable[..., Any]
NOW = 1_000_000
BOB = Terms("bob@example.com", "member", NOW + 100)


def refused(run: Run, work: Callable[..., Any], *args: object) -> int:
    """The status that a call is refused with."""
    with pytest.raises(Refused) as caught:
        run(work, *args)
    return caught.value.status


@pytest.fixture
def owner(run: Run, ann: Account) -> Actor:
    org = run(orgs.create_org, ann.id, "acme", NOW).id
    return Actor(ann.id, org, "owner")


def register(run: Run, email: str, token: str = "", now: int = NOW) -> Any:
    return run(invitations.register, email, "hash", Admission(invitation=token), now)


def test_an_invitation_lets_its_address_in_with_its_role(run: Run, owner: Actor) -> None:
    invited, token = run(invitations.invite, owner, BOB, NOW)
    assert (invited.email, invited.role, invited.expires_at) == (BOB.email, "member", NOW + 100)
    assert run(invitations.invitations, owner.org, NOW) == [invited]
    bob = register(run, BOB.email, token)
    (joined,) = run(orgs.memberships, bob.id)
    assert (joined.id, joined.role) == (owner.org, "member")
    assert run(invitations.invitations, owner.org, NOW) == []


def test_who_is_a_user_already_accepts_it(run: Run, owner: Actor, bob: Account) -> None:
    _, token = run(invitations.invite, owner, BOB, NOW)
    joined = run(invitations.accept, bob.id, bob.email, token, NOW)
    assert (joined.id, joined.name, joined.role) == (owner.org, "acme", "member")
    assert refused(run, invitations.accept, bob.id, bob.email, token, NOW) == 404


def test_an_invitation_is_good_once(run: Run, owner: Actor) -> None:
    _, token = run(invitations.invite, owner, BOB, NOW)
    bob = register(run, BOB.email, token)
    assert refused(run, invitations.may_register, BOB.email, Admission(invitation=token), NOW)
    assert refused(run, invitations.accept, bob.id, bob.email, token, NOW) == 404


def test_an_invitation_is_for_its_address_and_its_time_and_nothing_like_it_is_any(
    run: Run, owner: Actor
) -> None:
    invited, token = run(invitations.invite, owner, BOB, NOW)
    for email, given, now in (
        ("eve@example.com", token, NOW),
        (BOB.email, token + "x", NOW),
        (BOB.email, invited.id, NOW),
        (BOB.email, "inv-", NOW),
        (BOB.email, token, NOW + 100),
    ):
        admission = Admission(invitation=given)
        assert refused(run, invitations.register, email, "hash", admission, now) == 403
        assert refused(run, invitations.may_register, email, admission, now) == 403
        assert refused(run, invitations.accept, "usr_x", email, given, now) == 404
    assert register(run, BOB.email, token, NOW + 99)


def test_a_token_is_not_stored(database: Database, run: Run, owner: Actor) -> None:
    invited, token = run(invitations.invite, owner, BOB, NOW)
    dump = "".join(path.read_bytes().decode("latin-1") for path in database.path.parent.iterdir())  # type: ignore[union-attr] # it has a file
    assert invited.id in dump
    assert token[4:20] not in dump


@pytest.mark.parametrize("by", ["owner", "admin"])
@pytest.mark.parametrize("role", ROLES)
def test_only_an_owner_invites_owners(run: Run, owner: Actor, by: str, role: str) -> None:
    invite = (Actor(owner.user, owner.org, by), Terms(BOB.email, role, NOW + 100), NOW)
    if by == "admin" and role == "owner":
        assert refused(run, invitations.invite, *invite) == 403
    else:
        assert run(invitations.invite, *invite)[0].role == role


def test_a_member_is_not_invited_and_does_not_join_again(
    run: Run, owner: Actor, ann: Account, bob: Account
) -> None:
    assert refused(run, invitations.invite, owner, Terms(ann.email, "admin", NOW + 9), NOW) == 409
    _, token = run(invitations.invite, owner, BOB, NOW)
    run(orgs.add_member, owner.org, bob.id, "billing")
    assert refused(run, invitations.accept, bob.id, bob.email, token, NOW) == 409
    assert run(orgs.memberships, bob.id)[0].role == "billing"


def test_joining_spends_the_other_invitations_to_the_same_place_only(
    run: Run, owner: Actor, ann: Account, bob: Account
) -> None:
    other = Actor(ann.id, run(orgs.create_org, ann.id, "other", NOW).id, "owner")
    tokens = [run(invitations.invite, who, BOB, NOW)[1] for who in (owner, owner, other)]
    run(invitations.accept, bob.id, bob.email, tokens[1], NOW)
    assert refused(run, invitations.accept, bob.id, bob.email, tokens[0], NOW) == 404
    assert run(invitations.accept, bob.id, bob.email, tokens[2], NOW).name == "other"


def test_a_withdrawn_invitation_is_none_and_strangers_cannot_withdraw(
    run: Run, owner: Actor, bob: Account
) -> None:
    invited, token = run(invitations.invite, owner, BOB, NOW)
    theirs = run(orgs.create_org, bob.id, "theirs", NOW).id
    assert refused(run, invitations.withdraw, theirs, invited.id) == 404
    assert run(invitations.invitations, theirs, NOW) == []
    assert run(invitations.withdraw, owner.org, invited.id) == invited
    assert refused(run, invitations.withdraw, owner.org, invited.id) == 404
    assert refused(run, invitations.accept, bob.id, bob.email, token, NOW) == 404


@pytest.mark.parametrize("leaves", [True, False])
def test_the_invitations_of_whoever_leaves_or_is_given_another_role_end(
    run: Run, owner: Actor, bob: Account, leaves: bool
) -> None:
    member = run(orgs.add_member, owner.org, bob.id, "owner")
    theirs = Actor(bob.id, owner.org, "owner")
    run(invitations.invite, theirs, Terms("accomplice@example.com", "owner", NOW + 9), NOW)
    run(invitations.invite, owner, Terms("carol@example.com", "admin", NOW + 9), NOW)
    if leaves:
        run(orgs.remove_member, owner, member)
    else:
        run(orgs.change_role, owner, member, "member")
    (left,) = run(invitations.invitations, owner.org, NOW)
    assert left.email == "carol@example.com"


def test_what_is_out_of_date_is_not_listed_and_deleted(
    database: Database, run: Run, owner: Actor
) -> None:
    run(invitations.invite, owner, BOB, NOW)
    assert run(invitations.invitations, owner.org, NOW + 100) == []
    run(invitations.delete_expired, NOW + 99)
    assert len(run(invitations.invitations, owner.org, NOW)) == 1
    run(invitations.delete_expired, NOW + 100)
    assert run(invitations.invitations, owner.org, NOW) == []


def test_a_taken_address_is_a_conflict_and_its_invitation_stays(
    run: Run, owner: Actor, bob: Account
) -> None:
    _, token = run(invitations.invite, owner, BOB, NOW)
    admission = Admission(invitation=token)
    assert refused(run, invitations.register, BOB.email, "hash", admission, NOW) == 409
    assert run(invitations.accept, bob.id, bob.email, token, NOW)


def test_the_first_user_is_the_first(run: Run) -> None:
    first = Admission(is_first=True)
    run(invitations.may_register, "ann@example.com", first, NOW)
    ann = run(invitations.register, "ann@example.com", "hash", first, NOW)
    assert run(orgs.memberships, ann.id) == []
    for work, rest in ((invitations.may_register, ()), (invitations.register, ("hash",))):
        assert refused(run, work, "eve@example.com", *rest, first, NOW) == 403


def test_the_token_of_the_first_user_is_made_once_and_nothing_else_is_it() -> None:
    first = FirstUser()
    assert not first.is_it("")
    token = first.make()
    assert token is not None
    assert first.make() is None
    assert first.is_it(token)
    assert not any(first.is_it(text) for text in ("", "inv-", token[:-1], token + "x", "\ud800"))
