"""Passwords: slow hashes, in threads that are few."""

import threading
import time

import argon2
import pytest
import trio

from tollkeeper_accounts import passwords
from tollkeeper_accounts.passwords import (
    THREADS,
    Passwords,
    Verdict,
    hash_password,
    verify_password,
)


def test_a_password_is_right_where_it_was_hashed_and_wrong_elsewhere() -> None:
    hashed = hash_password("correct horse")
    assert verify_password(hashed, "correct horse") == Verdict(is_right=True)
    for wrong in ("correct horsf", "Correct horse", "correct horse ", ""):
        assert verify_password(hashed, wrong) == Verdict(is_right=False)


def test_a_hash_is_as_strong_as_is_recommended_and_tells_nothing() -> None:
    hashed = hash_password("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert "correct" not in hashed
    assert hash_password("correct horse") != hashed


@pytest.mark.parametrize(
    "password", ["пароль-пароль", "🔑" * 200, "a\x00b and more", "\ud800" * 10]
)
def test_a_password_may_be_any_text(password: str) -> None:
    hashed = hash_password(password)
    assert verify_password(hashed, password).is_right
    assert not verify_password(hashed, password + "x").is_right
    assert not verify_password(hashed, password[:-1]).is_right


def test_nobody_and_a_broken_hash_have_no_right_password() -> None:
    assert verify_password(None, "correct horse") == Verdict(is_right=False)
    assert verify_password("no hash", "correct horse") == Verdict(is_right=False)


def test_whom_nobody_knows_takes_as_long_as_a_wrong_password() -> None:
    hashed = hash_password("correct horse")

    def fastest(given: str | None) -> float:
        spent = []
        for _ in range(5):
            begun = time.thread_time()
            verify_password(given, "a wrong one")
            spent.append(time.thread_time() - begun)
        return min(spent)

    assert 0.5 < fastest(None) / fastest(hashed) < 2


def test_a_hash_with_weaker_settings_is_replaced_once_the_password_is_known() -> None:
    old = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse")
    assert verify_password(old, "wrong") == Verdict(is_right=False)
    verdict = verify_password(old, "correct horse")
    assert verdict.is_right
    assert verdict.rehashed is not None
    assert verify_password(verdict.rehashed, "correct horse") == Verdict(is_right=True)


async def test_hashing_is_done_by_two_threads_at_most_and_never_by_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running, most, loop = 0, 0, threading.get_ident()
    lock = threading.Lock()

    def slow(*_: object) -> Verdict:
        nonlocal running, most
        assert threading.get_ident() != loop
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return Verdict(is_right=True)

    monkeypatch.setattr(passwords, "verify_password", slow)
    monkeypatch.setattr(passwords, "hash_password", slow)
    workers = Passwords()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(workers.verify, None, "x")
            nursery.start_soon(workers.hash, "x")
    assert most == THREADS == 2
