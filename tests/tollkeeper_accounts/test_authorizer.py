"""Who may use a route, and writes that run once however often they are asked for."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tollkeeper import Failed, Refused, Secret
from tollkeeper.management import ROLES, Authorizer, Caller, Done, Write
from tollkeeper.storage import Database, make_database
from tollkeeper.testing import JumpClock
from tollkeeper_accounts import authorizer, orgs, service, writes
from tollkeeper_accounts.authorizer import Accounts, Turns
from tollkeeper_accounts.service import Account, Lifetimes
from tollkeeper_accounts.tokens import Tokens

Run = Callable[..., Any]
NOW = 1_000_000
TOKENS = Tokens(Secret("0123456789abcdef0123456789abcdef"))
EVERYBODY = frozenset(ROLES)
USER = frozenset({"user"})
WRITE = Write(Caller("usr_ann", "ann@example.com", "t", "org_a", "owner"), "POST", "/x", b"", "k")


@pytest.fixture
def judge(database: Database) -> Accounts:
    return Accounts(database, JumpClock(), TOKENS, Turns())


@pytest.fixture
def token(run: Run, ann: Account) -> str:
    opened = run(service.open_session, ann, Lifetimes(900, 3600), NOW)
    return TOKENS.issue(ann.id, opened.session, 0, now=NOW, seconds=900)


@pytest.fixture
def acme(run: Run, ann: Account) -> str:
    return str(run(orgs.create_org, ann.id, "acme", NOW).id)


async def judged(
    judge: Accounts, token: str, policy: frozenset[str] = EVERYBODY, **headers: str
) -> Caller | int:
    """The caller, or the status of the refusal."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        return await judge.authorize({"authorization": f"Bearer {token}", **given}, policy)
    except Refused as refused:
        return refused.status


async def test_it_is_what_the_core_asks_for(judge: Accounts) -> None:
    assert isinstance(judge, Authorizer)


async def test_a_caller_is_who_the_token_says_where_the_table_says(
    judge: Accounts, token: str, acme: str, ann: Account
) -> None:
    caller = await judged(judge, token)
    assert isinstance(caller, Caller)
    assert (caller.user, caller.email, caller.org, caller.role) == (
        ann.id,
        ann.email,
        acme,
        "owner",
    )
    assert await judged(judge, token, x_org_id=acme) == caller
    assert await judged(judge, token, x_org_id="") == 404


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer tk-abc", "Basic {}", "{}", "Bearer {}x", "Bearer{}"]
)
async def test_without_a_valid_token_nobody_passes_and_bearer_is_asked_for(
    judge: Accounts, token: str, acme: str, header: str
) -> None:
    for headers in ({"authorization": header.replace("{}", token)}, {"x-api-key": token}, {}):
        for policy in (USER, EVERYBODY):
            with pytest.raises(Refused) as caught:
                await judge.authorize(headers, policy)
            assert (caught.value.status, caught.value.code) == (401, "auth_error")
            assert caught.value.headers == {"www-authenticate": "Bearer"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("allowed", ROLES)
async def test_a_role_is_held_against_the_policy(
    judge: Accounts, token: str, acme: str, run: Run, ann: Account, role: str, allowed: str
) -> None:
    def demote(database: Any) -> None:
        database.execute_sql("UPDATE accounts_member SET role = ?", (role,))

    run(demote)
    found = await judged(judge, token, frozenset({allowed}))
    assert found == 403 if role != allowed else isinstance(found, Caller)


async def test_who_belongs_nowhere_may_do_what_any_user_may(judge: Accounts, token: str) -> None:
    caller = await judged(judge, token, USER)
    assert isinstance(caller, Caller)
    assert (caller.org, caller.role) == ("", "")
    with pytest.raises(Refused, match="POST /api/v1/gateway/org") as caught:
        await judge.authorize({"authorization": f"Bearer {token}"}, EVERYBODY)
    assert (caught.value.status, caught.value.code) == (404, "not_found")


async def test_an_organization_of_others_is_as_absent_as_none(
    judge: Accounts, token: str, acme: str, run: Run, bob: Account
) -> None:
    theirs = run(orgs.create_org, bob.id, "theirs", NOW).id
    for policy in (USER, EVERYBODY):
        for org in (theirs, "org_none", "acme", "*"):
            assert await judged(judge, token, policy, x_org_id=org) == 404


@pytest.mark.parametrize("how", ["session", "everywhere", "password", "time"])
async def test_what_was_ended_by_anybody_is_refused_at_the_next_request(
    database: Database, token: str, acme: str, ann: Account, how: str, tmp_path: Path
) -> None:
    clock = JumpClock()
    judge = Accounts(database, clock, TOKENS, Turns())
    assert isinstance(await judged(judge, token), Caller)
    claims = TOKENS.read(token, NOW)
    assert claims is not None
    # By another process, as far as the judge can tell.
    other = make_database("sqlite:///my.db", tmp_path)
    with other.transaction() as connection:
        if how == "session":
            service.end_session(connection, claims.session)
        elif how == "everywhere":
            service.log_out(connection, ann.id)
        elif how == "password":
            assert service.set_password(connection, ann.id, None, "new")
        else:
            clock.jump(900)
    other.close()
    assert await judged(judge, token) == 401


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes is still what they were, although no table knows them."""
    monkeypatch.setattr(service, "goes_on", lambda *_: True)
    monkeypatch.setattr(service, "still_stands", lambda *_: True)


async def test_who_was_removed_while_a_write_waited_does_not_make_it(
    judge: Accounts, database: Database, token: str, acme: str
) -> None:
    caller = await judged(judge, token)
    assert isinstance(caller, Caller)
    act = Act(Done(200, b"{}"))
    for change in (replace(caller, role="admin"), replace(caller, org="org_other")):
        with pytest.raises(Refused) as caught:
            await judge.write(replace(WRITE, caller=change), act)
        assert caught.value.status == 403
    assert (await judge.write(replace(WRITE, caller=caller), act)).status == 200
    with database.transaction() as connection:
        service.end_session(connection, service.session_of(caller.token))
    with pytest.raises(Refused):
        await judge.write(replace(WRITE, caller=caller, idempotency_key="other"), act)
    assert act.runs == 1


class Act:
    """Something that is done, counted, and can be held up."""

    def __init__(self, answer: Done | BaseException) -> None:
        self.answer = answer
        self.runs = 0
        self.gate: trio.Event | None = None

    async def __call__(self) -> Done:
        self.runs += 1
        if self.gate is not None:
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.usefixtures("standing")
async def test_a_write_under_a_key_is_done_once(judge: Accounts) -> None:
    act = Act(Done(200, b'{"id":"key_1","key":"tk-x"}'))
    first = await judge.write(WRITE, act)
    again = await judge.write(WRITE, act)
    assert act.runs == 1
    assert first == act.answer
    assert again == Done(200, b'{"id":"key_1","key":null}')


@pytest.mark.usefixtures("standing")
async def test_a_write_without_a_key_is_done_as_often_as_it_is_asked_for(judge: Accounts) -> None:
    act = Act(Done(200, b"{}"))
    for _ in range(3):
        await judge.write(replace(WRITE, idempotency_key=""), act)
    assert act.runs == 3


@pytest.mark.usefixtures("standing")
async def test_a_key_that_is_none_is_refused_before_anything_is_done(judge: Accounts) -> None:
    act = Act(Done(200, b"{}"))
    with pytest.raises(Refused):
        await judge.write(replace(WRITE, idempotency_key="x" * 201), act)
    assert act.runs == 0


@pytest.fixture
def elsewhere(tmp_path: Path, database: Database) -> Iterator[Accounts]:
    """The judge of another process on the same file."""
    other = make_database("sqlite:///my.db", tmp_path)
    yield Accounts(other, JumpClock(), TOKENS, Turns())
    other.close()


@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_of_many_at_once_one_runs_and_the_others_are_told(
    judge: Accounts, elsewhere: Accounts, is_elsewhere: bool
) -> None:
    act = Act(Done(200, b'{"id":"key_1"}'))
    act.gate = trio.Event()
    conflicts: list[str] = []
    answers: list[Done] = []

    async def ask(number: int) -> None:
        at = elsewhere if is_elsewhere and number % 2 else judge
        try:
            answers.append(await at.write(WRITE, act))
        except Refused as refused:
            conflicts.append(refused.message)

    there = 5 if is_elsewhere else 0
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(ask, number)
        while len(conflicts) < there or not act.runs:
            await trio.sleep(0.01)
        act.gate.set()
    assert act.runs == 1
    assert answers == [act.answer] * (10 - there)  # who asks here waits for its turn
    assert len(conflicts) == there
    assert all("still running" in message for message in conflicts)
    assert await elsewhere.write(WRITE, act) == act.answer
    assert act.runs == 1


@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize(
    "failure", [Failed(503, "server_error", "No."), RuntimeError("broken"), KeyError("x")]
)
async def test_what_failed_may_be_tried_again(judge: Accounts, failure: Exception) -> None:
    act = Act(failure)
    with pytest.raises(type(failure)):
        await judge.write(WRITE, act)
    act.answer = Done(200, b"{}")
    assert await judge.write(WRITE, act) == act.answer
    act.answer = Done(500, b"{}")
    other = replace(WRITE, idempotency_key="other")
    for _ in range(2):
        assert await judge.write(other, act) == act.answer
    assert act.runs == 4


@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize("is_raised", [True, False])
async def test_what_was_refused_is_refused_again_without_asking(
    judge: Accounts, is_raised: bool
) -> None:
    refusal = Refused(404, "not_found", "No.")
    act = Act(refusal if is_raised else Done(404, refusal.body()))
    if is_raised:
        with pytest.raises(Refused):
            await judge.write(WRITE, act)
    else:
        await judge.write(WRITE, act)
    assert await judge.write(WRITE, act) == Done(404, refusal.body())
    assert act.runs == 1


@pytest.mark.usefixtures("standing")
async def test_a_client_that_goes_away_does_not_undo_what_it_asked_for(
    judge: Accounts, database: Database
) -> None:
    act = Act(Done(200, b'{"id":"key_1"}'))
    act.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                await judge.write(WRITE, act)

        nursery.start_soon(ask)
        while not act.runs:
            await trio.sleep(0.01)
        scope.cancel()
        act.gate.set()
    assert await judge.write(WRITE, act) == act.answer
    assert act.runs == 1
    (noted,) = await database.read(writes.audit, "org_a", 9, None)
    assert noted.target == "key_1"


@pytest.mark.usefixtures("standing")
async def test_a_write_that_never_ends_is_a_timeout_and_may_be_tried_again(
    judge: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorizer, "WRITE_SECONDS", 0.5)
    act = Act(Done(200, b"{}"))
    act.gate = trio.Event()
    with pytest.raises(Failed) as caught:
        await judge.write(WRITE, act)
    assert (caught.value.status, caught.value.code) == (504, "timeout")
    act.gate.set()
    assert await judge.write(WRITE, act) == act.answer


async def test_a_database_that_is_down_is_no_refusal(judge: Accounts, token: str) -> None:
    class Down:
        async def read(self, *_: object) -> Awaitable[object]:
            raise OSError("down")

    judge._database = Down()  # type: ignore[assignment] # as little of it as is used
    with pytest.raises(OSError, match="down"):
        await judged(judge, token)
