"""A connection to an upstream, against bytes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tollkeeper import UpstreamError
from tollkeeper._server.channel import READ_SIZE, SocketChannel
from tollkeeper._server.link import MAX_HEAD, READ_AHEAD, Link

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


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Link, trio.SocketStream]]:
    """A connection over a channel that listens, and its upstream; the head of a reply is read."""
    ours, theirs = trio.socket.socketpair()
    link = Link(SocketChannel(ours))
    async with trio.SocketStream(theirs) as upstream:
        await upstream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await link.request(b"x")
        yield link, upstream
        await link.aclose()


class Sink:
    """Takes parts of a body up to one that it knows as the last that it wants."""

    def __init__(self, last: bytes = b"", *, crash: bool = False) -> None:
        self.last, self.crash = last, crash
        self.taken: list[bytes] = []
        self.tasks: set[trio.lowlevel.Task] = set()
        """Those in which it was called."""

    def __call__(self, part: bytes) -> bool:
        self.taken.append(part)
        self.tasks.add(trio.lowlevel.current_task())
        if part == self.last and self.crash:
            raise RuntimeError("a bug")
        return part != self.last


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


async def send_each(upstream: trio.SocketStream, *data: bytes) -> None:
    for part in data:
        await upstream.send_all(part)
        await trio.sleep(0.01)


async def test_a_sink_gets_the_body_as_it_arrives_without_the_task_that_waits() -> None:
    async with listening() as (link, upstream), trio.open_nursery() as nursery:
        sink = Sink()
        nursery.start_soon(link.pour, sink)
        await send_each(upstream, chunked(b"one"))
        assert sink.taken == [b"one"]
        sink.tasks.clear()
        await send_each(upstream, chunked(b"two"), chunked(b"three"), chunked(b"four")[:-3])
        assert sink.taken == [b"one", b"two", b"three", b"fou"]
        assert not sink.tasks & nursery.child_tasks
        await send_each(upstream, b"r\r\n0\r\n\r\n")
        assert sink.taken[4:] == [b"r", b""]
        assert not nursery.child_tasks
        assert link.reusable


async def test_over_a_stream_that_cannot_call_a_sink_gets_the_same() -> None:
    link, server = connected()
    await server.send_all(SIZED[:-2])
    await link.request(b"x")
    async with trio.open_nursery() as nursery:
        sink = Sink()
        nursery.start_soon(link.pour, sink)
        await trio.testing.wait_all_tasks_blocked()
        await server.send_all(SIZED[-2:])
    assert sink.taken == [b"abc", b"de", b""]


async def test_what_comes_after_the_last_that_a_sink_takes_waits_for_the_next() -> None:
    async with listening() as (link, upstream):
        for last in (b"one", b"two"):  # taken by the task itself, and by the sink alone
            sink = Sink(last)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.pour, sink)
                await send_each(upstream, *([chunked(b"first")] if last == b"two" else []))
                await send_each(upstream, chunked(last), chunked(b"more"), chunked(b"and more"))
            assert sink.taken[-1] == last
            assert await link.chunk() == b"moreand more"


async def test_an_upstream_is_made_to_wait_while_nothing_takes_what_it_sends() -> None:
    async with listening() as (link, upstream), trio.open_nursery() as nursery:
        sink = Sink(b"last")
        nursery.start_soon(link.pour, sink)
        await send_each(upstream, chunked(b"first"), chunked(b"last"))
        assert not nursery.child_tasks
        with trio.move_on_after(0.3) as patience:
            await upstream.send_all(chunked(b"x" * 10_000_000))
        assert patience.cancelled_caught
        assert READ_AHEAD < len(await link.chunk()) <= READ_AHEAD + READ_SIZE


async def test_an_end_in_the_middle_is_raised_behind_what_came_before() -> None:
    async with listening() as (link, upstream), trio.open_nursery() as nursery:
        nursery.start_soon(send_each, upstream, chunked(b"one"), chunked(b"two"), b"3\r\nt")
        nursery.start_soon(upstream_ends, upstream)
        sink = Sink()
        with pytest.raises(UpstreamError, match="in the middle") as raised:
            await link.pour(sink)
        assert (sink.taken, raised.value.fault) == ([b"one", b"two", b"t"], "broken")


async def upstream_ends(upstream: trio.SocketStream) -> None:
    await trio.sleep(0.1)
    await upstream.send_eof()


@pytest.mark.parametrize("bad", [b"nonsense\r\n", b"0\r\n\r\nmore"])
async def test_what_is_no_body_ends_a_sink_s_turn(bad: bytes) -> None:
    async with listening() as (link, upstream), trio.open_nursery() as nursery:
        nursery.start_soon(send_each, upstream, chunked(b"one"), chunked(b"two") + bad)
        sink = Sink()
        if bad.startswith(b"0"):
            await link.pour(sink)
            assert sink.taken == [b"one", b"two", b""]
        else:
            with pytest.raises(UpstreamError, match="not HTTP"):
                await link.pour(sink)
            assert sink.taken == [b"one", b"two"]
        assert not link.reusable


async def test_a_deadline_that_passes_meanwhile_is_raised() -> None:
    async with listening() as (link, upstream), trio.open_nursery() as nursery:
        sink = Sink()

        async def expect_timeout() -> None:
            with pytest.raises(UpstreamError) as raised:
                await link.pour(sink)
            assert raised.value.fault == "timeout"

        nursery.start_soon(expect_timeout)
        await send_each(upstream, chunked(b"one"), chunked(b"two"))
        link.expire()
    assert sink.taken == [b"one", b"two"]


@pytest.mark.parametrize("last", [b"one", b"two"])
async def test_what_a_sink_raises_is_raised_where_it_was_given(last: bytes) -> None:
    async with listening() as (link, upstream), trio.open_nursery() as nursery:
        nursery.start_soon(send_each, upstream, chunked(b"one"), chunked(b"two"), chunked(b"three"))
        sink = Sink(last, crash=True)
        with pytest.raises(RuntimeError, match="a bug"):
            await link.pour(sink)
        assert sink.taken[-1] == last
        await trio.sleep(0.1)
        assert (await link.chunk()).endswith(b"three")  # the connection itself is none the worse


async def test_one_that_is_cancelled_leaves_no_sink_behind() -> None:
    async with listening() as (link, upstream):
        sink = Sink()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.pour, sink)
            await send_each(upstream, chunked(b"one"), chunked(b"two"))
            nursery.cancel_scope.cancel()
        await send_each(upstream, chunked(b"three"))
        assert sink.taken == [b"one", b"two"]
        assert await link.chunk() == b"three"
