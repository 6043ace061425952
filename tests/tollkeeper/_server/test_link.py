"""A connection to an upstream, against bytes."""

import pytest
import trio
import trio.testing

from tollkeeper import UpstreamError
from tollkeeper._server.link import MAX_HEAD, Link

MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


def connected() -> tuple[Link, MemoryStream]:
    ours, theirs = trio.testing.memory_stream_pair()
    return Link(ours), theirs


async def body_of(link: Link) -> bytes:
    whole = b""
    while part := await link.chunk():
        whole += part
    return whole


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n\r\nabcde"


@pytest.mark.parametrize("reply", [CHUNKED, SIZED])
async def test_a_reply_is_the_same_however_it_is_cut(reply: bytes) -> None:
    for cut in range(1, len(reply)):
        link, server = connected()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.request, b"GET / HTTP/1.1\r\n\r\n")
            await server.send_all(reply[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await server.send_all(reply[cut:])
        assert (link.status, await body_of(link)) == (200, b"abcde")
        assert link.reusable


async def test_repeated_headers_are_joined_and_names_are_lower_case() -> None:
    link, server = connected()
    await server.send_all(SIZED)
    await link.request(b"x")
    assert link.headers["x-a"] == "1, 2"


@pytest.mark.parametrize(
    "more", [b"HTTP/1.1 400 Bad\r\nContent-Length: 3\r\nX-B: 1\r\n\r\nxyz", b"\x00junk"]
)
async def test_what_comes_in_the_same_breath_behind_a_reply_is_no_part_of_it(more: bytes) -> None:
    link, server = connected()
    await server.send_all(SIZED + more)
    await link.request(b"x")
    assert (link.status, "x-b" in link.headers) == (200, False)
    assert await body_of(link) == b"abcde"
    assert not link.reusable


async def test_interim_replies_are_skipped() -> None:
    link, server = connected()
    await server.send_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nlink: a\r\n\r\n" + SIZED)
    await link.request(b"x")
    assert (link.status, await body_of(link)) == (200, b"abcde")
    assert "link" not in link.headers


@pytest.mark.parametrize(
    ("reply", "reusable"),
    [
        (SIZED.replace(b"X-A: 1", b"Connection: close"), False),
        (SIZED.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (SIZED + b"surplus", False),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", False),
        (SIZED, True),
    ],
)
async def test_a_connection_is_used_again_only_where_both_sides_agree(
    reply: bytes, reusable: bool
) -> None:
    link, server = connected()
    await server.send_all(reply)
    if not reusable:
        await server.aclose()
    await link.request(b"x")
    await body_of(link)
    assert link.reusable == reusable


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (2 * MAX_HEAD),
        b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_a_head_that_never_comes_whole_is_broken(reply: bytes) -> None:
    link, server = connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_close, server, reply)
        with pytest.raises(UpstreamError) as raised:
            await link.request(b"x")
        nursery.cancel_scope.cancel()
    assert raised.value.fault == "broken"


async def send_and_close(server: MemoryStream, data: bytes) -> None:
    await server.send_all(data)
    await server.aclose()


@pytest.mark.parametrize("reply", [SIZED[:-1], CHUNKED[:-2]])
async def test_a_body_cut_short_is_broken(reply: bytes) -> None:
    link, server = connected()
    await send_and_close(server, reply)
    await link.request(b"x")
    with pytest.raises(UpstreamError) as raised:
        await body_of(link)
    assert raised.value.fault == "broken"


async def test_a_refusal_is_seen_although_the_upload_is_not_over() -> None:
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]

    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(10)
        await stream.send_all(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, refuse, listener)
        link = Link(await trio.open_tcp_stream("127.0.0.1", port))
        with trio.fail_after(5):
            await link.request(b"POST / HTTP/1.1\r\n\r\n" + b"x" * 20_000_000)
        assert link.status == 413
        assert await link.chunk() == b""
        assert not link.reusable, "the rest of the upload would be the next request's beginning"
        await link.aclose()
        nursery.cancel_scope.cancel()
