"""Bytes over a socket, with as few passes through the scheduler as can be.

The same methods as a trio stream, so that a memory stream can stand in. What makes the path of a
call short: a write is posted, not waited for, and a read waits until there is something instead of
trying first.
"""

import select
import socket
from collections.abc import Callable

import trio

from tollkeeper._server.poller import ENDED, WRITE, Poller, current_poller

READ_SIZE = 65536


class SocketChannel:
    """A connected trio socket. Owns it."""

    def __init__(self, owner: trio.socket.SocketType) -> None:
        self._owner = owner
        # A second handle on the same descriptor: trio's own methods cost a wrapper each.
        self._raw = socket.socket(fileno=owner.fileno())
        self._poller: Poller | None = current_poller()
        self._readable = False
        self._ending = False
        self._reader: trio.lowlevel.Task | None = None
        self._listener: Callable[[bytes], None] | None = None
        self._look: select.poll | None = None
        self._rest: bytes | memoryview = b""
        self._drained: trio.Event | None = None
        self._error = ""
        self.blocked = False
        """Whether the kernel takes no more until the other side reads."""
        self.broken = False
        """Whether what a listener heard ended by an error, such as a reset."""
        self.sent = 0
        """Bytes that the kernel has taken."""
        if self._poller is not None:
            self._poller.watch(self._raw.fileno(), self)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing can be read: on an idle connection anything means closed or broken."""
        if self._look is None:
            self._look = select.poll()
            self._look.register(self._raw, select.POLLIN)
        return not self._look.poll(0)

    # Called by the poller.

    def on_ready(self, mask: int) -> None:
        """Read for whoever listens, or wake whoever waits; write what is left."""
        if mask & ~WRITE and self._raw.fileno() != -1:
            self._readable = True
            self._ending = self._ending or bool(mask & ENDED)
            if self._listener is not None:
                self._read_now()
            elif (reader := self._reader) is not None:
                self._reader = None
                trio.lowlevel.reschedule(reader)
        if mask & WRITE and self.blocked:
            self.flush()

    def _read_now(self) -> None:
        """Hand one read to the listener; what is left waits for the next pass."""
        listener, poller = self._listener, self._poller
        if listener is None or poller is None or not self._readable:
            return
        try:
            data = self._raw.recv(READ_SIZE)
        except BlockingIOError:
            self._readable = False
            return
        except OSError:
            data, self.broken = b"", True
        # An end told in the same breath as the data makes no edge of its own.
        self._readable = len(data) == READ_SIZE or (self._ending and bool(data))
        listener(data)
        if self._readable:
            poller.read_on(self)

    def flush(self) -> None:
        """Write what was posted, as far as the kernel takes it; the poller calls again."""
        rest = self._rest
        try:
            count = self._raw.send(rest) if rest else 0
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._error, self._rest, rest = str(error), b"", b""
            count = 0
        self.sent += count
        self._rest = b"" if count == len(rest) else memoryview(rest)[count:]
        self.blocked = bool(self._rest)
        if self._drained is not None and not self.blocked:
            self._drained.set()

    def give_up(self) -> None:
        """Nothing more is read, and whoever listens is told of the end."""
        listener = self._listener
        self.shut_down()
        if listener is not None:
            listener(b"")

    # Called by the owner.

    def listen(self, listener: Callable[[bytes], None] | None) -> bool:
        """Call `listener` with all that arrives, and with `b""` at the end; None pauses.

        False on a system without epoll: read there with `receive_some`.
        """
        self._listener = listener
        if self._poller is not None and listener is not None and self._readable:
            self._poller.look_again(self._raw.fileno())
        return self._poller is not None

    def post(self, data: bytes) -> None:
        """Write, at the latest when all that runs in this pass of the loop has run.

        What the kernel does not take then goes on by itself; see `blocked` and `drain`.
        """
        if self._error:
            raise trio.BrokenResourceError(self._error)
        if self._rest:
            self._rest = b"".join([self._rest, data])
            return
        self._rest = data
        if self._poller is not None and self._poller.crowded:
            self._poller.post(self)
            return
        self.flush()
        if self._error:
            raise trio.BrokenResourceError(self._error)

    async def drain(self) -> None:
        """Wait until the kernel has taken everything."""
        if self._rest and not self.blocked:
            self.flush()
        while self.blocked:
            if self._poller is None:
                await self._wait(trio.lowlevel.wait_writable)
                self.flush()
            else:
                self._drained = trio.Event()
                await self._drained.wait()
                self._drained = None
        if self._error:
            raise trio.BrokenResourceError(self._error)

    async def send_all(self, data: bytes) -> None:
        """Post, and wait where the kernel takes no more. No checkpoint where it does."""
        self.post(data)
        if self.blocked:
            await self.drain()

    async def receive_some(self, max_bytes: int = READ_SIZE) -> bytes:
        """Wait for bytes; `b""` at the end."""
        while True:
            await self._wait_readable()
            try:
                data = self._raw.recv(max_bytes)
            except BlockingIOError:
                self._readable = False
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from None
            else:
                # Less than asked for means that there is no more: the next edge will tell.
                self._readable = len(data) == max_bytes or not data or self._ending
                return data

    async def _wait_readable(self) -> None:
        """A checkpoint in any case, so that one fast sender cannot starve others."""
        if self._raw.fileno() == -1:
            raise trio.ClosedResourceError("this connection is closed")
        if self._poller is None:
            await self._wait(trio.lowlevel.wait_readable)
        elif self._readable:
            await trio.lowlevel.checkpoint()
        elif self._reader is not None:
            raise trio.BusyResourceError("another task reads from this connection")
        else:
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort_read)
        if self._raw.fileno() == -1:
            raise trio.ClosedResourceError("this connection was closed meanwhile")

    def _abort_read(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _wait(self, until: object) -> None:
        """Trio's own wait, on a system without epoll."""
        try:
            await until(self._raw)  # type: ignore[operator] # one of trio's two waits
        except (OSError, ValueError) as error:
            raise trio.ClosedResourceError(str(error)) from None

    def shut_down(self) -> None:
        """End both directions: whoever waits in here sees the end of the connection."""
        try:
            self._raw.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    async def send_eof(self) -> None:
        """End our direction, behind everything that was posted."""
        await self.drain()
        try:
            self._raw.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def aclose(self) -> None:
        """Close, without waiting for anything; what was posted and not yet written is lost."""
        self.close()

    def close(self) -> None:
        """Close. Safe to call twice."""
        fd = self._raw.fileno()
        if fd == -1:
            return
        if self._poller is not None:
            self._poller.forget(fd)
        self._raw.detach()
        self._owner.close()
        self._error, self._rest, self.blocked = "the connection is closed", b"", False
        self._listener = None
        if self._drained is not None:
            self._drained.set()
        if (reader := self._reader) is not None:
            self._reader = None
            trio.lowlevel.reschedule(reader)
