"""How often somebody may try: a sliding window in memory, bounded."""

import ipaddress
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

WINDOW = 900.0
"""Seconds."""
KEPT = 10_000
"""Names that are remembered; beyond it the one that tried longest ago is forgotten."""


class Attempts:
    """When each name tried within the last 15 minutes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tried: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, limits: Mapping[str, int]) -> int:
        """Count one attempt for each name, where all are below their limits: 0.

        Otherwise nothing is counted: the whole seconds after which it may be tried again.
        """
        now = self._clock()
        if wait := max(self._wait(name, limit, now) for name, limit in limits.items()):
            return wait
        for name in limits:
            self._tried.setdefault(name, deque()).append(now)
            self._tried.move_to_end(name)
        while len(self._tried) > KEPT:
            self._tried.popitem(last=False)
        return 0

    def _wait(self, name: str, limit: int, now: float) -> int:
        tried = self._tried.get(name)
        while tried and tried[0] + WINDOW <= now:
            tried.popleft()
        if not tried or len(tried) < limit:
            return 0
        # A limit that was lowered may be passed by several: the one that makes room counts.
        return max(1, math.ceil(tried[len(tried) - limit] + WINDOW - now))

    def give_back(self, limits: Mapping[str, int]) -> None:
        """Uncount one attempt of each name: it was no guess."""
        for name in limits:
            tried = self._tried.get(name)
            if tried:
                tried.pop()
            if not tried:
                self._tried.pop(name, None)

    def __len__(self) -> int:
        return len(self._tried)


def network_of(address: str) -> str:
    """What one client can be told by: its address, or the /64 of it that IPv6 gives everybody."""
    if address.count(":") == 1 or address.startswith("["):  # with a port, as some proxies tell it
        address = address.rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
