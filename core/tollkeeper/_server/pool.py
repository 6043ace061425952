"""Connections to upstreams of the whole process: a LIFO pool of links, and their deadlines."""

import os
import ssl
from collections import deque
from math import inf

import trio

from tollkeeper._server.channel import SocketChannel
from tollkeeper._server.link import Link
from tollkeeper._server.tls import TlsChannel
from tollkeeper.errors import UpstreamError

IDLE_SECONDS = 4.0
"""Idle connections older than this are not reused: common servers close theirs after 5 s."""
SWEEP_SECONDS = 0.1
"""How late a deadline may be noticed."""

Origin = tuple[str, str, int]
"""Scheme, host, port."""


class Pool:
    """Idle connections of the whole process, by origin. Lives as long as the gateway."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[Link]] = {}
        self._busy: set[Link] = set()
        self._dead: list[Link] = []
        """Found dead, and not yet closed."""
        self._tls: ssl.SSLContext | None = None
        self._swept = 0.0
        self._due = inf
        """No connection's deadline is before this."""

    @property
    def now(self) -> float:
        """The time of the last sweep: asking the clock for each read would cost too much.

        It is behind by `SWEEP_SECONDS` at most, so deadlines reckoned from it add as much.
        """
        return self._swept or trio.current_time()

    @property
    def busy(self) -> int:
        """Connections that carry a request now."""
        return len(self._busy)

    @property
    def idle(self) -> int:
        """Connections that wait for one."""
        return sum(map(len, self._idle.values()))

    async def take(self, origin: Origin, connect_timeout: float, *, fresh: bool = False) -> Link:
        """An idle connection that is still alive, or a new one; with `fresh` a new one."""
        link = None if fresh else self.take_idle(origin)
        while self._dead:
            await self._dead.pop().aclose()
        if link is None:
            link = await self._connect(origin, connect_timeout)
            self._busy.add(link)
        return link

    def take_idle(self, origin: Origin) -> Link | None:
        """An idle connection that is still alive. What is found dead is closed by others."""
        idle = self._idle.get(origin)
        while idle:
            link = idle.pop()
            if self.now - link.idle_since < IDLE_SECONDS and link.is_alive():
                self._busy.add(link)
                return link
            self._dead.append(link)
        return None

    def give_back(self, origin: Origin, link: Link) -> None:
        """Keep a connection whose reply was read to its end."""
        self._busy.discard(link)
        link.idle_since, link.deadline = self.now, inf
        self._idle.setdefault(origin, deque()).append(link)

    async def drop(self, link: Link) -> None:
        """Close a connection whose reply was given up."""
        self._busy.discard(link)
        await link.aclose()

    def set_deadline(self, link: Link, deadline: float) -> None:
        """Have a connection expire at `deadline`, unless it is set anew before."""
        link.deadline = deadline
        if deadline < self._due:
            self._due = deadline

    async def run(self) -> None:
        """Keep every deadline, by a look at all connections once one may have passed."""
        while True:
            now = self._swept = trio.current_time()
            if self._due <= now:
                self._expire(now)
            while self._dead:
                await self._dead.pop().aclose()
            for idle in tuple(self._idle.values()):
                while idle and now - idle[0].idle_since >= IDLE_SECONDS:
                    await idle.popleft().aclose()
            await trio.sleep(SWEEP_SECONDS)

    def _expire(self, now: float) -> None:
        for link in self._busy:
            if link.deadline <= now:
                link.deadline = inf
                link.expire()
        self._due = min((link.deadline for link in self._busy), default=inf)

    async def _connect(self, origin: Origin, timeout: float) -> Link:
        scheme, host, port = origin
        try:
            with trio.fail_after(timeout):
                stream = await trio.open_tcp_stream(host, port)
                channel = SocketChannel(stream.socket)
                return Link(channel if scheme == "http" else await self._start_tls(channel, host))
        except trio.TooSlowError:
            raise UpstreamError("timeout", f"no connection within {timeout:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:
            raise UpstreamError("connect", f"cannot connect: {error}") from error

    async def _start_tls(self, channel: SocketChannel, host: str) -> TlsChannel:
        if self._tls is None:
            import certifi  # start-up does without it

            self._tls = ssl.create_default_context(
                cafile=os.environ.get("SSL_CERT_FILE") or certifi.where()
            )
            self._tls.set_alpn_protocols(["http/1.1"])
        secure = TlsChannel(channel, self._tls, host)
        try:
            await secure.do_handshake()
        except BaseException:
            channel.close()
            raise
        return secure

    async def aclose(self) -> None:
        """Close what is idle."""
        for links in [self._dead, *self._idle.values()]:
            for link in links:
                await link.aclose()
        self._idle.clear()
        self._dead.clear()
