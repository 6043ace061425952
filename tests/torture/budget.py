"""A budget that is used up while the gateway is killed: never exceeded, and used to its end."""

from pathlib import Path
from random import Random

import trio

from torture.invariants import Verdict, check, read_ledger
from torture.kills import CLIENTS, LONGEST, SHORTEST
from torture.load import Load, good
from torture.stage import Stage, staged

AMOUNT = 100_000_000
"""Nano-USD: a few thousand calls."""
_PLUGIN = f"""
[plugins.budgets]
limits = [{{ scope = "gateway", amount = "{AMOUNT / 10**9}", period = "total" }}]
"""
QUIET_SECONDS = 1.0
PATIENCE_SECONDS = 120.0


async def budget(folder: Path, seed: int, count: int) -> Verdict:
    """Kill a gateway so often while calls use its budget up, and until none fits any more."""
    random = Random(f"{seed} budget")
    with staged(folder, plugins=_PLUGIN) as stage:
        await stage.start()
        load = Load(stage.port, seed, good)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run, CLIENTS)
            for _ in range(count):
                await trio.sleep(random.uniform(SHORTEST, LONGEST))
                stage.kill()
                await stage.start()
            await _used_up(load)
            load.stopping.set()
        await stage.stop()
        verdict = check(stage, load.seen)
        _compare_budget(verdict, stage)
        return verdict


async def _used_up(load: Load) -> None:
    """Until for a while calls were refused and none was let through."""
    statuses = load.seen.statuses
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            served, refused = statuses[200], statuses[429]
            await trio.sleep(QUIET_SECONDS)
            if statuses[200] == served and statuses[429] > refused + CLIENTS:
                return


def _compare_budget(verdict: Verdict, stage: Stage) -> None:
    rows = read_ledger(stage)
    spent = sum(row.charge_nanousd for row in rows)
    dearest = max(row.hold_nanousd for row in rows)
    verdict.notes = f"{spent} of {AMOUNT} nano-USD spent, {verdict.notes}"
    if spent > AMOUNT:
        verdict.faults.append("the budget was exceeded")
    if spent < AMOUNT - dearest:
        verdict.faults.append("calls were refused although they fitted the budget")
    verdict.wrong |= {row.attempt_id for row in rows if row.charge_nanousd > row.hold_nanousd}
