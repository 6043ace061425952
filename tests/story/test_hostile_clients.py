"""The listener and what the network throws at it. Raw sockets against the real server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from harness import Served, http_reply, openai_toml, raw_upstream, replying, serve

from tollkeeper._server.link import Link
from tollkeeper.testing import completion

REPLY = http_reply(json.dumps(completion()).encode())


@asynccontextmanager
async def gateway_with(server: str = "") -> AsyncIterator[Served]:
    async with raw_upstream(replying(REPLY)) as upstream:
        async with serve(server + openai_toml(upstream, plugins="[plugins.keys]\n")) as gateway:
            yield gateway
            assert (await gateway.chat()).status == 200, "the gateway must have survived"


async def everything(stream: trio.SocketStream) -> bytes:
    """All bytes until the gateway closes."""
    data = b""
    with trio.fail_after(5):
        while more := await stream.receive_some(65536):
            data += more
    return data


def assert_is_error(data: bytes, status: int, code: str) -> None:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {status} "), data
    assert any(line.startswith("x-request-id: req_") for line in lines)
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_400_in_the_openai_shape(data: bytes) -> None:
    async with gateway_with() as gateway:
        client = await gateway.connect()
        await client.send_all(data)
        assert_is_error(await everything(client), 400, "invalid_request")
        await client.aclose()


POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
SMUGGLED = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n" + SMUGGLED, 400),
        (POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n" + SMUGGLED, 400),
        (POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400),
        (POST + b"content-length: 3, 3\r\n\r\nabc", 400),
        (POST + b"content-length: +3\r\n\r\nabc", 400),
        (POST + b"content-length: 0x3\r\n\r\nabc", 400),
        (POST + b"transfer-encoding: chunked, identity\r\n\r\n" + SMUGGLED, 400),
        (POST + b"transfer-encoding: gzip, chunked\r\n\r\n" + SMUGGLED, 501),
        (POST + b"transfer-encoding: xchunked\r\n\r\n" + SMUGGLED, 501),
        (POST + b"transfer-encoding : chunked\r\n\r\n" + SMUGGLED, 400),
        (POST + b"transfer-encoding:\x0bchunked\r\n\r\n" + SMUGGLED, 400),
        (POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + SMUGGLED, 404),
        (POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + SMUGGLED, 404),
        (POST + b"transfer-encoding: chunked\r\n\r\n1\nA\r\n" + SMUGGLED, 404),
        (POST + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + SMUGGLED, 404),
        (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n" + SMUGGLED, 400),
        (POST + b"x: a\r\n folded\r\n\r\n", 400),
        (POST + b"x: a\rb\r\n\r\n", 400),
        (POST + b"x: a\nb: c\r\n\r\n", 400),
        (POST + b"x: a\x00b\r\n\r\n", 400),
        (POST + b"host: y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: " + b"9" * 100 + b"\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a..b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a..\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: \xff.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nhost: x\n\n", 400),
        (b"GET / HTTP/9.9\r\nhost: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
async def test_what_could_smuggle_a_request_is_refused_and_the_connection_closed(
    data: bytes, status: int
) -> None:
    async with gateway_with() as gateway:
        client = await gateway.connect()
        await client.send_all(data)
        received = await everything(client)
        code = "not_found" if status == 404 else "invalid_request"
        assert_is_error(received, status, code)
        assert received.count(b"HTTP/1.1 ") == 1
        assert b"smuggled" not in received
        await client.aclose()


async def test_a_target_with_a_host_in_it_is_read_as_its_path() -> None:
    async with gateway_with() as gateway:
        reply = await gateway.ask(gateway.head("GET", "http://elsewhere.example/v1/models"))
        assert reply.status == 200
        assert (await gateway.ask(gateway.head("GET", "http://elsewhere.example"))).status == 404


UPGRADES: list[dict[str, str]] = [
    {"connection": "upgrade, http2-settings", "upgrade": "h2c", "http2-settings": "!!"},
    {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "x"},
]


@pytest.mark.parametrize("extra", UPGRADES)
async def test_the_upgrades_that_kill_other_servers_are_answered_as_plain_http(
    extra: dict[str, str],
) -> None:
    async with gateway_with() as gateway:
        client = await gateway.connect()
        await client.send_all(gateway.head("GET", "/v1/models", extra) + b"\x00\x01\x02\x03")
        data = await everything(client)
        assert data.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 400 " in data, "the stray bytes are no request"
        await client.aclose()


async def test_a_client_that_offers_an_upgrade_with_its_body_is_answered_again_and_again() -> None:
    async with gateway_with() as gateway:
        link = Link(await gateway.connect())
        offer = b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
        request = gateway.chat_bytes().replace(b"\r\n\r\n", b"\r\n" + offer, 1)
        for _ in range(3):
            await link.request(request)
            while await link.chunk():
                pass
            assert link.status == 200
        await link.aclose()


@pytest.mark.parametrize("target", [b"CONNECT example.org:443", b"OPTIONS *", b"GET ftp://x/v1"])
async def test_a_target_that_is_no_path_is_a_400(target: bytes) -> None:
    async with gateway_with() as gateway:
        client = await gateway.connect()
        await client.send_all(target + b" HTTP/1.1\r\nhost: example.org\r\n\r\n")
        with trio.fail_after(5):
            assert_is_error(await client.receive_some(65536), 400, "invalid_request")
        await client.aclose()


async def test_a_head_too_large_is_a_431_and_a_target_too_long_a_414() -> None:
    async with gateway_with() as gateway:
        many = {f"x-{number}": "y" for number in range(200)}
        for request, status in (
            (gateway.head("GET", "/v1/models", {"x-big": "y" * 70_000}), 431),
            (gateway.head("GET", "/v1/models", many), 431),
            (gateway.head("GET", "/" + "y" * 9_000), 414),
        ):
            client = await gateway.connect()
            await client.send_all(request)
            assert_is_error(await everything(client), status, "invalid_request")
            await client.aclose()


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_a_body_too_large_is_a_413_although_the_client_is_still_sending(framing: str) -> None:
    async with gateway_with('[server]\nmax_body = "100KiB"\n') as gateway:
        client = await gateway.connect()
        size = 3_000_000
        if framing == "chunked":
            head = gateway.head("POST", "/v1/chat/completions", {"transfer-encoding": "chunked"})
            body = (b"10000\r\n" + b"x" * 65536 + b"\r\n") * (size // 65536) + b"0\r\n\r\n"
        else:
            head = gateway.head("POST", "/v1/chat/completions", {"content-length": str(size)})
            body = b"x" * size
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_quietly, client, head + body)
            assert_is_error(await everything(client), 413, "request_too_large")
            nursery.cancel_scope.cancel()
        await client.aclose()


async def send_quietly(client: trio.SocketStream, data: bytes) -> None:
    try:
        await client.send_all(data)
    except trio.BrokenResourceError:
        return


async def test_a_wrong_key_is_refused_before_the_body_is_read() -> None:
    async with gateway_with() as gateway:
        client = await gateway.connect()
        headers = {"content-length": "3000000", "authorization": "Bearer tk-wrong"}
        await client.send_all(gateway.head("POST", "/v1/chat/completions", headers))
        data = await everything(client)
        assert_is_error(data, 401, "auth_error")
        assert b"connection: close" in data
        await client.aclose()


async def test_a_client_that_expects_100_continue_is_told_to_only_with_a_valid_key() -> None:
    async with gateway_with() as gateway:
        good, bad = await gateway.connect(), await gateway.connect()
        body = gateway.chat_bytes().partition(b"\r\n\r\n")[2]
        headers = {"content-length": str(len(body)), "expect": "100-continue"}
        await good.send_all(gateway.head("POST", "/v1/chat/completions", headers))
        assert (await good.receive_some(65536)).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        await good.send_all(body)
        assert (await good.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
        headers["authorization"] = "Bearer tk-wrong"
        await bad.send_all(gateway.head("POST", "/v1/chat/completions", headers))
        assert_is_error(await everything(bad), 401, "auth_error")
        await good.aclose()
        await bad.aclose()


async def test_a_slow_head_and_a_slow_body_time_out() -> None:
    async with gateway_with("[server]\nkeep_alive_timeout = 0.4\nbody_timeout = 0.4\n") as gateway:
        head, body, idle = [await gateway.connect() for _ in range(3)]
        await head.send_all(b"GET /v1/models HTT")
        await body.send_all(gateway.chat_bytes()[:-3])
        assert_is_error(await everything(head), 408, "request_timeout")
        assert_is_error(await everything(body), 408, "request_timeout")
        assert await everything(idle) == b""
        for client in (head, body, idle):
            await client.aclose()


async def test_connections_are_kept_and_closed_as_http_says() -> None:
    async with gateway_with() as gateway:
        link = Link(await gateway.connect())
        for _ in range(3):
            await link.request(gateway.chat_bytes())
            while await link.chunk():
                pass
            assert link.status == 200
        await link.request(gateway.head("GET", "/healthz"))
        while await link.chunk():
            pass
        await link.request(gateway.head("GET", "/v1/models", {"connection": "close"}))
        assert link.headers["connection"] == "close"
        await link.aclose()
        client = await gateway.connect()
        request = gateway.head("GET", "/healthz", {"connection": "close"})
        await client.send_all(request)
        assert b"connection: close" in await everything(client)
        await client.aclose()


async def test_an_http_1_0_client_gets_a_stream_without_chunks() -> None:
    async with gateway_with() as gateway:
        client = await gateway.connect()
        await client.send_all(gateway.chat_bytes().replace(b"HTTP/1.1", b"HTTP/1.0"))
        data = await everything(client)
        assert b"transfer-encoding" not in data
        assert data.endswith(json.dumps(completion()).encode())
        await client.aclose()


async def test_pipelined_requests_are_answered_in_turn() -> None:
    async with gateway_with() as gateway:
        client = await gateway.connect()
        last = gateway.head("GET", "/v1/models", {"connection": "close"})
        await client.send_all(gateway.chat_bytes() * 3 + last)
        data = await everything(client)
        assert data.count(b"HTTP/1.1 200 OK") == 4
        await client.aclose()


async def test_connections_beyond_the_limit_get_a_503() -> None:
    async with gateway_with("[server]\nmax_connections = 3\n") as gateway:
        kept = [await gateway.connect() for _ in range(3)]
        for client in kept:
            await client.send_all(gateway.head("GET", "/healthz"))
            await client.receive_some(65536)
        extra = await gateway.connect()
        data = await everything(extra)
        assert data.startswith(b"HTTP/1.1 503 ")
        assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["code"] == "server_error"
        for client in (*kept, extra):
            await client.aclose()
        await trio.sleep(0.05)


async def test_a_compressed_body_is_refused() -> None:
    async with gateway_with() as gateway:
        headers = {"content-length": "4", "content-encoding": "gzip"}
        reply = await gateway.ask(gateway.head("POST", "/v1/chat/completions", headers) + b"1234")
        assert (reply.status, reply.code) == (415, "invalid_request")


@pytest.mark.parametrize("path", ["/", "/nope", "/v1/nope", "/v1/models/", "//v1/models"])
async def test_an_unknown_path_is_a_404_in_the_openai_shape(path: str) -> None:
    async with gateway_with() as gateway:
        reply = await gateway.get(path)
        assert (reply.status, reply.code) == (404, "not_found")
        assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/chat/completions"), ("PUT", "/healthz")])
async def test_a_wrong_method_is_a_405_in_the_openai_shape(method: str, path: str) -> None:
    async with gateway_with() as gateway:
        reply = await gateway.ask(gateway.head(method, path))
        assert (reply.status, reply.code) == (405, "method_not_allowed")
        assert "allow" in reply.headers


async def test_a_body_for_nobody_is_not_read() -> None:
    async with gateway_with() as gateway:
        client = await gateway.connect()
        headers = {"content-length": "3000000", "expect": "100-continue"}
        await client.send_all(gateway.head("POST", "/nothing", headers))
        assert_is_error(await everything(client), 404, "not_found")
        await client.aclose()
