"""Deadlines are kept, although connections are looked at rarely."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tollkeeper._server.channel import SocketChannel
from tollkeeper._server.link import Link
from tollkeeper._server.pool import SWEEP_SECONDS, Pool

ORIGIN = ("http", "test", 80)


@asynccontextmanager
async def busy_links(count: int) -> AsyncIterator[tuple[Pool, list[Link]]]:
    """A running pool with connections that carry a request; nothing comes over them."""
    pool, links = Pool(), []
    pairs = [trio.socket.socketpair() for _ in range(count)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        for ours, _ in pairs:
            pool.give_back(ORIGIN, Link(SocketChannel(ours)))
            links += [link for link in [pool.take_idle(ORIGIN)] if link is not None]
        yield pool, links
        for link, (_, theirs) in zip(links, pairs, strict=True):
            await pool.drop(link)
            theirs.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [0.0, 0.05, 3.0])
async def test_a_deadline_is_noticed_in_time_whenever_it_was_set(
    after: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with busy_links(3) as (pool, (far, near, extended)):
        pool.set_deadline(far, 1000)
        pool.set_deadline(extended, 1)
        await trio.sleep(0.5)
        pool.set_deadline(extended, 999)  # there is a look at its first deadline all the same
        await trio.sleep(after)
        due = trio.current_time() + 2
        pool.set_deadline(near, due)
        await trio.sleep_until(due - 0.001)
        assert not near.expired
        await trio.sleep_until(due + SWEEP_SECONDS + 0.001)
        assert near.expired
        assert [far.expired, extended.expired] == [False, False]
        await trio.sleep_until(1000 + SWEEP_SECONDS + 0.001)
        assert [far.expired, extended.expired] == [True, True]


async def test_connections_are_looked_at_only_once_a_deadline_may_have_passed(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def read(link: Link) -> float:
        looks.append(trio.current_time())
        return float(vars(link)["deadline"])

    def write(link: Link, deadline: float) -> None:
        vars(link)["deadline"] = deadline

    monkeypatch.setattr(Link, "deadline", property(read, write), raising=False)
    async with busy_links(10) as (pool, links):
        for _ in range(100):  # each reads on once a second, and may be silent for two minutes
            for link in links:
                await trio.sleep(0.1)
                pool.set_deadline(link, trio.current_time() + 120)
        assert not looks
        await trio.sleep(100)
        assert len(set(looks)) == 1
