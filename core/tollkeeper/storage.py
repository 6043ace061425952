"""The database: opened once, one writer at a time, migrations per plugin.

Peewee is synchronous, so work runs in threads: `read` and `write` from trio, `transaction` and
`reading` from the command line, `session` from a thread of its own that lives long.
"""

import contextlib
import fcntl
import importlib.resources
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import peewee
import trio
from playhouse.migrations import Runner

from tollkeeper.announce import Announcer
from tollkeeper.errors import ConfigError, Problem, TollkeeperError

DEFAULT_ORG = "default"
READERS = 4
BUSY_SECONDS = 5
_PREFIX = "sqlite:///"
_MEMORY = ":memory:"

T = TypeVar("T")


class Org(peewee.Model):
    """Who pays. Made by the core, so that a key has an owner even while no account exists."""

    id = peewee.CharField(primary_key=True)
    name = peewee.CharField(unique=True)
    created_at = peewee.IntegerField()

    class Meta:
        table_name = "org"


class StorageError(TollkeeperError):
    """The database could not be opened, migrated or used. The message says what to do."""


def check_storage_url(url: str) -> str | None:
    """What is wrong with a storage URL, None when this version can serve it."""
    if url.startswith(("postgresql://", "postgres://")):
        return "PostgreSQL storage is not built into this version; use sqlite:///FILE"
    if not url.startswith(_PREFIX) or url == _PREFIX:
        return 'a storage URL is "sqlite:///FILE" or "sqlite:///:memory:"'
    return None


class Database:
    """One SQLite database. Made by `make_database`; usable between `open` and `close`."""

    def __init__(self, database: Any, path: Path | None) -> None:  # noqa: ANN401 -- peewee's
        self.path = path
        """The file, None for data in memory."""
        self.announcer = Announcer(path)
        self._database = database
        self._alone_in_memory = threading.RLock()
        self._writing = trio.CapacityLimiter(1)
        # Data in memory has one connection, which one thread may use at a time.
        self._reading = trio.CapacityLimiter(READERS) if path else self._writing

    def open(self) -> None:
        """Create what is missing and bring the core's tables up to date.

        Raises `StorageError` when the file cannot be used. Blocks; meant for start-up.
        """
        try:
            if self.path is None:
                self._database.connect()
            else:
                # It holds key hashes: only its owner may read it. SQLite gives its -wal that mode.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                self._wait_for_write_ahead_log()
            self.migrate("core", Path(__file__).parent / "migrations")
            with self.transaction() as database:
                ensure_org(database, DEFAULT_ORG)
        except (OSError, peewee.PeeweeException) as error:
            raise StorageError(
                f"cannot open the database {self.path or _MEMORY}: {error}"
            ) from error

    def _wait_for_write_ahead_log(self) -> None:
        """Be patient while another process holds the file: switching its mode is not, by itself."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                with self._connection():
                    return
            except peewee.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time in here: of two that start at once the second finds it all done.

        SQLite's own locks do not cover the switch of a fresh file to its write-ahead log. The lock
        is on the folder, for closing a second handle of the file would drop SQLite's locks on it.
        """
        if self.path is None:
            yield
            return
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """Peewee's database inside a write transaction, for code that runs in no event loop."""
        with self._connection(), self._database.atomic("immediate"):
            yield self._database

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        """Peewee's database as it is at one moment, for code that runs in no event loop."""
        with self._connection(), self._database.atomic("deferred"):
            yield self._database

    @contextlib.contextmanager
    def session(self, **pragmas: int | str) -> Iterator["Session"]:
        """A connection for the thread that calls, with its own pragmas, while the block lasts."""
        if self.path is None:
            yield Session(self._database, self._alone_in_memory)
            return
        with self._database.connection_context():
            for name, value in pragmas.items():
                self._database.pragma(name, value)
            yield Session(self._database, contextlib.nullcontext())

    @contextlib.contextmanager
    def _connection(self) -> Iterator[None]:
        if self.path is None:
            with self._alone_in_memory:
                yield  # the one connection stays open as long as the process
        else:
            with self._database.connection_context():
                yield

    async def write(self, work: Callable[..., T], *args: object) -> T:
        """Run `work(database, *args)` in a thread, in a transaction of its own."""

        def run() -> T:
            with self.transaction() as database:
                return work(database, *args)

        with trio.move_on_after(BUSY_SECONDS):  # in the queue: what runs, runs to its end
            return await trio.to_thread.run_sync(run, limiter=self._writing)
        raise StorageError("the database is busy")

    async def read(self, work: Callable[..., T], *args: object) -> T:
        """Run `work(database, *args)` in a thread. It must not write."""

        def run() -> T:
            with self._connection():
                return work(self._database, *args)

        return await trio.to_thread.run_sync(run, limiter=self._reading)

    async def is_usable(self) -> bool:
        """Whether a query gets an answer."""
        try:
            await self.read(lambda database: database.execute_sql("SELECT 1"))
        except peewee.PeeweeException:
            return False
        return True

    async def migrate_in_thread(self, name: str, package: str) -> list[str]:
        """`migrate_package` while requests run: another process may hold it up."""
        return await trio.to_thread.run_sync(
            self.migrate_package, name, package, limiter=self._writing
        )

    def migrate_package(self, name: str, package: str) -> list[str]:
        """Apply the migrations that a plugin's package brings along, if it does."""
        directory = find_migrations(package)
        return self.migrate(name, directory) if directory else []

    def migrate(self, name: str, directory: Path) -> list[str]:
        """Apply what is new in a plugin's `migrations/`. Returns the names of what it applied.

        Each plugin has a history table of its own: the runner keys it by file name, so two plugins
        with a `0001_first.py` would otherwise hide each other's.
        """
        runner = Runner(self._database, str(directory), table_name=f"migrations_{name}")
        try:
            with self._alone(), self._connection(), self._database.atomic("exclusive"):
                return list(runner.up())
        except Exception as error:
            where = self.path or _MEMORY
            raise StorageError(f"{where}: migrations of {name} failed: {error}") from error

    def close(self) -> None:
        """Close what is open. Data in memory is gone afterwards."""
        self._database.close()


class Session:
    """A thread's own connection. Made by `Database.session`."""

    def __init__(self, database: Any, alone: Any) -> None:  # noqa: ANN401 -- peewee's, a lock
        self.database = database
        """Peewee's database, connected for this thread."""
        self._alone = alone

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor inside a write transaction: committed at the end, rolled back on an error.

        Raises what the driver raises: the cursor is its own, for rows in bulk.
        """
        with self._alone:
            connection = self.database.connection()
            cursor = connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(Exception):
                    cursor.execute("ROLLBACK")
                raise


def is_unusable(error: Exception) -> bool:
    """Whether it says that the database is down, locked or full, and not that a query is wrong."""
    return isinstance(error, peewee.OperationalError | peewee.InterfaceError | StorageError)


def find_migrations(package: str) -> Path | None:
    """The `migrations/` of a plugin's package, if it has one."""
    if package.partition(".")[0] in ("", "tollkeeper", "__main__"):
        return None  # a plugin of a test or a script; the core's own tables are made by `open`
    try:
        directory = Path(str(importlib.resources.files(package) / "migrations"))
    except (ModuleNotFoundError, TypeError):
        return None  # a plugin in a module of its own brings no folder
    return directory if directory.is_dir() else None


def make_database(url: str, root: Path) -> Database:
    """The database of a storage URL, relative to `root`; nothing is opened or created yet.

    Raises `ConfigError` for a URL that nobody serves.
    """
    if (wrong := check_storage_url(url)) is not None:
        raise ConfigError([Problem("storage.url", wrong)])
    name = url.removeprefix(_PREFIX)
    pragmas: dict[str, int | str] = {"foreign_keys": 1, "busy_timeout": BUSY_SECONDS * 1000}
    if name == _MEMORY:
        memory = peewee.SqliteDatabase(
            _MEMORY,
            pragmas=pragmas,
            thread_safe=False,
            check_same_thread=False,
            autoconnect=False,
        )
        return Database(memory, None)
    pragmas |= {"journal_mode": "wal", "synchronous": "full"}
    path = root / name
    return Database(peewee.SqliteDatabase(str(path), pragmas=pragmas, autoconnect=False), path)


def ensure_org(database: Any, org: str) -> str:  # noqa: ANN401 -- peewee's
    """The id of the organization with this id, else of this name; made if there is neither."""
    for given in (Org.id, Org.name):
        for row in Org.select(Org.id).where(given == org).tuples().execute(database):
            return str(row[0])
    Org.insert(id=org, name=org, created_at=int(time.time())).execute(database)
    return org
