"""`kill -9` at named points, each many times, under load."""

from pathlib import Path
from random import Random

import trio

from torture.gateway import CALL, POINTS, START
from torture.invariants import Verdict, check
from torture.load import Load
from torture.stage import Stage, staged

CLIENTS = 8
PASSAGES = 60
"""A point that calls pass kills at one of its first passages, up to this one."""
PATIENCE_SECONDS = 20.0


async def failpoint(folder: Path, seed: int, name: str, times: int) -> Verdict:
    """Have the gateway die so often at one point."""
    random = Random(f"{seed} {name}")
    alive = 0
    with staged(folder) as stage:
        await stage.start()
        load = Load(stage.port, random.randrange(2**32))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run, CLIENTS)
            for _ in range(times):
                alive += not await _dies(stage, name, random)
                stage.kill()
            await stage.start()
            load.stopping.set()
        await stage.stop()
        verdict = check(stage, load.seen)
        verdict.notes = f"{times - alive} deaths at {name}, {verdict.notes}"
        if alive:
            verdict.faults.append(f"nothing died of {name} in {alive} of {times} lives")
        return verdict


async def _dies(stage: Stage, name: str, random: Random) -> bool:
    """Whether the gateway dies at the point, after a start that gives it reason to pass there."""
    kind = POINTS[name][2]
    if kind == START:  # leave it something to close
        stage.kill()
        await stage.start()
        await trio.sleep(random.uniform(0.05, 0.3))
    stage.kill()
    passage = random.randint(1, PASSAGES) if kind == CALL else 1
    if await stage.start(f"{name}:{passage}"):
        await stage.wait_dead(PATIENCE_SECONDS)
    return stage.was_killed()
