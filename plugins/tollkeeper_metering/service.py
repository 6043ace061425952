"""The ledger in memory: open holds, the accounts they are reserved on, and the hand-over of rows.

All of it runs in the event loop; what is written is handed to the writer's thread, in order.
"""

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import trio

from tollkeeper import Clock, Database, Principal
from tollkeeper.ledger import Account
from tollkeeper_metering.accounts import Accounts, Attached
from tollkeeper_metering.entries import Entry, OpenHold
from tollkeeper_metering.settings import MeteringSettings
from tollkeeper_metering.usage import spent_since
from tollkeeper_metering.writer import Writer, cannot_write

log = logging.getLogger("tollkeeper.metering")

MANY_WAITING = 10_000
STOP_SECONDS = 3.0
"""For calls that are being cut off to settle."""
LAZY_SECONDS = 0.01
"""Seconds that settlements wait for a hold to be written with."""
CHECK_SECONDS = 0.25


class Ledger:
    """Every hold that is open in this process. One per database, whatever the settings become."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._clock = clock
        self._writer = Writer(database)
        self._settings = MeteringSettings()
        self._accounts = Accounts()
        self._open: dict[int, OpenHold] = {}
        self._waiting: dict[int, OpenHold] = {}
        self._settled: list[Entry] = []
        """Not yet handed over."""
        self._users = 0
        self._switching = trio.Lock()
        self._flusher: trio.lowlevel.Task | None = None
        self._ids = itertools.count(1)
        self._broken = trio.Event()
        self._quiet: trio.Event | None = None
        """Set when no hold is open any more, for whoever waits for that."""

    @property
    def held(self) -> int:
        """Nano-USD of all open holds."""
        return sum(hold.amount for hold in self._open.values())

    # Its life.

    def prepare(self, settings: MeteringSettings) -> None:
        """The settings to start with, whoever starts it."""
        if self._users == 0:
            self._settings = self._writer.settings = settings

    @contextlib.asynccontextmanager
    async def running(self, settings: MeteringSettings | None = None) -> AsyncIterator[None]:
        """Write what is handed over while the block lasts; all of it is written when it ends.

        Closes orphans on entry. Blocks may overlap: the newest settings count. Raises
        `PluginError` where another process writes this ledger.
        """
        async with self._switching:
            if settings is not None:
                self._settings = self._writer.settings = settings
            self._users += 1
            if self._users == 1:
                await self._start()
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                async with self._switching:
                    self._users -= 1
                    if self._users == 0:
                        await self._stop()

    async def _start(self) -> None:
        token = trio.lowlevel.current_trio_token()

        def tell(what: Callable[..., object], *args: object) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(what, *args)

        try:
            now = int(self._clock.time())
            self._ids = itertools.count(await trio.to_thread.run_sync(self._writer.open, now))
        except BaseException:
            self._users = 0
            raise
        self._writer.start(
            lambda holds: tell(self._acknowledge, holds), lambda: tell(self._broken.set)
        )

    async def _stop(self) -> None:
        """Wait a little for calls that are being cut off, then write all there is."""
        if self._open and self._writer.alive:
            self._quiet = trio.Event()
            with trio.move_on_after(STOP_SECONDS):
                await self._quiet.wait()
        self._hand_over()
        await trio.to_thread.run_sync(self._writer.stop)
        await trio.to_thread.run_sync(self._writer.close)

    # Holds.

    def take_id(self) -> int:
        """The id of a new hold."""
        return next(self._ids)

    def covering(self, principal: Principal) -> tuple[Account, ...]:
        """The accounts that a caller's holds are reserved on."""
        return self._accounts.covering(principal)

    def reserve(self, hold: OpenHold) -> None:
        """Take a hold on each of its accounts, or raise what one of them refuses it with."""
        self._accounts.reserve(hold)
        self._open[hold.id] = hold

    async def commit(self, hold: OpenHold) -> None:
        """Return once the hold is written; raises `Failed` 503 where it cannot be."""
        writer = self._writer
        if writer.trouble or len(self._waiting) >= MANY_WAITING or not writer.alive:
            hold.expired = True
            raise cannot_write(writer.trouble or "the ledger does not keep up")
        hold.queued = self._clock.monotonic()
        hold.task = trio.lowlevel.current_task()
        self._waiting[hold.id] = hold
        self._hand_over()
        writer.add(hold)

        def abort(_: object) -> trio.lowlevel.Abort:
            hold.task = None
            hold.expired = True
            self._waiting.pop(hold.id, None)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if hold.failure is not None:
            raise hold.failure

    def settle(self, entry: Entry) -> None:
        """Give a hold back, book its charge, and see to it that its end is written."""
        hold = entry.hold
        if self._open.pop(hold.id, None) is None:
            return
        self._settled.append(entry)
        self._accounts.settle(hold, entry.charge)
        if not self._open and self._quiet is not None:
            self._quiet.set()
        if (flusher := self._flusher) is not None:
            self._flusher = None
            trio.lowlevel.reschedule(flusher)

    def _hand_over(self) -> None:
        if self._settled:
            settled, self._settled = self._settled, []
            self._writer.add(settled)

    def _acknowledge(self, holds: Sequence[OpenHold]) -> None:
        """Wake who waits: the holds are written, or say why not."""
        for hold in holds:
            self._waiting.pop(hold.id, None)
            if (task := hold.task) is not None:
                hold.task = None
                trio.lowlevel.reschedule(task)

    async def keep_up(self) -> None:
        """What must be done now and then. Raises once the ledger is not written any more."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush_now_and_then)
            nursery.start_soon(self._expire_now_and_then)
            await self._broken.wait()
            self._refuse(list(self._waiting.values()), "it is not written any more")
            raise RuntimeError("the ledger is not written any more")

    async def _flush_now_and_then(self) -> None:
        """Hand settlements over soon after the first, where no hold has taken them along."""
        while True:
            if not self._settled and self._flusher is None:
                self._flusher = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort_flusher)
            await trio.sleep(LAZY_SECONDS)
            self._hand_over()

    def _abort_flusher(self, _: object) -> trio.lowlevel.Abort:
        self._flusher = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _expire_now_and_then(self) -> None:
        """Refuse calls whose holds are not written in time, whatever holds the writer up."""
        while True:
            await trio.sleep(CHECK_SECONDS)
            overdue = self._clock.monotonic() - self._settings.hold_timeout
            late = [hold for hold in self._waiting.values() if hold.queued <= overdue]
            self._refuse(late, "the database is locked or slow")

    def _refuse(self, holds: Sequence[OpenHold], why: str) -> None:
        for hold in holds:
            hold.expired = True
            hold.failure = cannot_write(why)
        self._acknowledge(holds)

    # Accounts.

    @contextlib.asynccontextmanager
    async def attached(self, owner: str, accounts: Sequence[Account]) -> AsyncIterator[None]:
        """Reserve on these accounts too. See `tollkeeper.ledger.Ledger`."""
        own = Attached(owner, accounts)
        async with self.running():
            self._accounts.attach(own, self._open.values())
            try:
                for account in accounts:
                    await self._book(account)
                self._accounts.make_ready(own)
                yield
            finally:
                self._accounts.detach(own)

    async def _book(self, account: Account) -> None:
        self._hand_over()  # so that what was settled before stands before the question
        for org, key, charge in await self._writer.ask(spent_since, account.since):
            account.book(org, key, charge)
