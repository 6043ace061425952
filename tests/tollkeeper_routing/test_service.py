"""Where a request goes first, and whether it goes again: pure decisions."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper import Deployment, UpstreamError
from tollkeeper_routing.service import Plan, order
from tollkeeper_routing.settings import RoutingSettings

BUSY = UpstreamError("status", "busy", status=429)
BROKEN = UpstreamError("status", "broken", status=500)
NOBODY = UpstreamError("connect", "nobody there")
WRONG = UpstreamError("status", "wrong", status=400)


def deployments(*weights: int) -> tuple[Deployment, ...]:
    return tuple(
        Deployment("m", "p", "toy", f"m{number}", weight=weight)
        for number, weight in enumerate(weights)
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 2**32))
def test_every_deployment_is_tried_once_and_only_the_first_is_a_matter_of_chance(
    weights: list[int], seed: int
) -> None:
    candidates = deployments(*weights)
    chosen = order(candidates, Random(seed))
    assert sorted(chosen, key=candidates.index) == list(candidates)
    assert chosen[1:] == tuple(c for c in candidates if c is not chosen[0]) if chosen else True


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=6), st.integers(0, 2**32))
def test_a_deployment_of_no_weight_is_a_fallback_only(weights: list[int], seed: int) -> None:
    first = order(deployments(*weights), Random(seed))[0]
    assert first.weight > 0 or not any(weights)


def test_where_none_has_a_weight_the_order_is_that_of_the_file() -> None:
    candidates = deployments(0, 0, 0)
    assert all(order(candidates, Random(seed)) == candidates for seed in range(50))


def test_each_comes_first_in_its_share_of_all_requests() -> None:
    candidates, random = deployments(1, 0, 3, 6), Random(7)
    firsts = Counter(order(candidates, random)[0].model for _ in range(10_000))
    assert set(firsts) == {"m0", "m2", "m3"}
    for model, share in (("m0", 1_000), ("m2", 3_000), ("m3", 6_000)):
        assert abs(firsts[model] - share) < 200


def plan(count: int, **fields: object) -> Plan:
    settings = RoutingSettings.model_validate(fields)
    return Plan(deployments(*[1] * count), settings, Random(7))


def follow(plan: Plan, *errors: UpstreamError, retry_after: float | None = None) -> list[str]:
    """The deployments that are tried while one try after the other fails with these."""
    tried = [plan.current.model]
    for error in errors:
        if plan.after(error, retry_after) is None:
            return [*tried, "end"]
        tried.append(plan.current.model)
    return tried


def test_one_that_broke_is_tried_again_and_then_the_next() -> None:
    tried = follow(plan(3, attempts=9, retries=2), *[BROKEN] * 9)
    assert tried == ["m0", "m0", "m0", "m1", "m1", "m1", "m2", "m2", "m2", "end"]


def test_one_that_nobody_answers_at_is_treated_in_the_same_way() -> None:
    assert follow(plan(2, retries=1), *[NOBODY] * 3) == ["m0", "m0", "m1", "end"]


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 19), st.integers(1, 5))
def test_there_are_never_more_tries_than_the_budget(
    attempts: int, retries: int, count: int
) -> None:
    tried = follow(plan(count, attempts=attempts, retries=retries), *[BROKEN] * 200)
    assert tried.pop() == "end"
    assert len(tried) == min(attempts, count * (retries + 1))


def test_one_at_its_limit_is_left_for_the_next_at_once() -> None:
    waiting = plan(2, attempts=5, retries=2)
    assert waiting.after(BUSY, 3.0) == 0.0
    assert waiting.current.model == "m1"


def test_the_last_one_at_its_limit_is_waited_for_as_long_as_it_says() -> None:
    waiting = plan(1, attempts=3, retries=2, max_wait=5)
    assert waiting.after(BUSY, 5.0) == 5.0
    assert waiting.after(BUSY, 5.1) is None


def test_one_that_wants_to_be_left_alone_for_long_is_left_for_the_next() -> None:
    waiting = plan(2, retries=2, max_wait=5)
    assert waiting.after(BROKEN, 600.0) == 0.0
    assert waiting.current.model == "m1"


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_would_fail_again_is_not_tried_again_nor_elsewhere(status: int) -> None:
    error = UpstreamError("status", "no", status=status)
    assert follow(plan(3, attempts=9), error) == ["m0", "end"]


@pytest.mark.parametrize("status", [401, 402, 403])
def test_one_whose_provider_turns_us_away_is_left_for_the_next_and_never_repeated(
    status: int,
) -> None:
    error = UpstreamError("status", "no", status=status)
    assert follow(plan(2, attempts=9, retries=2), error, error) == ["m0", "m1", "end"]


def test_a_wrong_request_ends_the_tries_also_in_their_middle() -> None:
    assert follow(plan(3, attempts=9), BROKEN, WRONG) == ["m0", "m0", "end"]


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_pauses_double_and_are_never_all_the_same(seed: int) -> None:
    settings = RoutingSettings.model_validate({"attempts": 20, "retries": 4, "backoff": 0.25})
    planned = Plan(deployments(1), settings, Random(seed))
    for longest in (0.25, 0.5, 1.0, 2.0):
        pause = planned.after(BROKEN, None)
        assert pause is not None
        assert longest / 2 <= pause <= longest
    assert planned.after(BROKEN, None) is None


def test_the_next_deployment_starts_with_short_pauses_again() -> None:
    planned = plan(2, attempts=20, retries=3, backoff=1)
    pauses = [planned.after(BROKEN, None) for _ in range(5)]
    assert pauses[3] == 0.0
    assert pauses[4] is not None
    assert pauses[4] <= 1.0
