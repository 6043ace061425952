"""Connections to upstreams: a LIFO pool of links, their deadlines, and the Reply they give."""

import os
import ssl
from collections import deque
from collections.abc import Mapping
from math import inf
from urllib.parse import urlsplit

import trio

from tollkeeper._server.channel import SocketChannel
from tollkeeper._server.link import Link
from tollkeeper._server.slices import slices
from tollkeeper._server.tls import TlsChannel
from tollkeeper.errors import UpstreamError
from tollkeeper.exchange import Attempt
from tollkeeper.provider import UpstreamRequest
from tollkeeper.settings import ProviderSettings

IDLE_SECONDS = 4.0
"""Idle connections older than this are not reused: common servers close theirs after 5 s."""
SWEEP_SECONDS = 0.1
"""How late a deadline may be noticed."""
SWEPT_AT_ONCE = 500
MAX_BODY = 32 * 1024**2
MANY_STARTS = 1000
"""Request lines with their fixed headers that are kept encoded, per provider."""

Origin = tuple[str, str, int]
"""Scheme, host, port."""
FixedHeaders = tuple[tuple[bytes, bytes], ...]


class Pool:
    """Idle connections of the whole process, by origin. Lives as long as the gateway."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[Link]] = {}
        self._busy: set[Link] = set()
        self._dead: list[Link] = []
        """Found dead, and not yet closed."""
        self._tls: ssl.SSLContext | None = None
        self._swept = 0.0

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

    async def run(self) -> None:
        """Keep every deadline: a look at all connections, instead of a timer for each read."""
        while True:
            some = slices(self._busy, SWEPT_AT_ONCE)
            for links in some:
                now = self._swept = trio.current_time()
                for link in links:
                    if link.deadline <= now:
                        link.expire()
                await trio.sleep(SWEEP_SECONDS / len(some))
            while self._dead:
                await self._dead.pop().aclose()
            for idle in tuple(self._idle.values()):
                while idle and now - idle[0].idle_since >= IDLE_SECONDS:
                    await idle.popleft().aclose()

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


class PooledUpstream:
    """One `[providers.*]` table's connections and deadlines."""

    def __init__(self, pool: Pool, settings: ProviderSettings) -> None:
        url = urlsplit(settings.base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        self.origin: Origin = (url.scheme, url.hostname or "", port)
        self.prefix = url.path.rstrip("/")
        self.settings = settings
        self._host = url.netloc.rpartition("@")[2]
        self._pool = pool
        self._starts: dict[tuple[str, str, FixedHeaders], bytes] = {}

    async def send(self, request: UpstreamRequest, attempt: Attempt | None) -> "UpstreamReply":
        """Send and wait for the head of the reply. Without an attempt for adapters' own calls."""
        data = self._encode(request)
        end = self.deadline(self.settings.timeout)
        link = self._pool.take_idle(self.origin)
        if link is None:
            link = await self._pool.take(self.origin, self.settings.connect_timeout)
        try:
            return await self._send_over(link, data, end, attempt)
        except UpstreamError:
            if link.expired or not link.is_untouched:
                raise
        # The idle connection had died unnoticed, and the upstream has seen nothing.
        link = await self._pool.take(self.origin, self.settings.connect_timeout, fresh=True)
        return await self._send_over(link, data, end, attempt)

    async def _send_over(
        self, link: Link, data: bytes, end: float, attempt: Attempt | None
    ) -> "UpstreamReply":
        if attempt is not None:
            attempt.sent = True
        link.deadline = min(end, self.deadline(self.settings.first_byte_timeout))
        try:
            await link.request(data)
        except BaseException:
            await self._pool.drop(link)
            raise
        link.deadline = end
        return UpstreamReply(self, link, end)

    def deadline(self, seconds: float) -> float:
        """When something that may take `seconds` from now on is overdue, or a little later."""
        return self._pool.now + SWEEP_SECONDS + seconds

    def _encode(self, request: UpstreamRequest) -> bytes:
        key = (request.method, request.path, request.fixed_headers)
        start = self._starts.get(key)
        if start is None:
            if len(self._starts) >= MANY_STARTS:
                self._starts.clear()
            start = self._starts[key] = self._encode_start(request)
        lines = [b"%b: %b\r\n" % header for header in request.headers]
        own = b"".join(lines)
        if own.count(b"\n") != len(lines) or own.count(b"\r") != len(lines):
            raise UpstreamError("broken", "a header for the upstream contains a line break")
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (start, own, len(request.body), request.body)

    def _encode_start(self, request: UpstreamRequest) -> bytes:
        """Request line and the headers that are the same each time."""
        lines = [
            f"{request.method} {self.prefix}{request.path} HTTP/1.1".encode("ascii"),
            b"host: " + self._host.encode("idna" if not self._host.isascii() else "ascii"),
            *(name + b": " + value for name, value in request.fixed_headers),
            b"accept-encoding: identity",  # bytes are passed on, so they must come as they are
        ]
        start = b"\r\n".join([*lines, b""])
        if start.count(b"\n") != len(lines) or start.count(b"\r") != len(lines):
            raise UpstreamError("broken", "a header for the upstream contains a line break")
        return start

    def keep(self, link: Link) -> bool:
        """Keep a connection whose reply was read to its end; whether it was one."""
        if reusable := link.reusable:
            self._pool.give_back(self.origin, link)
        return reusable

    async def release(self, link: Link) -> None:
        """Keep a connection whose reply was read to its end, close any other."""
        if not self.keep(link):
            await self._pool.drop(link)


class UpstreamReply:
    """A reply as it arrives."""

    def __init__(self, upstream: PooledUpstream, link: Link, end: float) -> None:
        self.status = link.status
        self.headers: Mapping[str, str] = link.headers
        self._upstream = upstream
        self._link = link
        self._end = end
        self.closed = False

    async def chunk(self) -> bytes:
        """The bytes that have arrived since, `b""` at the clean end."""
        if self.closed:
            return b""
        if data := self._link.chunk_now():
            return self._last(data)
        upstream = self._upstream
        self._link.deadline = min(self._end, upstream.deadline(upstream.settings.idle_timeout))
        data = await self._link.chunk()
        self._link.deadline = self._end  # a client may take long for what is here already
        if not data:
            await self.aclose()
        return self._last(data) if data else data

    def _last(self, data: bytes) -> bytes:
        """What was read; where it ends the reply, the connection is kept at once."""
        if self._link.is_whole:
            self.closed = self._upstream.keep(self._link)
        return data

    def read_now(self) -> bytes | None:
        """The whole body where all of it is here; None where one has to wait for it."""
        if self.closed or not self._link.is_whole:
            return None
        return self._last(self._link.chunk_now())

    async def read(self) -> bytes:
        """The whole body, up to `MAX_BODY`."""
        parts, size = [], 0
        if (whole := self.read_now()) is not None:
            await self.aclose()
            return whole
        while part := await self.chunk():
            size += len(part)
            if size > MAX_BODY:
                raise UpstreamError("broken", f"the reply is larger than {MAX_BODY} bytes")
            parts.append(part)
        return b"".join(parts)

    async def aclose(self) -> None:
        """Keep the connection if the reply was read to its end, close it otherwise."""
        if not self.closed:
            self.closed = True
            await self._upstream.release(self._link)
