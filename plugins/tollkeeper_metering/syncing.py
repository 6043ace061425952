"""Brings what was written to the disk, beside the thread that writes."""

import logging
import os
import threading
from typing import Protocol

from tollkeeper import Database, Session
from tollkeeper_metering.settings import MeteringSettings

log = logging.getLogger("tollkeeper.metering")

CHECKPOINT_COMMITS = 400
"""Transactions after which the write-ahead log is copied into the database."""

MOST_PAGES = 16384
"""Of the write-ahead log, 64 MiB, beyond which it is begun anew whatever it takes."""


class Writing(Protocol):
    """What the syncer must know of the writer."""

    commits: int
    settings: MeteringSettings


class Syncer:
    """A thread that syncs the write-ahead log soon after each transaction, and checkpoints it.

    A transaction does not wait for it, for neither needs a lock that a writer takes. Only where
    calls follow each other so closely that the log never comes to its end, and it has grown large,
    is the writer held up while what is left of it is copied: some milliseconds.
    """

    def __init__(self, database: Database, writer: Writing) -> None:
        self._database = database
        self._writer = writer
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name="ledger-sync", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Sync once more, and end. Blocks."""
        self._stopping.set()
        self._thread.join()

    def _live(self) -> None:
        synced = copied = 0
        with self._database.session() as session:
            while not self._stopping.wait(self._writer.settings.sync_interval):
                if (commits := self._writer.commits) != synced and self._sync():
                    synced = commits
                if commits - copied >= CHECKPOINT_COMMITS and self._checkpoint(session):
                    copied = commits
            self._sync()

    def _sync(self) -> bool:
        path = f"{self._database.path}-wal"
        try:
            log_file = os.open(path, os.O_RDONLY)
            try:
                getattr(os, "fdatasync", os.fsync)(log_file)
            finally:
                os.close(log_file)
        except FileNotFoundError:
            return True  # all of it was copied, and the log taken away
        except OSError:
            log.exception("the ledger could not be synced to the disk")
            return False
        return True

    def _checkpoint(self, session: Session) -> bool:
        try:
            query = session.database.execute_sql("PRAGMA wal_checkpoint(PASSIVE)")
            _, pages, _ = query.fetchone()
            if pages > MOST_PAGES:
                session.database.execute_sql("PRAGMA wal_checkpoint(RESTART)")
        except Exception:
            log.exception("the write-ahead log could not be copied")
            return False
        return True
