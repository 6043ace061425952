"""TLS to upstreams: what carries requests, and what is never used."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from harness import http_reply

from tollkeeper import ProviderSettings, UpstreamError, UpstreamRequest
from tollkeeper._server.pool import Pool
from tollkeeper._server.upstream import PooledUpstream

GET = UpstreamRequest("GET", "/", [])


@asynccontextmanager
async def secure_upstream(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str = "localhost"
) -> AsyncIterator[str]:
    """An https upstream whose certificate is for `name`; its base URL."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            while await stream.receive_some(65536):
                await stream.send_all(http_reply(b"x" * 100_000))
        except trio.BrokenResourceError:
            return
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        (listener,) = (one.transport_listener for one in listeners)
        assert isinstance(listener, trio.SocketListener)
        port = listener.socket.getsockname()[1]
        yield f"https://localhost:{port}/v1"
        nursery.cancel_scope.cancel()


def settings(base_url: str) -> ProviderSettings:
    return ProviderSettings(kind="x", base_url=base_url)


async def test_tls_carries_requests_and_its_connections_are_used_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with secure_upstream(monkeypatch, tmp_path) as base_url:
        pool = Pool()
        upstream = PooledUpstream(pool, settings(base_url))
        links = set()
        for _ in range(3):
            reply = await upstream.send(GET, None)
            links.add(id(reply._link))
            assert await reply.read() == b"x" * 100_000
        assert len(links) == 1
        await pool.aclose()


@pytest.mark.parametrize("fault", ["wrong name", "unknown authority", "plain text"])
async def test_tls_that_proves_nothing_is_never_used(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "elsewhere.example" if fault == "wrong name" else "localhost"
    async with secure_upstream(monkeypatch, tmp_path, name) as base_url:
        if fault == "unknown authority":
            monkeypatch.delenv("SSL_CERT_FILE")
        with socket.create_server(("127.0.0.1", 0)) as plain:
            if fault == "plain text":
                base_url = f"https://localhost:{plain.getsockname()[1]}"
                plain.settimeout(5)
            async with trio.open_nursery() as nursery:
                if fault == "plain text":
                    nursery.start_soon(trio.to_thread.run_sync, answer_plainly, plain)
                pool = Pool()
                with pytest.raises(UpstreamError) as raised:
                    await PooledUpstream(pool, settings(base_url)).send(GET, None)
    assert raised.value.fault == "connect"


def answer_plainly(listener: socket.socket) -> None:
    client, _ = listener.accept()
    with client:
        client.recv(65536)
        client.sendall(http_reply(b"plain"))
