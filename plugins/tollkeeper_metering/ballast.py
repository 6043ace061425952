"""A file that holds disk space for settlements, and says which process writes the ledger."""

import fcntl
import os
import time
from pathlib import Path

_ZEROS = bytes(65536)
PATIENCE = 5.0
"""Seconds to wait for a process that is just going down."""


class Occupied(Exception):
    """Another process writes this ledger."""


class Ballast:
    """`<database>.ballast`, locked while this process writes the ledger beside it."""

    def __init__(self, database: Path, size: int) -> None:
        self._size = size
        path = database.with_name(database.name + ".ballast")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._lock(database)
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self, database: Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Occupied(
                        f"another gateway keeps its ledger in {database}; stop it, or give this"
                        " one a storage.url of its own"
                    ) from None
                time.sleep(0.05)

    def fill(self) -> bool:
        """Take the space. False where the disk has not that much."""
        try:
            self._allocate()
            os.ftruncate(self._file, self._size)
        except OSError:
            self.give_up()
            return False
        return True

    def _allocate(self) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file, 0, self._size)
            return
        for start in range(0, self._size, len(_ZEROS)):  # macOS
            os.pwrite(self._file, _ZEROS, start)

    def give_up(self) -> None:
        """Give the space to whoever writes next."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Let another process write the ledger."""
        os.close(self._file)
