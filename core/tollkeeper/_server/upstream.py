"""One provider's upstream: requests over the pool, with its deadlines, and the Reply they give."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from tollkeeper._server.link import Link, Sink
from tollkeeper._server.pool import SWEEP_SECONDS, Origin, Pool
from tollkeeper.errors import UpstreamError
from tollkeeper.exchange import Attempt
from tollkeeper.provider import UpstreamRequest
from tollkeeper.settings import ProviderSettings

MAX_BODY = 32 * 1024**2
MANY_STARTS = 1000
"""Request lines with their fixed headers that are kept encoded, per provider."""

FixedHeaders = tuple[tuple[bytes, bytes], ...]


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
        first = self.deadline(self.settings.first_byte_timeout)
        self._pool.set_deadline(link, min(end, first))
        try:
            await link.request(data)
        except BaseException:
            await self._pool.drop(link)
            raise
        self._pool.set_deadline(link, end)
        return UpstreamReply(self, link, end)

    def deadline(self, seconds: float) -> float:
        """When something that may take `seconds` from now on is overdue, or a little later."""
        return self._pool.now + SWEEP_SECONDS + seconds

    def expect_more(self, link: Link, end: float) -> None:
        """Have a connection expire at `end`, or before if nothing comes for `idle_timeout`."""
        idle = self.deadline(self.settings.idle_timeout)
        self._pool.set_deadline(link, min(end, idle))

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
        self._upstream.expect_more(self._link, self._end)
        data = await self._link.chunk()
        self._link.deadline = self._end  # a client may take long for what is here already
        if not data:
            await self.aclose()
        return self._last(data) if data else data

    async def pour(self, sink: Sink) -> None:
        """Hand `sink` what `chunk` gives, as it arrives, until it takes no more."""
        if self.closed:
            sink(b"")
            return
        link, end, expect_more = self._link, self._end, self._upstream.expect_more

        def take(chunk: bytes) -> bool:
            expect_more(link, end)
            return sink(chunk)

        expect_more(link, end)
        await link.pour(take)
        link.deadline = end
        self._last(b"")

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
