"""`kill -9` at random moments under load."""

from pathlib import Path
from random import Random

import trio

from torture.invariants import Verdict, check
from torture.load import Load
from torture.stage import Stage, staged

CLIENTS = 24
SHORTEST, LONGEST = 0.05, 2.0
"""Seconds that a gateway lives from its first answer on."""
STARTING = 0.6
"""Seconds that a start takes, about. One kill of ten comes before its end."""


async def kills(folder: Path, seed: int, count: int, calls: int) -> Verdict:
    """Kill a gateway so often, and go on until the upstream got so many calls."""
    random = Random(f"{seed} kills")
    with staged(folder) as stage:
        await _die_starting(stage, random)
        await stage.start()
        load = Load(stage.port, seed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run, CLIENTS)
            for _ in range(count - 1):
                if random.random() < 0.1:
                    stage.kill()
                    await _die_starting(stage, random)
                else:
                    await trio.sleep(random.uniform(SHORTEST, LONGEST))
                    stage.kill()
                await stage.start()
            await load.stop_at(stage.attempts, calls)
        await stage.stop()
        verdict = check(stage, load.seen)
        verdict.notes = f"{count} kills, slowest start {stage.slowest_start:.1f} s, {verdict.notes}"
        return verdict


async def _die_starting(stage: Stage, random: Random) -> None:
    stage.spawn()
    await trio.sleep(random.uniform(0.0, STARTING))
    stage.kill()
