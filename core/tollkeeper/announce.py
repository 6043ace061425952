"""Telling other processes on the same database that something changed, and waiting for them.

Each serving process listens on a Unix socket beside the database file. A process that changed
something sends the topic to all of them and returns once each has applied it, so that a key revoked
by the command line is refused by the gateway before the command ends.
"""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import trio

from tollkeeper.errors import TollkeeperError

log = logging.getLogger(__name__)

ACKNOWLEDGE_SECONDS = 5.0
_DONE = b"done\n"
_MAX_TOPIC = 256

Subscriber = Callable[[], Awaitable[None]]


class Announcer:
    """Changes by topic, within this process and to others on the same database file."""

    def __init__(self, database: Path | None) -> None:
        self._database = database.resolve() if database else None
        self._subscribers: dict[str, list[Subscriber]] = {}
        # A process id alone would not do: in containers that share the file all are number 1.
        self._own = f"{os.getpid()}-{secrets.token_hex(4)}.sock"

    @contextlib.contextmanager
    def subscribed(self, topic: str, apply: Subscriber) -> Iterator[None]:
        """While entered, `apply` is awaited for each change announced under `topic`."""
        subscribers = self._subscribers.setdefault(topic, [])
        subscribers.append(apply)
        try:
            yield
        finally:
            subscribers.remove(apply)

    async def apply(self, topic: str) -> None:
        """Let this process's subscribers apply a change."""
        for subscriber in tuple(self._subscribers.get(topic, ())):
            await subscriber()

    def tell_others(self, topic: str) -> list[str]:
        """Tell every serving process and wait until each has applied it.

        Blocks up to `ACKNOWLEDGE_SECONDS` per process. Returns the sockets of those that are alive
        but did not confirm; an empty list means that the change is in force everywhere.
        """
        others = (path for path in self._sockets() if not path.name.endswith(self._own))
        return [str(path) for path in others if not _tell(path, topic)]

    def _sockets(self) -> list[Path]:
        if self._database is None:
            return []
        return sorted(
            path
            for path in self._database.parent.iterdir()
            if path.name.startswith(f"{self._database.name}.") and path.suffix == ".sock"
        )

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """While entered, other processes' announcements reach this one."""
        if self._database is None:
            yield
            return
        path = self._database.with_name(f"{self._database.name}.{self._own}")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Under its name only once it listens: a socket that refuses is taken for a dead one's.
        unready = path.with_suffix(".new")
        with _reachable(unready) as address:
            listener.bind(address)
        unready.chmod(0o600)
        listener.listen(16)
        unready.rename(path)
        try:
            async with trio.open_nursery() as nursery:
                listen = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
                nursery.start_soon(trio.serve_listeners, self._serve, [listen])
                yield
                nursery.cancel_scope.cancel()
        finally:
            path.unlink(missing_ok=True)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(ACKNOWLEDGE_SECONDS):
                topic = await stream.receive_some(_MAX_TOPIC)
                await self.apply(topic.decode().strip())
                await stream.send_all(_DONE)
        except trio.BrokenResourceError:
            log.warning("the process that announced a change did not wait for its confirmation")
        except Exception:
            # The other side sees no confirmation and says so; this process goes on serving.
            log.exception("a change announced by another process could not be applied")
        finally:
            await trio.aclose_forcefully(stream)


def _tell(path: Path, topic: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, _reachable(path) as address:
        client.settimeout(ACKNOWLEDGE_SECONDS)
        try:
            client.connect(address)
            client.sendall(f"{topic}\n".encode())
            return client.recv(len(_DONE)) == _DONE
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)  # left by a process that was killed
            return True
        except OSError:
            return False


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """An address for the socket that fits into the 108 bytes that the kernel allows."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise TollkeeperError(f"the path {path} is too long for a socket: move the database")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
