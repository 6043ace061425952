"""Writes that are done once, and noted."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tollkeeper import Refused
from tollkeeper.management import Caller, Done, Write
from tollkeeper.storage import Database
from tollkeeper_accounts import writes

Run = Callable[..., Any]
NOW = 1_000_000
DAY = 86_400
CALLER = Caller("usr_ann", "ann@example.com", "ses_1.1", "org_acme", "owner")
WRITE = Write(CALLER, "POST", "/api/v1/gateway/keys", b'{"name": "ci"}', "once")


def conflict(run: Run, write: Write, now: int = NOW) -> str:
    with pytest.raises(Refused) as caught:
        run(writes.claim, write, now)
    assert (caught.value.status, caught.value.code) == (409, "conflict")
    return caught.value.message


def settle(run: Run, write: Write, answer: Done, now: int = NOW) -> None:
    run(writes.settle, write, answer, run(writes.note_write, write, now))


def done(status: int = 200, **fields: object) -> Done:
    return Done(status, json.dumps(fields).encode())


def test_what_was_done_is_answered_again_for_a_day(run: Run) -> None:
    answer = done(id="key_1", name="ci")
    assert run(writes.claim, WRITE, NOW) is None
    settle(run, WRITE, answer)
    assert run(writes.claim, WRITE, NOW) == answer
    assert run(writes.claim, WRITE, NOW + DAY - 1) == answer
    assert run(writes.claim, WRITE, NOW + DAY) is None


def test_what_still_runs_is_a_conflict(run: Run) -> None:
    run(writes.claim, WRITE, NOW)
    assert "still running" in conflict(run, WRITE)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PATCH"},
        {"path": "/api/v1/gateway/keys/key_1"},
        {"path": "/api/v1/gateway/keys?x=1"},
        {"body": b'{"name": "cd"}'},
        {"body": b'{"name":  "ci"}'},
        {"caller": replace(CALLER, org="org_other")},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_done", [True, False])
def test_another_request_under_the_same_key_is_a_conflict_that_says_so(
    run: Run, change: dict[str, Any], is_done: bool
) -> None:
    run(writes.claim, WRITE, NOW)
    if is_done:
        settle(run, WRITE, done())
    assert "another request" in conflict(run, replace(WRITE, **change))


def test_parts_of_a_request_cannot_pass_for_each_other(run: Run) -> None:
    run(writes.claim, replace(WRITE, path="/api/v1/gateway/keys/a", body=b"b"), NOW)
    other = replace(WRITE, path="/api/v1/gateway/keys/", body=b"ab")
    assert "another request" in conflict(run, other)


def test_the_key_of_another_user_or_another_key_is_free(run: Run) -> None:
    run(writes.claim, WRITE, NOW)
    assert run(writes.claim, replace(WRITE, caller=replace(CALLER, user="usr_bob")), NOW) is None
    assert run(writes.claim, replace(WRITE, idempotency_key="twice"), NOW) is None


@pytest.mark.parametrize("path", [writes.ORG_PATH, writes.ACCEPT_PATH])
def test_what_changes_the_current_organization_is_the_same_request_afterwards(
    run: Run, path: str
) -> None:
    write = replace(WRITE, path=path)
    run(writes.claim, write, NOW)
    settle(run, write, done(id="org_new"))
    again = replace(write, caller=replace(CALLER, org="org_new"))
    assert run(writes.claim, again, NOW) == done(id="org_new")


def test_a_refusal_is_answered_again_and_a_failure_frees_the_key(run: Run) -> None:
    run(writes.claim, WRITE, NOW)
    settle(run, WRITE, done(404, error="x"))
    assert run(writes.claim, WRITE, NOW) == done(404, error="x")
    other = replace(WRITE, idempotency_key="other")
    run(writes.claim, other, NOW)
    settle(run, other, done(503, error="x"))
    assert run(writes.claim, other, NOW) is None


def test_secrets_are_not_stored(database: Database, run: Run) -> None:
    secrets: dict[str, Any] = {name: f"secret {name}" for name in writes.SECRETS}
    run(writes.claim, WRITE, NOW)
    settle(run, WRITE, done(id="key_1", rpm=None, **secrets))
    again = run(writes.claim, WRITE, NOW)
    assert json.loads(again.body) == {"id": "key_1", "rpm": None, **dict.fromkeys(secrets)}
    dump = "".join(path.read_bytes().decode("latin-1") for path in database.path.parent.iterdir())  # type: ignore[union-attr] # it has a file
    assert "key_1" in dump
    assert "secret " not in dump


@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b'{"id": 1}', b'{"data":[{"key":1}]}'])
def test_a_body_without_secrets_stays_as_it_is(run: Run, body: bytes) -> None:
    assert writes.without_secrets(body) == body
    settle(run, replace(WRITE, idempotency_key=""), Done(200, body), NOW)
    assert run(writes.audit, "org_acme", 9, None)[0].target == ""


def test_a_key_is_short_printable_ascii() -> None:
    for key in ("a", " ", "x" * 200, "!~"):
        writes.check_key(key)
    for key in ("x" * 201, "é", "a\n", "\x00", "a\tb", "🔑"):
        with pytest.raises(Refused) as caught:
            writes.check_key(key)
        assert caught.value.status == 400


def test_every_write_that_changed_something_is_noted_once(run: Run) -> None:
    run(writes.claim, WRITE, NOW)
    settle(run, WRITE, done(id="key_1"))
    run(writes.claim, WRITE, NOW)
    unkeyed = replace(
        WRITE, method="DELETE", path="/api/v1/gateway/keys/key_1?x", idempotency_key=""
    )
    settle(run, unkeyed, done(id="key_1"), NOW + 1)
    for status in (400, 404, 409):
        settle(run, unkeyed, done(status))
    newest, oldest = run(writes.audit, "org_acme", 9, None)
    assert (oldest.action, oldest.target) == ("POST /api/v1/gateway/keys", "key_1")
    assert (oldest.user, oldest.email, oldest.at) == ("usr_ann", "ann@example.com", NOW)
    assert (newest.action, newest.at) == ("DELETE /api/v1/gateway/keys/key_1", NOW + 1)


def test_the_log_is_read_page_by_page_and_by_its_organization_only(run: Run) -> None:
    for number in range(5):
        settle(run, replace(WRITE, idempotency_key=""), done(id=f"key_{number}"), NOW)
    first = run(writes.audit, "org_acme", 2, None)
    second = run(writes.audit, "org_acme", 2, first[-1].id)
    rest = run(writes.audit, "org_acme", 2, second[-1].id)
    targets = [noted.target for noted in (*first, *second, *rest)]
    assert targets == [f"key_{number}" for number in (4, 3, 2, 1, 0)]
    assert run(writes.audit, "org_other", 9, None) == []


@pytest.mark.parametrize("path", [writes.ORG_PATH, writes.ACCEPT_PATH])
def test_making_and_joining_an_organization_is_noted_there(run: Run, path: str) -> None:
    settle(run, replace(WRITE, path=path), done(id="org_new"), NOW)
    assert run(writes.audit, "org_acme", 9, None) == []
    (noted,) = run(writes.audit, "org_new", 9, None)
    assert noted.action == f"POST {path}"


def test_keys_are_forgotten_after_a_day(run: Run) -> None:
    run(writes.claim, WRITE, NOW)
    run(writes.delete_expired, NOW + DAY - 1)
    conflict(run, WRITE)
    run(writes.delete_expired, NOW + DAY)
    assert run(writes.claim, WRITE, NOW) is None
