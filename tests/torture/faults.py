"""What a machine does to its programs: they are stopped, the disk is full, the database locked."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import trio

from torture.invariants import Verdict, check
from torture.load import Load, Mix, good, mixed, odd
from torture.stage import Stage, staged

CLIENTS = 16
REFUSED_WITHIN = 7.0
"""Seconds in which a call is refused that cannot be held: SQLite's patience, and some."""
RECOVERED_WITHIN = 15.0
DISK = "24m"
_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


async def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether something becomes true in time."""
    with trio.move_on_after(seconds):
        while not true():
            await trio.sleep(0.02)
        return True
    return False


async def recovers(load: Load, verdict_faults: list[str]) -> None:
    """Note it as a fault unless calls are answered again."""
    before = load.seen.statuses[200]
    if not await wait_until(lambda: load.seen.statuses[200] > before + 50, RECOVERED_WITHIN):
        verdict_faults.append(f"no good replies within {RECOVERED_WITHIN:g} s of the fault's end")


@asynccontextmanager
async def under_load(stage: Stage, seed: int, mix: Mix) -> AsyncIterator[Load]:
    """A running gateway that is called, stopped at the end of the block."""
    await stage.start()
    load = Load(stage.port, seed, mix)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run, CLIENTS)
        await wait_until(lambda: load.seen.statuses[200] > 100, 10)
        yield load
        load.stopping.set()
    await stage.stop()


async def stopped(folder: Path, seed: int, seconds: float) -> Verdict:
    """SIGSTOP and SIGCONT for the gateway, then for the upstream."""
    faults: list[str] = []
    with staged(folder) as stage:
        assert stage.upstream is not None
        async with under_load(stage, seed, mixed) as load:
            for send in (stage.send, stage.upstream.send_signal):
                send(signal.SIGSTOP)
                await trio.sleep(seconds)
                send(signal.SIGCONT)
                await recovers(load, faults)
        verdict = check(stage, load.seen)
        verdict.faults += faults
        return verdict


async def locked(folder: Path, seed: int, seconds: float) -> Verdict:
    """Another process holds the database exclusively."""
    faults: list[str] = []
    with staged(folder) as stage:
        async with under_load(stage, seed, good) as load:
            with _lock(stage.database, seconds) as holder:
                refused = load.seen.statuses[503]
                load.seen.slowest.clear()
                if not await wait_until(lambda: load.seen.statuses[503] > refused, REFUSED_WITHIN):
                    faults.append(f"no call was answered 503 within {REFUSED_WITHIN:g} s")
                await wait_until(lambda: holder.poll() is not None, seconds + 5)
            await recovers(load, faults)
        verdict = check(stage, load.seen)
        slowest = load.seen.slowest.get(503, 0.0)
        if slowest > REFUSED_WITHIN:
            faults.append(f"a call waited {slowest:.1f} s to be answered 503")
        verdict.notes = f"locked {seconds:g} s, slowest 503 {slowest:.1f} s, {verdict.notes}"
        verdict.faults += faults
        return verdict


def _lock(database: Path, seconds: float) -> "subprocess.Popen[bytes]":
    holder = subprocess.Popen(
        [sys.executable, "-c", _LOCK, str(database), str(seconds)], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    return holder


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A tmpfs at `folder`; False where mounting is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Take all that is left of a disk."""
    with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


async def disk_full(folder: Path, seed: int, seconds: float) -> Verdict | None:
    """The disk is full for some seconds, and what is given up for settlements is taken as well.

    None where no small disk can be mounted.
    """
    faults: list[str] = []
    disk = folder / "disk"
    with small_disk(disk) as mounted:
        if not mounted:
            return None
        with staged(folder, database=disk / "tollkeeper.db") as stage:
            async with under_load(stage, seed, good) as load:
                fill(disk)
                if not await wait_until(lambda: load.seen.statuses[503] > 0, REFUSED_WITHIN):
                    faults.append(f"no call was answered 503 within {REFUSED_WITHIN:g} s")
                for _ in range(2):
                    await trio.sleep(seconds / 2)
                    fill(disk)
                if stage.has_died():
                    faults.append("the gateway died")
                os.unlink(disk / "filler")
                await recovers(load, faults)
            verdict = check(stage, load.seen)
            verdict.faults += faults
            return verdict


async def odd_usages(folder: Path, seed: int, calls: int) -> Verdict:
    """Usage that is negative, huge, missing, doubled or for another model."""
    with staged(folder) as stage:
        async with under_load(stage, seed, odd) as load:
            await wait_until(partial(_reached, load, calls), 60)
        return check(stage, load.seen)


def _reached(load: Load, calls: int) -> bool:
    return load.seen.sent >= calls
