"""Where routes ask Stripe: what its failures become."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tollkeeper import Failed
from tollkeeper.storage import make_database
from tollkeeper.testing import JumpClock
from tollkeeper_billing.desk import Desk, unknown
from tollkeeper_billing.processor import Declined, Processor, Unreachable
from tollkeeper_billing.till import Till


def desk(tmp_path: Path, processor: object) -> Desk:
    till = Till(make_database("sqlite:///my.db", tmp_path), JumpClock())
    return Desk(till, lambda: cast("Processor | None", processor))


def failing(error: Exception) -> Callable[[Any], Awaitable[str]]:
    async def question(_processor: Any) -> str:
        raise error

    return question


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Unreachable("silent"), 503, "60"),
        (Declined("busy", "busy", transient=True), 503, "60"),
        (Declined("No such price: sk_test_secret", "resource_missing"), 500, None),
        (Declined("Invalid API key", "forbidden"), 500, None),
    ],
)
async def test_a_failure_is_told_without_what_stripe_said(
    tmp_path: Path, error: Exception, status: int, retry: str | None
) -> None:
    with pytest.raises(Failed) as failed:
        await desk(tmp_path, object()).asked(failing(error))
    assert failed.value.status == status
    assert failed.value.headers.get("retry-after") == retry
    assert str(error) not in failed.value.message


async def test_before_billing_runs_nothing_is_asked(tmp_path: Path) -> None:
    with pytest.raises(Failed) as failed:
        await desk(tmp_path, None).asked(failing(AssertionError("asked")))
    assert failed.value.status == 503


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    refused = unknown("pack", "x" * 999, {"small": 1, "large": 2})
    assert (refused.status, refused.param) == (400, "pack")
    assert "there are: small, large" in refused.message
    assert len(refused.message) < 200
    assert "there are none" in unknown("plan", "x", {}).message
