"""A silent stream says that it is alive, and nothing else does."""

import pytest
import trio
import trio.testing

from tollkeeper._server.channel import SocketChannel
from tollkeeper._server.delivery import ClientGone
from tollkeeper._server.incoming import Incoming, RequestParser
from tollkeeper._server.writer import KEEP_ALIVE, WRITE_SIZE, Writer
from tollkeeper.exchange import Head
from tollkeeper.settings import ServerSettings

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def some_request() -> Incoming:
    parser = RequestParser(1000)
    parser.feed(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    return parser.requests.popleft()


async def writer_and_client() -> tuple[Writer, trio.SocketStream]:
    ours, theirs = trio.socket.socketpair()
    writer = Writer(SocketChannel(ours), "test", ServerSettings())
    writer._request = some_request()
    return writer, trio.SocketStream(theirs)


@pytest.mark.parametrize("headers", [EVENTS, {"content-type": "audio/mpeg"}])
async def test_only_a_stream_of_events_that_was_silent_between_two_looks_gets_a_comment(
    headers: dict[str, str],
) -> None:
    writer, client = await writer_and_client()
    writer.keep_alive()  # before it began
    await writer.begin(Head(200, dict(headers)), b"data: 1\n\n")
    writer.keep_alive()
    await writer.write(b"data: 2\n\n")
    writer.keep_alive()
    assert KEEP_ALIVE not in await client.receive_some()
    writer.keep_alive()
    await writer.end(b"data: 3\n\n")
    writer.keep_alive()
    writer.keep_alive()
    rest = await client.receive_some()
    assert rest.count(KEEP_ALIVE) == (headers is EVENTS)
    await client.aclose()
    await writer._stream.aclose()


async def test_a_comment_is_followed_by_another_only_after_as_long_a_silence() -> None:
    writer, client = await writer_and_client()
    await writer.begin(Head(200, dict(EVENTS)), b"data: 1\n\n")
    for _ in range(6):
        writer.keep_alive()
    assert (await client.receive_some()).count(KEEP_ALIVE) == 3
    await client.aclose()
    await writer._stream.aclose()


async def test_what_a_client_takes_at_once_is_written_and_the_rest_left_to_be_waited_for() -> None:
    writer, client = await writer_and_client()
    await writer.begin(Head(200, {}), b"one")
    assert writer.write_now(b"two") is None
    assert (await client.receive_some()).endswith(b"3\r\none\r\n3\r\ntwo\r\n")
    assert writer.write_now(b"x" * WRITE_SIZE) == b"x" * WRITE_SIZE, "too much for one write"
    writes = 1
    while (rest := writer.write_now(b"x" * 100_000)) is None:
        writes += 1
    assert rest == b"", "the client is to be waited for"
    assert writer.write_now(b"three") == b"three"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write, b"")
        received = 0
        while received < writes * 100_000:
            received += len(await client.receive_some())
    assert writer.write_now(b"four") is None
    writer.cut = "gone"
    with pytest.raises(ClientGone):
        writer.write_now(b"five")
    await client.aclose()
    await writer._stream.aclose()


async def test_over_a_stream_that_has_to_be_waited_for_nothing_is_written_at_once() -> None:
    writer = Writer(trio.testing.memory_stream_pair()[0], "test", ServerSettings())
    writer._request = some_request()
    assert writer.write_now(b"one") == b"one"


async def test_no_comment_tears_a_write_apart_that_takes_several_steps() -> None:
    writer, client = await writer_and_client()
    await writer.begin(Head(200, dict(EVENTS)), b"")
    size, received = 3 * WRITE_SIZE, b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write, b"x" * size)
        while received.count(b"x") < size:
            received += await client.receive_some()
            assert isinstance(writer._stream, SocketChannel)
            was, writer._stream.blocked = writer._stream.blocked, False  # as between two steps
            writer._has_written = False
            writer.keep_alive()
            writer._stream.blocked = was
    assert b"x" * size in received
    await client.aclose()
    await writer._stream.aclose()
