"""Asking Stripe for many, some at once."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from tollkeeper_billing.processor import BUSY, FORBIDDEN, UNREACHABLE, Declined, Unreachable

AT_ONCE = 8
"""Requests to Stripe under way together."""

T = TypeVar("T")


async def all_of(items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Some at once; the first failure is raised, and no more are asked where all would fail."""
    failures: list[Exception] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(item: T) -> None:
        async with limit:
            if any(map(_fails_all, failures)):
                return
            try:
                await work(item)
            except (Declined, Unreachable) as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(one, item)
    if failures:
        raise failures[0]


def _fails_all(failure: Exception) -> bool:
    """Whether what is asked next would fail too: nobody answers, the key is bad, or it is busy."""
    if isinstance(failure, Declined):
        return failure.code in (UNREACHABLE, FORBIDDEN, BUSY)
    return isinstance(failure, Unreachable) and not failure.answered
