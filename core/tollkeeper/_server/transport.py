"""The pool as an httpx transport, for adapters that want a whole client."""

from collections.abc import AsyncIterator

import httpx

from tollkeeper._server.upstream import PooledUpstream, UpstreamReply
from tollkeeper.errors import UpstreamError
from tollkeeper.provider import UpstreamRequest


def make_client(upstream: PooledUpstream) -> httpx.AsyncClient:
    """An httpx client over an upstream's connections; it can reach nothing else."""
    return httpx.AsyncClient(
        transport=PoolTransport(upstream),
        base_url=upstream.settings.base_url,
        trust_env=False,
        timeout=None,  # noqa: S113 -- the deadlines are the provider's, kept by the pool
    )


class PoolTransport(httpx.AsyncBaseTransport):
    """Sends what an httpx client asks for over the pool."""

    def __init__(self, upstream: PooledUpstream) -> None:
        self._upstream = upstream

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request of an httpx client, to the provider's own host only."""
        scheme, host, port = self._upstream.origin
        url = request.url
        path = url.raw_path.decode("ascii")
        own = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        if own != (scheme, host, port) or not path.startswith(self._upstream.prefix):
            raise httpx.UnsupportedProtocol(f"{url} is not at this provider", request=request)
        ours = {b"host", b"content-length", b"accept-encoding", b"connection", b"transfer-encoding"}
        wanted = UpstreamRequest(
            request.method,
            path.removeprefix(self._upstream.prefix),
            [(name, value) for name, value in request.headers.raw if name.lower() not in ours],
            await request.aread(),
        )
        try:
            reply = await self._upstream.send(wanted, None)
        except UpstreamError as error:
            raise httpx.TransportError(str(error), request=request) from error
        return httpx.Response(reply.status, headers=dict(reply.headers), stream=_ReplyStream(reply))


class _ReplyStream(httpx.AsyncByteStream):
    def __init__(self, reply: UpstreamReply) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self._reply.chunk():
            yield chunk

    async def aclose(self) -> None:
        await self._reply.aclose()
