"""Holds in memory, the accounts they are reserved on, and their way into the table."""

import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from tollkeeper import Clock, Failed, PluginError, Principal, Refused, Usage
from tollkeeper.ledger import Hold
from tollkeeper.settings import PriceSettings
from tollkeeper.storage import Database
from tollkeeper_metering import ballast as ballast_module
from tollkeeper_metering import service as module
from tollkeeper_metering import writer as writer_module
from tollkeeper_metering.entries import Entry, OpenHold
from tollkeeper_metering.prices import make_price
from tollkeeper_metering.rows import Rows
from tollkeeper_metering.service import Ledger
from tollkeeper_metering.settings import MeteringSettings
from tollkeeper_metering.usage import attempts

NOW = 1_780_000_000
PRICE = make_price(PriceSettings(input=Decimal(1), output=Decimal(2)), "toml")
SETTINGS = MeteringSettings(ballast=65536, hold_timeout=0.05)
ACME = Principal("acme", "k")

OWNERS = map(str, itertools.count())


class Account:
    """A balance of one org, which writes down all that happens to it."""

    def __init__(self, amount: int = 10**9, org: str = "acme") -> None:
        self.since = 0
        self.amount, self.org = amount, org
        self.held = self.spent = 0
        self.adopted: list[int] = []
        self.open: set[int] = set()

    def covers(self, principal: Principal) -> bool:
        return principal.org == self.org

    def reserve(self, hold: Hold) -> None:
        assert hold.id not in self.open
        if self.spent + self.held + hold.amount > self.amount:
            raise Refused(429, "rate_limit", "too much")
        self.open.add(hold.id)
        self.held += hold.amount

    def adopt(self, hold: Hold) -> None:
        self.adopted.append(hold.id)
        self.open.add(hold.id)
        self.held += hold.amount

    def settle(self, hold: Hold, charge: int) -> None:
        self.open.remove(hold.id)
        self.held -= hold.amount
        self.spent += charge

    def book(self, org: str, key: str, charge: int) -> None:
        if org == self.org:
            self.spent += charge


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ballast_module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.005)
    monkeypatch.setattr(writer_module, "BUSY_MS", 5)
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.005)


@contextlib.asynccontextmanager
async def kept(database: Database, settings: MeteringSettings = SETTINGS) -> AsyncIterator[Ledger]:
    """A ledger at work."""
    ledger = Ledger(database, Clock())
    async with ledger.running(settings), trio.open_nursery() as nursery:
        nursery.start_soon(ledger.keep_up)
        await trio.testing.wait_all_tasks_blocked()
        yield ledger
        nursery.cancel_scope.cancel()


def attached(ledger: Ledger, account: Account) -> AbstractAsyncContextManager[None]:
    """With an owner of its own."""
    return ledger.attached(str(id(account)), [account])


def make_hold(ledger: Ledger, amount: int = 100, org: str = "acme") -> OpenHold:
    number = ledger.take_id()
    ids = (number, f"att_{number}", f"req_{number}")
    covers = ledger.covering(Principal(org, "k"))
    price = PRICE.version
    return OpenHold(*ids, 1, org, "k", "m", "p/m", price, amount, NOW, PRICE, covers)


async def held(ledger: Ledger, amount: int = 100, org: str = "acme") -> OpenHold:
    hold = make_hold(ledger, amount, org)
    ledger.reserve(hold)
    await ledger.commit(hold)
    return hold


def end_of(hold: OpenHold, charge: int = 5) -> Entry:
    return Entry(hold, "posted", Usage(1, 2), charge, charge, 0, NOW)


def void(hold: OpenHold) -> Entry:
    return Entry(hold, "voided", at=NOW)


async def rows(ledger: Ledger) -> list[tuple[int, str]]:
    """Hold and state of every attempt, once all that was handed over is written."""
    ledger._hand_over()
    found = await ledger._writer.ask(lambda database: list(attempts(database)))
    return [(int(row[0].removeprefix("att_")), row[3 + 2]) for row in found]


def states(database: Database) -> list[str]:
    with database.reading() as connection:
        return [row[5] for row in attempts(connection)]


async def test_a_hold_is_in_the_table_once_commit_returns(in_file: Database) -> None:
    async with kept(in_file) as ledger:
        other = sqlite3.connect(str(in_file.path))
        hold = await held(ledger)
        assert other.execute("SELECT id FROM metering_hold").fetchall() == [(hold.id,)]
        other.close()
        ledger.settle(end_of(hold))


async def test_a_settlement_is_written_soon_although_no_hold_takes_it_along(
    in_file: Database,
) -> None:
    async with kept(in_file) as ledger:
        hold = await held(ledger)
        ledger.settle(end_of(hold))
        with trio.fail_after(5):
            while states(in_file) != ["posted"]:
                await trio.sleep(0.002)


async def test_what_is_settled_last_is_written_before_the_ledger_stops(database: Database) -> None:
    async with kept(database) as ledger:
        for _ in range(20):
            ledger.settle(end_of(await held(ledger)))
    assert states(database) == ["posted"] * 20
    assert ledger.held == 0


async def test_a_settlement_is_written_along_with_the_next_hold(in_file: Database) -> None:
    async with kept(in_file) as ledger:
        ledger.settle(end_of(await held(ledger)))
        hold = await held(ledger)
        assert states(in_file) == ["posted", "open"]
        ledger.settle(end_of(hold))


async def test_a_hold_is_settled_once(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    account = Account()
    async with kept(database) as ledger, ledger.attached(next(OWNERS), [account]):
        hold = await held(ledger)
        assert (ledger.held, account.held) == (100, 100)
        ledger.settle(end_of(hold))
        ledger.settle(end_of(hold))
        assert (ledger.held, account.held, account.spent) == (0, 0, 5)
    assert states(database) == ["posted"]
    assert not caplog.text


async def test_a_hold_that_one_account_refuses_is_given_back_to_the_others(
    database: Database,
) -> None:
    rich, poor = Account(), Account(10)
    async with (
        kept(database) as ledger,
        ledger.attached(next(OWNERS), [rich]),
        ledger.attached(next(OWNERS), [poor]),
    ):
        hold = make_hold(ledger)
        with pytest.raises(Refused, match="too much"):
            ledger.reserve(hold)
        assert (rich.held, poor.held, ledger.held) == (0, 0, 0)
        assert (rich.open, poor.open) == (set(), set())
    assert states(database) == []


async def test_an_account_counts_those_it_covers_and_only_while_it_is_attached(
    database: Database,
) -> None:
    account = Account()
    async with kept(database) as ledger:
        async with ledger.attached(next(OWNERS), [account]):
            mine, other = await held(ledger), await held(ledger, org="other")
            assert account.held == 100
        later = await held(ledger)
        assert account.held == 100
        for hold in (mine, other, later):
            ledger.settle(end_of(hold))
        assert (account.held, account.spent) == (0, 5)


async def test_an_account_adopts_what_is_open_and_books_what_was_charged(
    database: Database,
) -> None:
    async with kept(database) as ledger:
        done, running = await held(ledger), await held(ledger, 70)
        ledger.settle(end_of(done, 33))
        account = Account()
        async with ledger.attached(next(OWNERS), [account]):
            assert (account.held, account.spent) == (70, 33)
            ledger.settle(end_of(running, 7))
            assert (account.held, account.spent) == (0, 40)


async def test_an_account_adopts_no_hold_of_somebody_it_does_not_cover(
    database: Database,
) -> None:
    async with kept(database) as ledger:
        hold = await held(ledger, org="other")
        account = Account()
        async with ledger.attached(next(OWNERS), [account]):
            assert account.adopted == []
            assert hold.covers == ()
            ledger.settle(end_of(hold))
            assert (account.held, account.spent) == (0, 0)


async def test_newer_accounts_of_an_owner_take_the_place_of_the_older_ones(
    database: Database,
) -> None:
    small, large = Account(100), Account(1000)
    async with kept(database) as ledger, ledger.attached("me", [small]):
        hold = await held(ledger)
        async with ledger.attached("me", [large]):
            assert (small.held, large.held) == (100, 100)
            later = await held(ledger)
            assert (small.held, large.held) == (200, 200)  # it may be needed again
            ledger.settle(end_of(hold))
            ledger.settle(end_of(later))
            assert (small.held, small.spent) == (0, 10)
            assert (large.held, large.spent) == (0, 10)


async def test_newer_accounts_that_are_taken_back_leave_the_older_ones_in_force(
    database: Database,
) -> None:
    """As a reload does that fails after they were attached."""
    old, new = Account(100), Account(1000)
    async with kept(database) as ledger, ledger.attached("me", [old]):
        async with ledger.attached("me", [new]):
            pass
        hold = await held(ledger)
        assert old.held == 100
        with pytest.raises(Refused):
            ledger.reserve(make_hold(ledger))
        ledger.settle(end_of(hold))


@pytest.mark.parametrize("seed", range(5))
async def test_an_account_misses_nothing_and_counts_nothing_twice_whenever_it_is_attached(
    database: Database, seed: int
) -> None:
    random, charged = Random(seed), []

    async def calls(ledger: Ledger) -> None:
        for _ in range(30):
            hold = await held(ledger)
            for _ in range(random.randrange(4)):
                await trio.lowlevel.checkpoint()
            charge = random.randrange(100)
            charged.append(charge)
            ledger.settle(end_of(hold, charge))

    async with kept(database) as ledger:
        async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(calls, ledger)
            accounts = [Account() for _ in range(6)]
            for account in accounts:
                for _ in range(random.randrange(20)):
                    await trio.lowlevel.checkpoint()
                await stack.enter_async_context(ledger.attached(next(OWNERS), [account]))
            while nursery.child_tasks:
                await trio.sleep(0.002)
            assert [account.spent for account in accounts] == [sum(charged)] * 6
            assert [account.held for account in accounts] == [0] * 6


async def test_an_account_that_breaks_takes_no_settlement_from_the_others(
    database: Database,
) -> None:
    class Broken(Account):
        def settle(self, hold: Hold, charge: int) -> None:
            raise RuntimeError("bug")

    first, last = Account(), Account()
    async with kept(database) as ledger:
        async with (
            ledger.attached(next(OWNERS), [first]),
            ledger.attached(next(OWNERS), [Broken()]),
            ledger.attached(next(OWNERS), [last]),
        ):
            hold = await held(ledger)
            with contextlib.suppress(RuntimeError):
                ledger.settle(end_of(hold))
            assert (first.held, last.held, last.spent) == (0, 0, 5)
    assert states(database) == ["posted"]


# A hold that is not written.


async def test_a_call_that_is_cancelled_while_its_hold_waits_leaves_no_open_row(
    database: Database,
) -> None:
    account = Account()
    async with kept(database) as ledger, ledger.attached(next(OWNERS), [account]):
        for patience in range(12):
            hold = make_hold(ledger)
            ledger.reserve(hold)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ledger.commit, hold)
                    for _ in range(patience):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            ledger.settle(void(hold))
        assert (account.held, ledger.held, ledger._waiting) == (0, 0, {})
        assert {state for _, state in await rows(ledger)} <= {"voided"}


@contextlib.contextmanager
def locked(database: Database) -> Iterator[None]:
    other = sqlite3.connect(str(database.path), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_a_hold_that_cannot_be_written_in_time_is_refused_and_not_written_later(
    in_file: Database,
) -> None:
    account = Account()
    async with kept(in_file) as ledger, ledger.attached(next(OWNERS), [account]):
        running = await held(ledger)
        with locked(in_file):
            hold = make_hold(ledger)
            ledger.reserve(hold)
            with pytest.raises(Failed) as refused:
                await ledger.commit(hold)
            assert (refused.value.status, refused.value.headers["retry-after"]) == (503, "5")
            assert "locked or slow" in refused.value.message
            ledger.settle(Entry(hold, "expired", at=NOW))
            ledger.settle(end_of(running))
            assert (account.held, account.spent) == (0, 5)
        after = await held(ledger)
        ledger.settle(end_of(after))
        found = dict(await rows(ledger))
    assert (found[running.id], found[after.id]) == ("posted", "posted")
    assert found.get(hold.id, "expired") == "expired"


async def test_a_short_lock_is_waited_for(in_file: Database) -> None:
    patient = MeteringSettings(ballast=65536, hold_timeout=30)
    async with kept(in_file, patient) as ledger, trio.open_nursery() as nursery:
        done = trio.Event()

        async def call() -> None:
            ledger.settle(end_of(await held(ledger)))
            done.set()

        with locked(in_file):
            nursery.start_soon(call)
            await trio.sleep(0.05)
            assert not done.is_set()
        with trio.fail_after(5):
            await done.wait()


@pytest.mark.parametrize("trouble", ["its disk is full", "", "dead"])
async def test_a_call_is_refused_at_once_where_nothing_can_be_written(
    database: Database, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    async with kept(database) as ledger:
        with monkeypatch.context() as patch:
            if trouble == "dead":
                patch.setattr(ledger._writer, "alive", False)
            elif trouble:
                patch.setattr(ledger._writer, "trouble", trouble)
            else:
                patch.setattr(module, "MANY_WAITING", 0)
            hold = make_hold(ledger)
            ledger.reserve(hold)
            with pytest.raises(Failed, match=r"cannot record this call.*Nothing was sent"):
                await ledger.commit(hold)
            ledger.settle(void(hold))
        assert await rows(ledger) == []
        assert ledger.held == 0


async def test_the_end_of_the_thread_ends_the_plugin(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("bug")

    ledger = Ledger(database, Clock())
    async with ledger.running(SETTINGS):
        monkeypatch.setattr(Rows, "write", crash)
        hold = make_hold(ledger)
        ledger.reserve(hold)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit_in_vain, ledger, hold)
            with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="not written any more")):
                await ledger.keep_up()
            nursery.cancel_scope.cancel()
        ledger.settle(void(hold))


async def commit_in_vain(ledger: Ledger, hold: OpenHold) -> None:
    with contextlib.suppress(Failed):
        await ledger.commit(hold)


# Its life.


async def test_blocks_may_overlap_and_the_last_one_stops_it(database: Database) -> None:
    ledger = Ledger(database, Clock())
    longer = MeteringSettings(ballast=65536, hold_timeout=7)
    async with contextlib.AsyncExitStack() as first, contextlib.AsyncExitStack() as second:
        await first.enter_async_context(ledger.running(SETTINGS))
        hold = await held(ledger)
        await second.enter_async_context(ledger.running(longer))
        assert ledger._writer.settings is longer
        await first.aclose()
        ledger.settle(end_of(hold))
        ledger.settle(end_of(await held(ledger)))
        assert ledger._writer.alive
    assert not ledger._writer.alive
    assert states(database) == ["posted"] * 2


async def test_it_can_be_started_again_and_goes_on_counting(database: Database) -> None:
    ledger = Ledger(database, Clock())
    for number in (1, 2, 3):
        async with ledger.running(SETTINGS):
            hold = await held(ledger)
            assert hold.id == number
            ledger.settle(end_of(hold))
    assert states(database) == ["posted"] * 3


async def test_a_start_that_failed_leaves_it_as_it_was(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise sqlite3.OperationalError("database is locked")

    ledger = Ledger(database, Clock())
    with monkeypatch.context() as patch:
        patch.setattr(Rows, "begin", fail)
        with pytest.raises(sqlite3.OperationalError):
            await ledger.running(SETTINGS).__aenter__()
    async with ledger.running(SETTINGS):
        ledger.settle(end_of(await held(ledger)))


async def test_two_ledgers_on_one_file_are_one_too_many(in_file: Database) -> None:
    async with kept(in_file) as ledger:
        hold = await held(ledger)
        with pytest.raises(PluginError, match="another gateway keeps its ledger in"):
            await Ledger(in_file, Clock()).running(SETTINGS).__aenter__()
        ledger.settle(end_of(hold))


async def test_what_a_killed_process_left_open_is_closed_before_the_first_hold(
    in_file: Database,
) -> None:
    with in_file.session() as session, session.transaction() as cursor:
        dead = Rows()
        dead.begin(cursor, NOW)
        dead.keep()
        price = PRICE.version
        left = OpenHold(1, "att_1", "req_1", 1, "acme", "k", "m", "p/m", price, 77, NOW, PRICE)
        dead.write(cursor, [left], [])
    account = Account()
    async with kept(in_file) as ledger, ledger.attached(next(OWNERS), [account]):
        assert (account.held, account.spent, ledger.held) == (0, 0, 0)
        assert await rows(ledger) == [(1, "estimated")]
        hold = await held(ledger)
        assert hold.id == 2
        ledger.settle(end_of(hold))
    with in_file.reading() as connection:
        found: Any = connection.execute_sql(
            "SELECT charge_nanousd, exposure_nanousd, evidence FROM metering_entry WHERE hold = 1"
        ).fetchall()
    assert found == [(0, 77, "estimated")]


async def test_a_call_that_ends_while_the_ledger_stops_is_written_too(database: Database) -> None:
    ledger = Ledger(database, Clock())

    async def keep(task_status: trio.TaskStatus[None]) -> None:
        async with ledger.running(SETTINGS):
            task_status.started()
            await ledger.keep_up()

    async def call(task_status: trio.TaskStatus[None]) -> None:
        hold = await held(ledger)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)  # such as to close its upstream's connection
            ledger.settle(end_of(hold))

    async with trio.open_nursery() as nursery:
        await nursery.start(keep)
        await nursery.start(call)
        nursery.cancel_scope.cancel()
    assert states(database) == ["posted"]
