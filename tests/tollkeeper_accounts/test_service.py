"""Users and their sessions."""

from collections.abc import Callable
from typing import Any

import pytest

from tollkeeper import Refused
from tollkeeper.storage import Database
from tollkeeper_accounts import orgs, service
from tollkeeper_accounts.service import Account, Lifetimes, Opened, Standing
from tollkeeper_accounts.tokens import Claims

Run = Callable[..., Any]
NOW = 1_000_000
LIVES = Lifetimes(access=900, refresh=3600)


@pytest.fixture
def opened(run: Run, ann: Account) -> Any:
    return run(service.open_session, ann, LIVES, NOW)


def claims_of(opened: Opened, **changes: Any) -> Claims:
    given = {"user": opened.user, "session": opened.session, "epoch": opened.epoch, **changes}
    return Claims(id=f"{given['session']}.0", **given)


def standing(run: Run, opened: Opened, org: str | None = None) -> Any:
    return run(service.find_standing, claims_of(opened), org)


def count(database: Database, table: str) -> int:
    with database.reading() as connection:
        return int(connection.execute_sql(f"SELECT count(*) FROM accounts_{table}").fetchone()[0])


def test_an_address_is_the_same_however_it_is_written() -> None:
    assert service.normal_email("  Ann@Example.COM\t") == "ann@example.com"


def test_ids_that_sort_by_age_do(run: Run) -> None:
    ids = [service.aged_id("mem") for _ in range(100)]
    assert ids == sorted(ids)
    assert len({service.new_id("org") for _ in range(100)}) == 100
    assert len(service.new_id("org")) == len("org_") + 16


def test_an_address_registers_once(run: Run, ann: Account) -> None:
    with pytest.raises(Refused) as caught:
        run(service.add_user, "ann@example.com", "other", NOW)
    assert (caught.value.status, caught.value.code) == (409, "conflict")
    assert run(service.find_user, "ann@example.com") == ann
    assert run(service.get_user, ann.id) == ann
    assert run(service.find_user, "bob@example.com") is None


def test_there_are_users_once_there_is_one(run: Run) -> None:
    assert not run(service.has_users)
    run(service.add_user, "ann@example.com", "x", NOW)
    assert run(service.has_users)


def test_the_list_shows_users_where_they_belong_and_no_hash(
    run: Run, ann: Account, bob: Account
) -> None:
    org = run(orgs.create_org, ann.id, "acme", NOW)
    rows = {row["email"]: row for row in run(service.list_users)}
    assert rows[ann.email]["orgs"] == [{"id": org.id, "name": "acme", "role": "owner"}]
    assert rows[bob.email]["orgs"] == []
    assert "hash of" not in str(rows)


def test_a_session_stands_for_its_user(run: Run, opened: Opened, ann: Account) -> None:
    assert standing(run, opened) == Standing("ann@example.com", "", "")


@pytest.mark.parametrize(
    "change", [{"user": "usr_none"}, {"session": "ses_none"}, {"epoch": 1}, {"epoch": -1}]
)
def test_claims_that_the_database_does_not_bear_out_stand_for_nobody(
    run: Run, opened: Opened, change: dict[str, Any]
) -> None:
    assert run(service.find_standing, claims_of(opened, **change), None) is None


def test_the_session_of_one_user_does_not_stand_for_another(
    run: Run, opened: Opened, bob: Account
) -> None:
    assert run(service.find_standing, claims_of(opened, user=bob.id), None) is None


def test_the_organization_joined_last_is_meant_unless_another_is_named(
    run: Run, opened: Opened, ann: Account, bob: Account
) -> None:
    first = run(orgs.create_org, ann.id, "first", NOW).id
    second = run(orgs.create_org, bob.id, "second", NOW).id
    foreign = run(orgs.create_org, bob.id, "foreign", NOW).id
    run(orgs.add_member, second, ann.id, "billing")
    assert standing(run, opened) == Standing(ann.email, second, "billing")
    assert standing(run, opened, first) == Standing(ann.email, first, "owner")
    for other in (foreign, "org_none", "", "' OR 1=1 --"):
        assert standing(run, opened, other) == Standing(ann.email, "", "")


def test_no_session_begins_by_a_password_that_changed_since_it_was_checked(
    run: Run, ann: Account
) -> None:
    assert run(service.set_password, ann.id, "hash of ann", "new")
    assert run(service.open_session, ann, LIVES, NOW) is None


def test_a_session_is_carried_on_by_each_refresh_token_once(run: Run, opened: Opened) -> None:
    second = run(service.refresh_session, opened.refresh_token, LIVES, NOW)
    third = run(service.refresh_session, second.refresh_token, LIVES, NOW)
    assert {o.session for o in (opened, second, third)} == {opened.session}
    assert len({o.refresh_token for o in (opened, second, third)}) == 3
    assert standing(run, opened)


def test_a_refresh_token_that_comes_twice_ends_the_whole_session(
    run: Run, opened: Opened, ann: Account
) -> None:
    other = run(service.open_session, ann, LIVES, NOW)
    newest = opened
    for _ in range(3):
        newest = run(service.refresh_session, newest.refresh_token, LIVES, NOW)
    assert run(service.refresh_session, opened.refresh_token, LIVES, NOW) is None
    assert run(service.refresh_session, newest.refresh_token, LIVES, NOW) is None
    assert standing(run, opened) is None
    assert standing(run, other) is not None
    assert run(service.refresh_session, other.refresh_token, LIVES, NOW)


def test_a_refresh_token_expires_and_one_never_made_is_none(run: Run, opened: Opened) -> None:
    for token in ("", "rt-", "rt-" + "A" * 43, opened.refresh_token + "x", "\ud800"):
        assert run(service.refresh_session, token, LIVES, NOW) is None
    assert run(service.refresh_session, opened.refresh_token, LIVES, NOW + 3600) is None
    assert run(service.refresh_session, opened.refresh_token, LIVES, NOW + 3599)


def test_refresh_tokens_are_not_stored(database: Database, opened: Opened) -> None:
    dump = "".join(path.read_bytes().decode("latin-1") for path in database.path.parent.iterdir())  # type: ignore[union-attr] # it has a file
    assert opened.session in dump
    assert opened.refresh_token not in dump
    assert opened.refresh_token[3:20] not in dump


def test_logging_out_ends_one_session_and_no_other(run: Run, opened: Opened, ann: Account) -> None:
    other = run(service.open_session, ann, LIVES, NOW)
    run(service.end_session, service.session_of(claims_of(opened).id))
    assert standing(run, opened) is None
    assert run(service.refresh_session, opened.refresh_token, LIVES, NOW) is None
    assert standing(run, other) is not None


def test_logging_out_everywhere_ends_all_of_the_user_and_none_of_others(
    run: Run, opened: Opened, ann: Account, bob: Account
) -> None:
    others = [run(service.open_session, account, LIVES, NOW) for account in (ann, bob)]
    run(service.log_out, ann.id)
    assert standing(run, opened) is None
    assert standing(run, others[0]) is None
    assert run(service.refresh_session, others[0].refresh_token, LIVES, NOW) is None
    assert standing(run, others[1]) is not None
    assert run(service.get_user, ann.id).epoch == 1


def test_a_new_password_ends_all_sessions_and_must_follow_the_one_that_is_stored(
    run: Run, opened: Opened, ann: Account
) -> None:
    assert not run(service.set_password, ann.id, "another hash", "new")
    assert standing(run, opened) is not None
    assert run(service.set_password, ann.id, "hash of ann", "new")
    assert standing(run, opened) is None
    assert run(service.get_user, ann.id).password == "new"
    assert run(service.set_password, ann.id, None, "newer")
    assert not run(service.set_password, "usr_none", None, "newer")


def test_a_better_hash_does_not_undo_a_new_password(run: Run, ann: Account) -> None:
    run(service.rehash, ann, "better")
    assert run(service.get_user, ann.id).password == "better"
    run(service.rehash, ann, "of the old one")
    assert run(service.get_user, ann.id).password == "better"


def test_what_is_out_of_date_is_deleted_and_a_session_lives_as_long_as_its_tokens(
    run: Run, opened: Opened, database: Database
) -> None:
    newer = run(service.refresh_session, opened.refresh_token, LIVES, NOW + 3000)
    run(service.delete_expired, NOW + 3600)
    assert (count(database, "session"), count(database, "refresh_token")) == (1, 1)
    assert standing(run, opened) is not None
    assert run(service.refresh_session, newer.refresh_token, LIVES, NOW + 3600)
    run(service.delete_expired, NOW + 100_000)
    assert (count(database, "session"), count(database, "refresh_token")) == (0, 0)
