"""A budget or a balance that is used up while the gateway is killed: never exceeded, and used to
its end.
"""

import json
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
_SELLING = """
[plugins.keys]
[plugins.accounts]
jwt_secret = "a secret of this scenario, 32 bytes"
[plugins.billing]
secret_key = "sk_test_x"
webhook_secret = "whsec_x"
api_base = "http://127.0.0.1:9"
success_url = "http://127.0.0.1/"
cancel_url = "http://127.0.0.1/"
exempt = []
"""
"""Nothing listens at that address: Stripe is down all the time."""
QUIET_SECONDS = 1.0
PATIENCE_SECONDS = 120.0


async def budget(folder: Path, seed: int, count: int) -> Verdict:
    """Kill a gateway so often while calls use its budget up, and until none fits any more."""
    with staged(folder, plugins=_PLUGIN) as stage:
        return await _use_up(stage, seed, count)


async def balance(folder: Path, seed: int, count: int) -> Verdict:
    """The same with prepaid credit, which an operator granted."""
    with staged(folder, plugins=_SELLING) as stage:
        made = stage.command("keys", "create", "--name", "torture", "--json")
        granted = stage.command(
            "billing", "grant", "--org", "default", "--amount", str(AMOUNT / 10**9)
        )
        assert granted.returncode == 0, granted.stderr
        return await _use_up(stage, seed, count, json.loads(made.stdout)["key"])


async def _use_up(stage: Stage, seed: int, count: int, key: str = "") -> Verdict:
    random = Random(f"{seed} budget")
    await stage.start()
    load = Load(stage.port, seed, good, key)
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
        verdict.faults.append("more was spent than there was")
    if spent < AMOUNT - dearest:
        verdict.faults.append("calls were refused although they fitted")
    verdict.wrong |= {row.attempt_id for row in rows if row.charge_nanousd > row.hold_nanousd}
