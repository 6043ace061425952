"""The sliding log against a model of ten lines, under a clock that jumps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper_limits.service import WINDOW, Place, SlidingLog

START = 4096.0

# Pauses that are exact as floats, so that the edges of the window are met and not just neared.
pauses = st.one_of(
    st.just(0.0),
    st.integers(1, 2**16).map(lambda n: n / 1024),
    st.sampled_from([WINDOW, WINDOW - 1 / 1024, WINDOW + 1 / 1024, WINDOW / 2, 10 * WINDOW]),
)
actions = st.lists(
    st.tuples(pauses, st.sampled_from(["admit", "admit", "admit", "give back"]), st.integers(0)),
    max_size=60,
)


class Model:
    """The promise itself: the times of all that were admitted, and a count over them."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def count(self, now: float) -> int:
        return sum(now < time + WINDOW for time in self.times)

    def admit(self, limit: int, now: float) -> bool:
        admitted = self.count(now) < limit
        if admitted:
            self.times.append(now)
        return admitted


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 6), actions)
def test_it_admits_and_refuses_just_as_the_model_does(
    limit: int, todo: list[tuple[float, str, int]]
) -> None:
    log, model, now = SlidingLog(), Model(), START
    places: list[tuple[Place, float]] = []
    for pause, action, choice in todo:
        now += pause
        if action == "give back" and places:
            place, time = places.pop(choice % len(places))
            place.give_back()
            place.give_back()
            model.times.remove(time)
        elif action == "admit":
            taken = log.admit(limit, now)
            assert (taken is not None) == model.admit(limit, now)
            if taken is not None:
                places.append((taken, now))
        assert log.count(now) == model.count(now)


@settings(deadline=None)
@given(st.integers(1, 6), st.lists(pauses, max_size=60))
def test_in_no_window_are_there_more_than_the_limit_nor_any_refusal_with_fewer(
    limit: int, todo: list[float]
) -> None:
    log, now = SlidingLog(), START
    admitted: list[float] = []
    for pause in todo:
        now += pause
        if log.admit(limit, now):
            admitted.append(now)
        else:
            assert sum(now - WINDOW < time <= now for time in admitted) == limit
    for begin in admitted:
        assert sum(begin <= time < begin + WINDOW for time in admitted) <= limit


@settings(deadline=None)
@given(st.integers(1, 6), actions, st.integers(1, 6))
def test_the_wait_is_exact(
    limit: int, todo: list[tuple[float, str, int]], later_limit: int
) -> None:
    """Also where the limit was lowered since, and more are in the window than it allows."""

    def replay() -> tuple[SlidingLog, float]:
        log, now = SlidingLog(), START
        places: list[Place] = []
        for pause, action, choice in todo:
            now += pause
            if action == "give back" and places:
                places.pop(choice % len(places)).give_back()
            elif action == "admit" and (place := log.admit(limit, now)):
                places.append(place)
        return log, now

    log, now = replay()
    wait = log.wait(later_limit, now)
    assert 0 <= wait <= WINDOW
    assert log.admit(later_limit, now + wait)
    if wait:
        log, now = replay()
        assert log.admit(later_limit, now + wait - 1 / 1024) is None


@settings(deadline=None)
@given(st.integers(1, 6), st.lists(pauses, max_size=30))
def test_the_reset_is_when_the_window_is_empty_and_not_before(
    limit: int, todo: list[float]
) -> None:
    log, now = SlidingLog(), START
    for pause in todo:
        now += pause
        log.admit(limit, now)
    reset = log.reset(now)
    if reset:
        assert log.count(now + reset - 1 / 1024) > 0
    assert log.count(now + reset) == 0
    assert log.reset(now + reset) == 0


@settings(deadline=None)
@given(st.floats(1000, 1e9), st.floats(0, 59.9))
def test_the_wait_is_exact_at_any_time_of_day(start: float, pause: float) -> None:
    log = SlidingLog()
    assert log.admit(1, start)
    now = start + pause
    assert log.admit(1, now) is None
    assert log.admit(1, now + log.wait(1, now))


def test_a_place_given_back_can_be_taken_at_once() -> None:
    log = SlidingLog()
    first, second = log.admit(2, START), log.admit(2, START + 1)
    assert first
    assert second
    assert log.admit(2, START + 2) is None
    first.give_back()
    assert log.admit(2, START + 2)
    assert log.admit(2, START + 2) is None


def test_a_place_given_back_after_it_left_the_window_frees_no_other() -> None:
    log = SlidingLog()
    old = log.admit(1, START)
    assert old
    assert log.admit(1, START + WINDOW)
    old.give_back()
    assert log.admit(1, START + WINDOW + 1) is None


def test_an_empty_window_asks_for_no_wait() -> None:
    log = SlidingLog()
    assert (log.count(START), log.wait(1, START), log.reset(START)) == (0, 0.0, 0.0)


@pytest.mark.parametrize("limit", [0, -1])
def test_with_no_place_at_all_there_is_no_time_that_would_do(limit: int) -> None:
    log = SlidingLog()
    assert log.admit(limit, START) is None
    assert log.wait(limit, START) == float("inf")
