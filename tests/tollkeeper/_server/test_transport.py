"""The httpx client of adapters, over the pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from harness import RawUpstream, Received, Script, http_reply, raw_upstream, replying

from tollkeeper import ProviderSettings
from tollkeeper._server.pool import Pool
from tollkeeper._server.transport import make_client
from tollkeeper._server.upstream import PooledUpstream


@asynccontextmanager
async def pooled(
    script: Script, **settings: float
) -> AsyncIterator[tuple[PooledUpstream, RawUpstream]]:
    async with raw_upstream(script) as raw, trio.open_nursery() as nursery:
        pool = Pool()
        nursery.start_soon(pool.run)
        table = {"kind": "x", "base_url": raw.base_url, **settings}
        yield PooledUpstream(pool, ProviderSettings.model_validate(table)), raw
        await pool.aclose()
        nursery.cancel_scope.cancel()


async def silent(_stream: trio.SocketStream, _received: Received) -> None:
    await trio.sleep_forever()


async def test_the_httpx_client_uses_the_same_connections_and_reaches_nothing_else() -> None:
    async with pooled(replying(http_reply(b'{"a": 1}'))) as (upstream, raw):
        async with make_client(upstream) as client:
            for _ in range(2):
                reply = await client.post("/things", json={"q": 1})
                assert reply.json() == {"a": 1}
            for url in ("http://127.0.0.1:9/v1/x", f"http://127.0.0.1:{raw.port}/other"):
                with pytest.raises(httpx.UnsupportedProtocol):
                    await client.get(url)
    assert raw.connections == 1
    assert raw.requests[0].head.startswith(b"POST /v1/things HTTP/1.1\r\n")
    assert raw.requests[0].json() == {"q": 1}


async def test_an_upstream_fault_is_a_transport_error_of_httpx() -> None:
    async with pooled(silent, first_byte_timeout=0.1) as (upstream, _):
        async with make_client(upstream) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/x")
