"""A file beside the ledger: room for settlements, and the sign that its writer is at work."""

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tollkeeper_metering import ballast as module
from tollkeeper_metering.ballast import Ballast, Occupied

SIZE = 1024**2


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "my.db"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)


def size_on_disk(ledger: Path) -> int:
    return (ledger.parent / "my.db.ballast").stat().st_blocks * 512


def test_it_takes_real_space_gives_it_up_and_takes_it_again(ledger: Path) -> None:
    ballast = Ballast(ledger, SIZE)
    assert ballast.fill()
    assert size_on_disk(ledger) >= SIZE
    ballast.give_up()
    assert size_on_disk(ledger) == 0
    assert ballast.fill()
    assert size_on_disk(ledger) >= SIZE
    ballast.close()


def test_a_smaller_one_gives_back_what_a_larger_one_took(ledger: Path) -> None:
    large = Ballast(ledger, 4 * SIZE)
    assert large.fill()
    large.close()
    small = Ballast(ledger, SIZE)
    assert small.fill()
    assert size_on_disk(ledger) < 2 * SIZE
    small.close()


def test_a_second_process_is_told_whose_ledger_it_is(ledger: Path) -> None:
    first = Ballast(ledger, SIZE)
    with pytest.raises(Occupied, match=r"another gateway keeps its ledger in .*my\.db; stop it"):
        Ballast(ledger, SIZE)
    first.close()
    Ballast(ledger, SIZE).close()


def test_it_waits_for_a_process_that_goes_down(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Ballast(ledger, SIZE)
    monkeypatch.setattr(module, "PATIENCE", 5.0)
    monkeypatch.setattr(time, "sleep", lambda _: first.close())
    Ballast(ledger, SIZE).close()


def test_one_that_was_turned_away_keeps_no_descriptor(ledger: Path) -> None:
    first = Ballast(ledger, SIZE)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(Occupied):
        Ballast(ledger, SIZE)
    assert len(os.listdir("/dev/fd")) == before
    first.close()


def failing(number: int) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def test_on_a_full_disk_it_says_so_and_holds_nothing(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = Ballast(ledger, SIZE)
    assert ballast.fill()
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
    assert not ballast.fill()
    assert size_on_disk(ledger) == 0
    ballast.close()


def test_a_system_that_cannot_reserve_space_ahead_is_served_all_the_same(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As macOS, which has no such call."""
    monkeypatch.delattr(os, "posix_fallocate")
    ballast = Ballast(ledger, SIZE)
    assert ballast.fill()
    assert size_on_disk(ledger) >= SIZE
    ballast.close()


def test_only_its_owner_may_touch_it(ledger: Path) -> None:
    Ballast(ledger, SIZE).close()
    mode = (ledger.parent / "my.db.ballast").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
