"""Bytes over sockets: posted, drained, listened to."""

import pytest
import trio
import trio.testing

from tollkeeper._server.channel import SocketChannel
from tollkeeper._server.poller import Poller


async def pair() -> tuple[SocketChannel, trio.SocketStream]:
    ours, theirs = trio.socket.socketpair()
    return SocketChannel(ours), trio.SocketStream(theirs)


async def test_everything_sent_arrives_although_the_kernel_takes_it_in_parts() -> None:
    channel, other = await pair()
    data = bytes(range(256)) * 20_000
    received = bytearray()

    async def receive() -> None:
        while len(received) < len(data):
            received.extend(await other.receive_some(100_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.send_all, data)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(receive)
    assert bytes(received) == data
    assert channel.sent == len(data)
    await channel.aclose()
    await other.aclose()


async def test_reading_waits_and_ends_with_nothing() -> None:
    channel, other = await pair()
    assert channel.is_quiet
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.send_all, b"hello")
        assert await channel.receive_some() == b"hello"
    await other.aclose()
    assert not channel.is_quiet
    assert await channel.receive_some() == b""
    await channel.aclose()
    await channel.aclose()


async def test_shutting_down_wakes_whoever_waits() -> None:
    channel, other = await pair()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await channel.receive_some() == b""

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        channel.shut_down()
    await channel.aclose()
    await other.aclose()


async def test_a_peer_that_reset_is_a_broken_connection() -> None:
    channel, other = await pair()
    await other.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await send_for_ever(channel)
    await channel.aclose()


async def send_for_ever(channel: SocketChannel) -> None:
    while True:
        await channel.send_all(b"x" * 1000)


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if many sockets were busy in every pass."""
    always = property(lambda _: True, lambda _, __: None)
    monkeypatch.setattr(Poller, "crowded", always, raising=False)


async def test_what_is_posted_in_a_crowd_goes_out_in_one_piece_at_the_end_of_the_pass(
    crowded: None,
) -> None:
    channel, other = await pair()
    channel.post(b"one ")
    channel.post(b"two")
    assert channel.sent == 0
    assert await other.receive_some() == b"one two"
    await channel.aclose()
    await other.aclose()


async def test_what_was_posted_stands_before_the_end_of_our_direction(crowded: None) -> None:
    channel, other = await pair()
    channel.post(b"last words")
    await channel.send_eof()
    assert await other.receive_some() == b"last words"
    assert await other.receive_some() == b""
    await channel.aclose()
    await other.aclose()


async def test_a_post_that_the_kernel_does_not_take_whole_goes_on_by_itself() -> None:
    channel, other = await pair()
    data = bytes(range(256)) * 20_000
    channel.post(data)
    assert channel.blocked
    received = bytearray()
    while len(received) < len(data):
        received += await other.receive_some(100_000)
    assert bytes(received) == data
    await channel.drain()
    assert not channel.blocked
    await channel.aclose()
    await other.aclose()


async def test_posting_to_a_connection_that_broke_says_so() -> None:
    channel, other = await pair()
    await other.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await post_for_ever(channel)
    await channel.aclose()


async def post_for_ever(channel: SocketChannel) -> None:
    while True:
        channel.post(b"x")
        await trio.sleep(0.01)


async def test_a_listener_hears_everything_and_the_end_and_a_pause_holds_it_back() -> None:
    channel, other = await pair()
    heard: list[bytes] = []
    if not channel.listen(heard.append):
        pytest.skip("this system has no epoll")
    await other.send_all(b"a" * 200_000)
    with trio.fail_after(2):
        while sum(map(len, heard)) < 200_000:
            await trio.sleep(0.001)
    channel.listen(None)
    await other.send_all(b"later")
    await trio.sleep(0.02)
    assert b"".join(heard) == b"a" * 200_000
    channel.listen(heard.append)
    await other.aclose()
    with trio.fail_after(2):
        while heard[-1]:
            await trio.sleep(0.001)
    assert b"".join(heard).endswith(b"later")
    await channel.aclose()


async def test_a_pause_that_ends_while_nothing_else_happens_goes_on_where_it_was() -> None:
    channel, other = await pair()
    heard: list[bytes] = []

    def hear(data: bytes) -> None:
        heard.append(data)
        channel.listen(None)

    if not channel.listen(hear):
        pytest.skip("this system has no epoll")
    await other.send_all(b"a" * 150_000)
    with trio.fail_after(2):
        for reads in (1, 2, 3):
            while len(heard) < reads:
                await trio.sleep(0.001)
            await trio.sleep(0.02)
            assert len(heard) == reads
            channel.listen(hear)
    assert sum(map(len, heard)) == 150_000
    await channel.aclose()
    await other.aclose()


async def test_without_epoll_everything_works_by_trios_own_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tollkeeper._server.channel.current_poller", lambda: None)
    channel, other = await pair()
    assert not channel.listen(lambda _: None)
    data = bytes(range(256)) * 20_000
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.send_all, data)
        while len(received) < len(data):
            received += await other.receive_some(100_000)
        await other.send_all(b"answer")
        assert await channel.receive_some() == b"answer"
    assert bytes(received) == data
    await channel.aclose()
    await other.aclose()


async def test_closing_wakes_whoever_reads() -> None:
    channel, other = await pair()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await channel.receive_some()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        channel.close()
    await other.aclose()


async def test_a_listener_that_crashes_loses_its_connection_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel, other = await pair()
    heard: list[bytes] = []

    def crash(data: bytes) -> None:
        heard.append(data)
        if data:
            raise RuntimeError("a bug")

    if not channel.listen(crash):
        pytest.skip("this system has no epoll")
    await other.send_all(b"x")
    assert await other.receive_some() == b""
    assert heard[:2] == [b"x", b""]
    await channel.aclose()
    await other.aclose()


@pytest.mark.parametrize("size", [1, 70_000])
async def test_an_end_that_comes_with_the_last_bytes_is_noticed_without_another_sign(
    size: int,
) -> None:
    for listens in (True, False):
        channel, other = await pair()
        heard: list[bytes] = []
        if listens and not channel.listen(heard.append):
            pytest.skip("this system has no epoll")
        await other.send_all(b"x" * size)
        await other.aclose()
        with trio.fail_after(2):
            while not listens and (not heard or heard[-1]):
                heard.append(await channel.receive_some())
            while listens and (not heard or heard[-1]):
                await trio.sleep(0.001)
        assert b"".join(heard) == b"x" * size
        await channel.aclose()
