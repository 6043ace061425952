"""Everything is looked at when it asked for it, and not before."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper._server.rounds import LOOKED_AT_ONCE, ROUND_SECONDS, Rounds, slices

LATE = 2 * ROUND_SECONDS + 1e-6


class Patient:
    """Asks for a look every few seconds, and notes when it was looked at."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.looks: list[float] = []

    def sweep(self, now: float) -> float:
        self.looks.append(now)
        return now + self.seconds


async def test_each_is_looked_at_about_when_it_asked_and_no_more_often(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    rounds: Rounds[Patient] = Rounds()
    nursery.start_soon(rounds.run)
    await trio.sleep(0.1)
    items = [Patient(seconds) for seconds in (0.0, 0.3, 7.0) for _ in range(LOOKED_AT_ONCE)]
    for item in items:
        rounds.plan(item, 0.0)
    await trio.sleep(60)
    for item in items:
        assert item.looks[0] <= 0.1 + LATE
        for one, next_ in zip(item.looks, item.looks[1:], strict=False):
            assert item.seconds - ROUND_SECONDS <= next_ - one <= item.seconds + LATE
    assert len(rounds) == len(items)


@pytest.mark.parametrize("at", [0.0, 11.0])
async def test_a_look_can_be_brought_forward(
    at: float, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    rounds: Rounds[Patient] = Rounds()
    nursery.start_soon(rounds.run)
    item = Patient(100)
    rounds.plan(item, 0.0)
    await trio.sleep(10)
    rounds.plan(item, at)
    await trio.sleep(20)
    first, second = item.looks
    assert first <= LATE
    assert max(at, 10) - ROUND_SECONDS <= second <= max(at, 10) + LATE


async def test_what_was_discarded_is_left_alone_also_in_the_middle_of_a_round(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    rounds: Rounds[Patient] = Rounds()

    class Killer(Patient):
        def sweep(self, now: float) -> float:
            for other in rounds:
                if other is not self:
                    rounds.discard(other)
            return super().sweep(now)

    for _ in range(3 * LOOKED_AT_ONCE):
        rounds.plan(Killer(1), 0.0)
    (*others, _) = list(rounds)
    assert len(others) == 3 * LOOKED_AT_ONCE - 1
    nursery.start_soon(rounds.run)
    await trio.sleep(5)
    (left,) = rounds
    assert len(left.looks) >= 4
    assert all(other is left or not other.looks for other in others)


@given(st.sets(st.integers()), st.integers(1, 9))
def test_slices_hold_everything_once_and_are_of_a_like_size(items: set[int], size: int) -> None:
    found = slices(items, size)
    assert found
    assert sorted(item for some in found for item in some) == sorted(items)
    sizes = [len(some) for some in found]
    assert max(sizes) <= size
    assert not items or min(sizes) > 0
