"""One epoll for all sockets: readiness is told, and writes of one pass are made at its end."""

import select
import socket

import pytest
import trio
import trio.testing

from tollkeeper._server.poller import READ, WRITE, Poller, current_poller

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")


class Watcher:
    def __init__(self) -> None:
        self.masks: list[int] = []
        self.flushed = 0
        self.given_up = False

    def on_ready(self, mask: int) -> None:
        self.masks.append(mask)

    def flush(self) -> None:
        self.flushed += 1

    def give_up(self) -> None:
        self.given_up = True


class Clumsy(Watcher):
    def on_ready(self, mask: int) -> None:
        raise RuntimeError("a bug")


def poller() -> Poller:
    found = current_poller()
    assert found is not None
    return found


async def test_there_is_one_poller_in_a_run() -> None:
    assert current_poller() is current_poller()


async def test_a_socket_is_told_of_once_for_each_thing_that_happens() -> None:
    ours, theirs = socket.socketpair()
    watcher = Watcher()
    poller().watch(ours.fileno(), watcher)
    with ours, theirs:
        await trio.sleep(0.01)
        assert watcher.masks == [WRITE]
        theirs.send(b"x")
        await trio.sleep(0.01)
        assert len(watcher.masks) == 2, "edge-triggered: unread bytes are not told of again"
        assert watcher.masks[-1] & READ
        poller().forget(ours.fileno())
        theirs.send(b"x")
        await trio.sleep(0.01)
        assert len(watcher.masks) == 2
        poller().forget(ours.fileno())


async def test_what_left_something_unread_is_asked_again_in_the_next_pass() -> None:
    watcher = Watcher()
    await trio.testing.wait_all_tasks_blocked()
    poller().read_on(watcher)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        other = Watcher()
        poller().watch(ours.fileno(), other)  # which makes a pass
        await trio.sleep(0.01)
        poller().forget(ours.fileno())
    assert watcher.masks == [READ]


async def test_posted_writes_are_made_once_all_tasks_of_the_pass_have_run() -> None:
    await trio.testing.wait_all_tasks_blocked()
    watcher = Watcher()
    poller().post(watcher)
    assert watcher.flushed == 0
    await trio.testing.wait_all_tasks_blocked()
    assert watcher.flushed == 1


async def test_what_is_posted_while_readiness_is_told_is_written_in_the_same_step() -> None:
    class Answering(Watcher):
        def on_ready(self, mask: int) -> None:
            super().on_ready(mask)
            poller().post(self)
            assert not self.flushed

        def flush(self) -> None:
            super().flush()
            assert trio.lowlevel.current_task().name.endswith("Poller.run")

    pairs = [socket.socketpair() for _ in range(2)]
    watchers = [Answering(), Answering()]
    for (ours, _), watcher in zip(pairs, watchers, strict=True):
        poller().watch(ours.fileno(), watcher)
    await trio.sleep(0.01)
    assert [(watcher.masks, watcher.flushed) for watcher in watchers] == 2 * [([WRITE], 1)]
    for ours, theirs in pairs:
        poller().forget(ours.fileno())
        ours.close()
        theirs.close()


async def test_several_busy_sockets_are_a_crowd_and_one_is_not() -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, _ in pairs:
        poller().watch(ours.fileno(), Watcher())
    await trio.sleep(0.01)
    for _, theirs in pairs:
        theirs.send(b"x")
    await trio.sleep(0.01)
    assert poller().crowded
    pairs[0][1].send(b"x")
    await trio.sleep(0.01)
    assert not poller().crowded
    for ours, theirs in pairs:
        poller().forget(ours.fileno())
        ours.close()
        theirs.close()


async def test_an_error_of_one_socket_ends_that_one_alone(caplog: pytest.LogCaptureFixture) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    clumsy, other = Clumsy(), Watcher()
    for (ours, _), watcher in zip(pairs, (clumsy, other), strict=True):
        poller().watch(ours.fileno(), watcher)
    await trio.sleep(0.01)
    assert clumsy.given_up
    assert other.masks == [WRITE]
    assert "error of its own" in caplog.text
    for ours, theirs in pairs:
        poller().forget(ours.fileno())
        ours.close()
        theirs.close()
