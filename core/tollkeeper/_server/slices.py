"""Looking at very many things again and again, without a long look that all else waits for."""

from collections.abc import Collection, Sequence
from math import ceil
from typing import TypeVar

T = TypeVar("T")


def slices(items: Collection[T], size: int) -> Sequence[Sequence[T]]:
    """All items as they are now, in slices of about this size; one at least, if an empty one."""
    every = tuple(items)
    count = max(1, ceil(len(every) / size))
    step = ceil(len(every) / count) or 1
    return [every[begin : begin + step] for begin in range(0, max(1, len(every)), step)]
