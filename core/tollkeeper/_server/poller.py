"""Which sockets are ready: one epoll for all of them, asked once per pass of the event loop.

Trio's own waits set each socket's interest anew for every wait, which is a system call each time.
Here a socket is registered once, edge-triggered, and one task of trio's waits for the epoll as a
whole. Writes of one pass are made together at its end where several sockets are busy: a write
wakes the process that waits for it, and waking it once for many costs much less than each time.
"""

import contextlib
import logging
import select
from typing import Protocol

import trio

log = logging.getLogger("tollkeeper")

READ, WRITE = 1, 4
ENDED = 0x2000 | 0x10 | 0x8
"""EPOLLRDHUP, EPOLLHUP and EPOLLERR: the other side sends no more."""
_INTEREST = 0x80000000 | 0x2000 | READ | WRITE
"""EPOLLET, EPOLLRDHUP, EPOLLIN and EPOLLOUT, by number: other systems lack the names."""


class Watched(Protocol):
    """What a poller watches."""

    def on_ready(self, mask: int) -> None:
        """Something became possible: reading, also of an end or an error, or writing."""

    def flush(self) -> None:
        """Write what was posted. Raises nothing."""

    def give_up(self) -> None:
        """End the connection, after an error in `on_ready`."""


class Poller:
    """Readiness and posted writes of every socket in one trio run."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._posted: list[Watched] = []
        self._unread: list[Watched] = []
        self._flusher: trio.lowlevel.Task | None = None
        self._telling = False
        """Whether readiness is being told: what is posted meanwhile needs no flusher to wake."""
        self.crowded = False
        """Whether several sockets became ready in this pass of the loop."""

    def watch(self, fd: int, watched: Watched) -> None:
        """Tell `watched` whenever the socket becomes ready, until `forget`."""
        self._watched[fd] = watched
        self._epoll.register(fd, _INTEREST)

    def forget(self, fd: int) -> None:
        """Watch no more. To be called before the socket is closed."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def post(self, watched: Watched) -> None:
        """Have `watched.flush` called at the end of this pass."""
        self._posted.append(watched)
        if not self._telling and (flusher := self._flusher) is not None:
            self._flusher = None
            trio.lowlevel.reschedule(flusher)

    def read_on(self, watched: Watched) -> None:
        """Call `watched.on_ready` again in the next pass: it left something unread.

        From within `on_ready` only. Anywhere else the poller may wait already: see `look_again`.
        """
        self._unread.append(watched)

    def look_again(self, fd: int) -> None:
        """Tell of a socket anew if it is ready: setting its interest looks at it, as an edge."""
        if fd in self._watched:
            self._epoll.modify(fd, _INTEREST)

    async def run(self) -> None:
        """Pass readiness on, for as long as the run lasts."""
        with self._epoll:
            while True:
                if self._unread:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                unread, self._unread = self._unread, []
                ready = self._epoll.poll(0)
                self.crowded = len(ready) > 1
                self._telling = True
                for fd, mask in ready:
                    if (watched := self._watched.get(fd)) is not None:
                        self._tell(watched, mask)
                for watched in unread:
                    self._tell(watched, READ)
                self._telling = False
                self._flush()

    def _tell(self, watched: Watched, mask: int) -> None:
        """Whatever goes wrong with one socket stays with it: this task serves all of them."""
        try:
            watched.on_ready(mask)
        except Exception:
            log.exception("a connection ended by an error of its own")
            with contextlib.suppress(Exception):
                watched.give_up()

    async def run_flushes(self) -> None:
        """Make posted writes once all that runs in this pass has run."""
        while True:
            self._flush()
            self._flusher = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _flush(self) -> None:
        posted, self._posted = self._posted, []
        for watched in posted:
            watched.flush()

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._flusher = None
        return trio.lowlevel.Abort.SUCCEEDED


_current: trio.lowlevel.RunVar[Poller | None] = trio.lowlevel.RunVar("poller", None)


def current_poller() -> Poller | None:
    """The poller of this trio run, begun with the first call; None on a system without epoll."""
    poller = _current.get()
    if poller is None and hasattr(select, "epoll"):
        poller = Poller()
        _current.set(poller)
        trio.lowlevel.spawn_system_task(poller.run)
        trio.lowlevel.spawn_system_task(poller.run_flushes)
    return poller
