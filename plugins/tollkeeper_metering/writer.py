"""The one thread that writes the ledger: many callers' rows in one transaction."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import Any

import trio

from tollkeeper import Database, Failed, PluginError, Session
from tollkeeper_metering.ballast import Ballast, Occupied
from tollkeeper_metering.entries import Entry, OpenHold
from tollkeeper_metering.rows import Rows
from tollkeeper_metering.settings import MeteringSettings
from tollkeeper_metering.syncing import Syncer

log = logging.getLogger("tollkeeper.metering")

MOST_HOLDS = 2000
"""In one transaction."""
RETRY_SECONDS = 0.05
RECOVER_SECONDS = 0.5
BUSY_MS = 200
STOP_SECONDS = 30.0
FULL = "its disk is full"
_FULL_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

Question = tuple[Callable[[Any], Any], Callable[[Any], None]]
"""What to ask the database after all that was handed over before, and whom to tell."""
Written = Callable[[Sequence[OpenHold]], None]


def cannot_write(why: str) -> Failed:
    """The answer to a call whose hold cannot be written."""
    message = f"The gateway cannot record this call: {why}. Nothing was sent; try again later."
    return Failed(503, "server_error", message, headers={"retry-after": "5"})


class Writer:
    """Writes holds and entries in the order in which they were added."""

    def __init__(self, database: Database) -> None:
        self.settings = MeteringSettings()
        self.trouble = ""
        """Why no hold can be written now; empty while all is well."""
        self.alive = False
        self.commits = 0
        """Transactions so far."""
        self._database = database
        self._queue: SimpleQueue[OpenHold | list[Entry] | Question | None] = SimpleQueue()
        self._entries: list[Entry] = []
        """Taken from the queue and not yet written, whatever fails."""
        self._rows = Rows()
        self._ballast: Ballast | None = None
        self._syncer: Syncer | None = None
        self._thread: threading.Thread | None = None
        self._level = ""
        self._failing = False
        """Whether the last transaction came to nothing, which is logged once."""

    def open(self, now: int) -> int:
        """Begin a chain and close the orphans. Returns the id of the next hold. Blocks.

        Raises `PluginError` where another process writes this ledger.
        """
        path = self._database.path
        if path is not None:
            try:
                self._ballast = Ballast(path, self.settings.ballast)
            except Occupied as error:
                raise PluginError(str(error)) from None
            self.trouble = "" if self._ballast.fill() else FULL
        self._rows = Rows()
        try:
            session = self._database.session(wal_autocheckpoint=0)
            with session as own, own.transaction() as cursor:
                orphans = self._rows.begin(cursor, now)
        except BaseException:
            if self._ballast is not None:
                self._ballast.close()
            raise
        self._rows.keep()
        if orphans:
            log.warning("%d calls were under way when the gateway last ended", orphans)
        return self._rows.next_hold

    def start(self, written: Written, died: Callable[[], None]) -> None:
        """Start the thread. It calls `written` with holds that need not wait any more."""
        self.alive = True
        self._thread = threading.Thread(
            target=self._live, args=(written, died), name="ledger", daemon=True
        )
        self._thread.start()
        if self._database.path is not None:
            self._syncer = Syncer(self._database, self)
            self._syncer.start()

    def stop(self) -> None:
        """Write what was added, and end the thread. Blocks."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        self.alive = False

    def close(self) -> None:
        """Bring all that was written to the disk, and let others write. Blocks."""
        if self._syncer is not None:
            self._syncer.stop()
            self._syncer = None
        if self._thread is not None and self._thread.is_alive():
            log.error("the ledger could not be written in time: open calls end as estimated")
        elif self._ballast is not None:
            self._ballast.close()
            self._ballast = None

    def add(self, item: OpenHold | list[Entry]) -> None:
        """Have a hold or some entries written."""
        self._queue.put(item)

    async def ask(self, question: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
        """What `question(database, *args)` says once all that was added before is written."""
        token, answered = trio.lowlevel.current_trio_token(), trio.Event()
        answers: list[Any] = []

        def tell(answer: object) -> None:
            answers.append(answer)
            token.run_sync_soon(answered.set)

        self._queue.put((lambda database: question(database, *args), tell))
        await answered.wait()
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    # In the thread.

    def _session(self) -> AbstractContextManager[Session]:
        return self._database.session(wal_autocheckpoint=0, busy_timeout=BUSY_MS)

    def _live(self, written: Written, died: Callable[[], None]) -> None:
        try:
            with self._session() as session:
                self._level = ""
                while self._step(session, written):
                    pass
        except BaseException:
            log.exception("the ledger's thread died")
            self.alive = False
            died()

    def _step(self, session: Session, written: Written) -> bool:
        """One transaction. False once all is over."""
        self._set_level(session)
        holds, questions, goes_on = self._collect()
        while not self._try(session, holds):
            if self.trouble:
                for hold in holds:
                    hold.failure = cannot_write(self.trouble)
                written(holds)
                holds = []
            threading.Event().wait(RETRY_SECONDS)
        if holds:
            written(holds)
        for ask, tell in questions:
            self._answer(ask, tell)
        return goes_on

    def _set_level(self, session: Session) -> None:
        """Holds that survive a power cut are synced with their commit, others beside it."""
        level = "full" if self.settings.sync_holds else "normal"
        if level != self._level and self._database.path is not None:
            session.database.pragma("synchronous", level)
        self._level = level

    def _collect(self) -> tuple[list[OpenHold], list[Question], bool]:
        holds: list[OpenHold] = []
        questions: list[Question] = []
        queue = self._queue
        try:
            item = queue.get(timeout=RECOVER_SECONDS if self.trouble else None)
            while item is not None:
                if isinstance(item, OpenHold):
                    holds.append(item)
                elif isinstance(item, list):
                    self._entries += item
                else:
                    questions.append(item)
                    break  # what was added after it is written after its answer
                if len(holds) >= MOST_HOLDS:
                    break
                item = queue.get_nowait()
            else:
                return holds, questions, False
        except Empty:
            self._recover()
        return holds, questions, True

    def _try(self, session: Session, holds: Sequence[OpenHold]) -> bool:
        """Write holds and the entries that wait, unless nobody wants them. False on a failure."""
        wanted = [hold for hold in holds if not hold.expired]
        for hold in wanted:
            hold.written = True
        entries = [entry for entry in self._entries if entry.hold.written]
        try:
            self._write(session, wanted, entries)
        except sqlite3.Error as error:
            for hold in wanted:
                hold.written = False
            self._fail(error)
            return False
        self._entries = []
        self._failing = False
        return True

    def _write(self, session: Session, holds: Sequence[OpenHold], entries: Sequence[Entry]) -> None:
        if not holds and not entries:
            return
        try:
            with session.transaction() as cursor:
                self._rows.write(cursor, holds, entries)
        except (sqlite3.IntegrityError, OverflowError) as error:
            if len(holds) + len(entries) == 1:
                log.critical("a row of the ledger was refused by its table: %s", error)
                for hold in holds:
                    hold.written, hold.failure = False, cannot_write("its row was refused")
                return
            for hold in holds:
                self._write(session, [hold], [])
            for entry in entries:
                self._write(session, [], [entry])
        else:
            self._rows.keep()
            self.commits += 1

    def _fail(self, error: sqlite3.Error) -> None:
        """A full disk is told to every call, and gets its ballast back; a lock is waited for."""
        if not self._failing:
            log.error("the ledger cannot be written at once: %s", error)
        self._failing = True
        if error.sqlite_errorcode & 0xFF not in _FULL_CODES:
            return
        self.trouble = FULL
        if self._ballast is not None:
            self._ballast.give_up()

    def _recover(self) -> None:
        if self.trouble and (self._ballast is None or self._ballast.fill()):
            log.warning("the ledger can be written again")
            self.trouble = ""

    def _answer(self, ask: Callable[[Any], Any], tell: Callable[[Any], None]) -> None:
        try:
            with self._database.reading() as database:
                answer = ask(database)
        except Exception as error:  # noqa: BLE001 -- handed to whoever asked
            answer = error
        tell(answer)
