"""The open connections, each looked at when it asked for it and left alone until then."""

from collections.abc import Collection, Iterator, Sequence
from math import ceil
from typing import Generic, Protocol, TypeVar

import trio

ROUND_SECONDS = 0.25
"""Half of how late a look may be: so late a round may begin, and so long it takes."""
LOOKED_AT_ONCE = 50
"""Connections between which what arrives has to wait."""


class Swept(Protocol):
    """What is looked at."""

    def sweep(self, now: float) -> float:
        """Do what is due, and say when there may be more."""


S = TypeVar("S", bound=Swept)
T = TypeVar("T")


class Rounds(Generic[S]):
    """What is to be looked at, by the round in which it is."""

    def __init__(self) -> None:
        self._round_of: dict[S, int] = {}
        self._rounds: dict[int, set[S]] = {}

    def __len__(self) -> int:
        return len(self._round_of)

    def __iter__(self) -> Iterator[S]:
        return iter(tuple(self._round_of))

    def plan(self, item: S, at: float) -> None:
        """Look at `item` about this time, instead of when it asked for. A past one means soon."""
        self.discard(item)
        number = self._round_of[item] = int(at / ROUND_SECONDS)
        self._rounds.setdefault(number, set()).add(item)

    def discard(self, item: S) -> None:
        """Look at `item` no more."""
        number = self._round_of.pop(item, None)
        if number in self._rounds:
            self._rounds[number].discard(item)

    async def run(self) -> None:
        """Look at everything in its round, in slices that are spread over it."""
        while True:
            some = slices(self._take_due(trio.current_time()), LOOKED_AT_ONCE)
            for items in some:
                now = trio.current_time()
                for item in items:
                    if item in self._round_of:  # and not discarded meanwhile
                        self.plan(item, item.sweep(now))
                await trio.sleep(ROUND_SECONDS / len(some))

    def _take_due(self, now: float) -> list[S]:
        due = [number for number in self._rounds if number <= now / ROUND_SECONDS]
        return [item for number in due for item in self._rounds.pop(number)]


def slices(items: Collection[T], size: int) -> Sequence[Sequence[T]]:
    """All items as they are now, in slices of about this size; one at least, if an empty one."""
    every = tuple(items)
    count = max(1, ceil(len(every) / size))
    step = ceil(len(every) / count) or 1
    return [every[begin : begin + step] for begin in range(0, max(1, len(every)), step)]
