"""Many questions at once, and when no more are asked."""

import pytest
import trio
import trio.testing

from tollkeeper_billing.asking import AT_ONCE, all_of
from tollkeeper_billing.processor import Declined, Unreachable


@pytest.mark.parametrize(
    ("failure", "asked"),
    [
        (Declined("nobody is there", "unreachable"), 8),
        (Declined("a bad key", "forbidden"), 8),
        (Declined("too many", "busy", transient=True), 8),
        (Unreachable("no answer"), 8),
        (Unreachable("it failed at this one", answered=True), 20),
        (Declined("not this one", "resource_missing"), 20),
    ],
)
async def test_where_all_would_fail_no_more_are_asked(failure: Exception, asked: int) -> None:
    tried = []

    async def ask(item: int) -> None:
        tried.append(item)
        await trio.testing.wait_all_tasks_blocked()
        raise failure

    with pytest.raises(type(failure), match=str(failure)):
        await all_of(range(20), ask)
    assert len(tried) == asked


async def test_of_several_all_are_tried_and_the_first_failure_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begun: list[int] = []
    ended: list[int] = []
    most = 0

    async def work(item: int) -> None:
        nonlocal most
        begun.append(item)
        most = max(most, len(begun) - len(ended))
        await trio.sleep(1 + item % 3)
        ended.append(item)
        if item in (6, 9):
            raise Unreachable(str(item), answered=True)

    with pytest.raises(Unreachable) as failed:
        await all_of(range(20), work)
    assert str(failed.value) == str(next(item for item in ended if item in (6, 9)))
    assert sorted(ended) == list(range(20))
    assert most == AT_ONCE
    await all_of([], work)
