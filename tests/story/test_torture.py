"""Money under torture, in short. At length it is `make torture`.

`TOLLKEEPER_SEED` repeats the run of a seed; a failure names the one it had.
"""

import os
from pathlib import Path
from random import SystemRandom

import pytest
from torture.budget import balance, budget
from torture.disconnects import POLICIES, disconnects
from torture.failpoints import failpoint
from torture.faults import disk_full, odd_usages, stopped
from torture.invariants import Verdict
from torture.kills import kills

SEED = int(os.environ.get("TOLLKEEPER_SEED") or SystemRandom().randrange(10**9))


def assert_ok(verdict: Verdict) -> None:
    assert verdict.ok, f"TOLLKEEPER_SEED={SEED}: {verdict}"
    assert verdict.states["posted"] > 0, "nothing was tried"


async def test_no_call_is_lost_invented_or_counted_twice_over_twenty_kills(tmp_path: Path) -> None:
    verdict = await kills(tmp_path, SEED, 20, 10_000)
    assert_ok(verdict)
    assert verdict.attempts >= 10_000


async def test_a_budget_is_used_up_and_never_exceeded_whatever_is_killed(tmp_path: Path) -> None:
    assert_ok(await budget(tmp_path, SEED, 3))


async def test_a_balance_is_used_up_and_never_exceeded_whatever_is_killed(tmp_path: Path) -> None:
    assert_ok(await balance(tmp_path, SEED, 3))


@pytest.mark.parametrize(
    "point", ["hold-uncommitted", "bytes-sent", "settled", "entry-uncommitted", "orphans-closed"]
)
async def test_a_process_that_dies_at_a_point_leaves_the_money_right(
    tmp_path: Path, point: str
) -> None:
    assert_ok(await failpoint(tmp_path, SEED, point, 2))


@pytest.mark.parametrize("policy", POLICIES)
async def test_clients_that_leave_anywhere_in_a_stream_are_charged_rightly(
    tmp_path: Path, policy: str
) -> None:
    assert_ok(await disconnects(tmp_path, policy, 41))


async def test_a_process_that_is_stopped_and_goes_on_loses_nothing(tmp_path: Path) -> None:
    assert_ok(await stopped(tmp_path, SEED, 1.0))


async def test_a_full_disk_refuses_new_calls_and_settles_those_that_run(tmp_path: Path) -> None:
    verdict = await disk_full(tmp_path, SEED, 1.0)
    if verdict is None:
        pytest.skip("no small disk can be mounted here")
    assert_ok(verdict)


async def test_usage_that_is_negative_huge_missing_or_doubled_charges_nobody_wrongly(
    tmp_path: Path,
) -> None:
    verdict = await odd_usages(tmp_path, SEED, 500)
    assert_ok(verdict)
    assert verdict.states["estimated"] > 0
