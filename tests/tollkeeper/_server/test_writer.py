"""A silent stream says that it is alive, and nothing else does."""

import pytest
import trio

from tollkeeper._server.channel import SocketChannel
from tollkeeper._server.incoming import RequestParser
from tollkeeper._server.writer import KEEP_ALIVE, QUIET_SWEEPS, Writer
from tollkeeper.exchange import Head
from tollkeeper.settings import ServerSettings

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


async def writer_and_client() -> tuple[Writer, trio.SocketStream]:
    ours, theirs = trio.socket.socketpair()
    writer = Writer(SocketChannel(ours), "test", ServerSettings())
    parser = RequestParser(1000)
    parser.feed(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    writer._request = parser.requests.popleft()
    return writer, trio.SocketStream(theirs)


def sweep(writer: Writer, times: int) -> None:
    for _ in range(times):
        writer.keep_alive()


@pytest.mark.parametrize("headers", [EVENTS, {"content-type": "audio/mpeg"}])
async def test_only_a_stream_of_events_that_is_silent_for_long_gets_a_comment(
    headers: dict[str, str],
) -> None:
    writer, client = await writer_and_client()
    sweep(writer, 2 * QUIET_SWEEPS)  # before it began
    await writer.begin(Head(200, dict(headers)), b"data: 1\n\n")
    sweep(writer, QUIET_SWEEPS - 1)
    await writer.write(b"data: 2\n\n")
    sweep(writer, QUIET_SWEEPS - 1)
    assert KEEP_ALIVE not in await client.receive_some()
    sweep(writer, 1)
    await writer.end(b"data: 3\n\n")
    sweep(writer, 2 * QUIET_SWEEPS)
    rest = await client.receive_some()
    assert rest.count(KEEP_ALIVE) == (headers is EVENTS)
    await client.aclose()
    await writer._stream.aclose()
