"""How often somebody may try."""

import random

import pytest

from tollkeeper.testing import JumpClock
from tollkeeper_accounts import attempts
from tollkeeper_accounts.attempts import WINDOW, Attempts, network_of


@pytest.fixture
def clock() -> JumpClock:
    return JumpClock()


@pytest.fixture
def tried(clock: JumpClock) -> Attempts:
    return Attempts(clock.monotonic)


def test_so_many_attempts_pass_and_the_next_one_waits_until_the_first_is_old(
    clock: JumpClock, tried: Attempts
) -> None:
    for _ in range(3):
        assert tried.take({"ann": 3}) == 0
        clock.jump(10)
    wait = tried.take({"ann": 3})
    assert wait == WINDOW - 30
    clock.jump(wait - 0.5)
    assert tried.take({"ann": 3}) == 1
    clock.jump(0.5)
    assert tried.take({"ann": 3}) == 0
    assert tried.take({"ann": 3}) == 10


def test_an_attempt_that_was_refused_is_not_counted(clock: JumpClock, tried: Attempts) -> None:
    tried.take({"ann": 1})
    for _ in range(100):
        tried.take({"ann": 1})
    clock.jump(WINDOW)
    assert tried.take({"ann": 1}) == 0


def test_one_of_several_names_that_is_spent_refuses_and_counts_for_none(tried: Attempts) -> None:
    tried.take({"ann": 1, "here": 10})
    assert tried.take({"ann": 1, "here": 10}) > 0
    for _ in range(9):
        assert tried.take({"here": 10}) == 0
    assert tried.take({"here": 10}) > 0
    assert tried.take({"bob": 1, "here": 10}) > 0
    assert tried.take({"bob": 1}) == 0


def test_what_was_no_guess_is_given_back(tried: Attempts) -> None:
    for _ in range(50):
        assert tried.take({"ann": 1, "here": 1}) == 0
        tried.give_back({"ann": 1, "here": 1})
    assert len(tried) == 0


def test_a_limit_that_was_lowered_makes_wait_until_there_is_room_again(
    clock: JumpClock, tried: Attempts
) -> None:
    for _ in range(5):
        tried.take({"ann": 5})
        clock.jump(10)
    wait = tried.take({"ann": 2})
    clock.jump(wait - 1)
    assert tried.take({"ann": 2}) == 1
    clock.jump(1)
    assert tried.take({"ann": 2}) == 0


def test_names_are_bounded_and_the_one_that_tried_last_is_kept(
    tried: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "KEPT", 100)
    for number in range(1000):
        tried.take({"ann": 10_000, f"guess {number}": 1})
    assert len(tried) == 100
    assert tried.take({"ann": 1000}) > 0


def test_the_wait_that_is_told_is_exact_whatever_came_before() -> None:
    dice = random.Random(1)
    clock = JumpClock()
    tried, passed = Attempts(clock.monotonic), [-WINDOW]
    for _ in range(3000):
        clock.jump(dice.choice([0, 0.25, 1, 60, 333]))
        wait = tried.take({"ann": 5})
        recent = [at for at in passed if at + WINDOW > clock.now]
        assert (wait == 0) == (len(recent) < 5)
        if wait:
            assert recent[0] + WINDOW <= clock.now + wait < recent[0] + WINDOW + 1
        else:
            passed.append(clock.now)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("memory", "memory"),
        ("", ""),
    ],
)
def test_a_client_is_told_by_what_it_cannot_change(address: str, network: str) -> None:
    assert network_of(address) == network
