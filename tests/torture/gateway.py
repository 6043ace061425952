"""tollkeeper with a trap in it: dies by SIGKILL at a named point. The product itself has none.

`TOLLKEEPER_FAILPOINT=NAME:N` kills this process at the N-th passage of the point. Run it with the
arguments of tollkeeper.
"""

import functools
import importlib
import inspect
import itertools
import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Any, NoReturn

BEFORE, AFTER, DURING = "before", "after", "during"
CALL, START, CHECKPOINT = "call", "start", "checkpoint"
_LONGEST = 0.003
"""Seconds into a function at which `DURING` kills, at most."""

_SERVER = "tollkeeper._server"
_LEDGER = "tollkeeper_metering.service:Ledger"
_WRITER = "tollkeeper_metering.writer:Writer"
_ROWS = "tollkeeper_metering.rows:Rows"

POINTS: dict[str, tuple[str, str, str]] = {
    "attempt-made": (f"{_SERVER}.pipeline:Pipeline.attempt", BEFORE, CALL),
    "hold-taken": (f"{_LEDGER}.commit", BEFORE, CALL),
    "handed-over": (f"{_WRITER}.add", AFTER, CALL),
    "hold-uncommitted": (f"{_ROWS}._hold_row", AFTER, CALL),
    "committed": (f"{_ROWS}.keep", BEFORE, CALL),
    "hold-durable": (f"{_LEDGER}.commit", AFTER, CALL),
    "upstream-send": (f"{_SERVER}.upstream:PooledUpstream._send_over", BEFORE, CALL),
    "bytes-sent": (f"{_SERVER}.channel:SocketChannel.post", AFTER, CALL),
    "upstream-head": (f"{_SERVER}.link:Link.on_headers_complete", AFTER, CALL),
    "upstream-whole": (f"{_SERVER}.link:Link.on_message_complete", AFTER, CALL),
    "client-head": (f"{_SERVER}.delivery:Delivery.head", BEFORE, CALL),
    "usage-read": ("tollkeeper.dialect:Dialect.usage", AFTER, CALL),
    "settle": (f"{_LEDGER}.settle", BEFORE, CALL),
    "settled": (f"{_LEDGER}.settle", AFTER, CALL),
    "entry-uncommitted": (f"{_ROWS}._entry_row", AFTER, CALL),
    "last-write": (f"{_SERVER}.writer:Writer.end", BEFORE, CALL),
    "last-written": (f"{_SERVER}.writer:Writer.end", AFTER, CALL),
    "orphans-uncommitted": (f"{_ROWS}.begin", AFTER, START),
    "orphans-closed": (f"{_WRITER}.open", AFTER, START),
    "checkpoint": ("tollkeeper_metering.syncing:Syncer._checkpoint", DURING, CHECKPOINT),
}
"""Name: the function, on which side of it, and what makes it pass (a call, a start, much data)."""


def die() -> NoReturn:
    """As the kernel kills: nothing of this process runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead")


def trapped(function: Callable[..., Any], side: str, passage: int) -> Callable[..., Any]:
    """`function`, deadly at its n-th call, before, after or while it does its work."""
    calls = itertools.count(1)

    def enter() -> bool:
        """Whether to die on the way out."""
        fatal = next(calls) == passage
        if fatal and side == BEFORE:
            die()
        if fatal and side == DURING:
            threading.Timer(random.uniform(0, _LONGEST), die).start()
        return fatal

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        fatal = enter()
        result = function(*args, **kwargs)
        return die() if fatal else result

    @functools.wraps(function)
    async def waiting(*args: Any, **kwargs: Any) -> Any:
        fatal = enter()
        result = await function(*args, **kwargs)
        return die() if fatal else result

    return waiting if inspect.iscoroutinefunction(function) else plain


def set_trap(point: str) -> None:
    """Set the trap of `NAME:N`."""
    name, _, passage = point.partition(":")
    dotted, side, _ = POINTS[name]
    module, _, path = dotted.partition(":")
    *owners, attribute = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, attribute, trapped(getattr(owner, attribute), side, int(passage)))


def main() -> None:
    """Set the trap, then be tollkeeper."""
    if point := os.environ.get("TOLLKEEPER_FAILPOINT"):
        set_trap(point)
    from tollkeeper.__main__ import main as tollkeeper

    tollkeeper()


if __name__ == "__main__":
    main()
