"""Amounts of money and moments of time, as people write and read them. Pure."""

import re
from datetime import UTC, datetime
from decimal import Decimal

NANO = 10**9
"""Nano-USD in a US dollar."""

_BACK = re.compile(r"([0-9]{1,6})([dh])")
_SECONDS = {"d": 86400, "h": 3600}
_FORMATS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%SZ")


def dollars(nanousd: int) -> str:
    """Nano-USD as US dollars: two decimals at least, none that say nothing."""
    sign = "-" if nanousd < 0 else ""
    whole, rest = divmod(abs(nanousd), NANO)
    return f"{sign}{whole}.{f'{rest:09d}'.rstrip('0'):0<2}"


def nanousd(amount: Decimal) -> int:
    """US dollars in whole nano-USD; what is less than one is cut off."""
    return int(amount * NANO)


def read_moment(text: str, now: int) -> int | None:
    """Unix seconds of a moment; None for what is none.

    Written as `2026-11-25`, `2026-11-25T10:00`, `2026-11-25T10:00:00Z`, all of UTC, or as `7d` or
    `24h` before now.
    """
    if (back := _BACK.fullmatch(text)) is not None:
        return max(0, now - int(back[1]) * _SECONDS[back[2]])
    for form in _FORMATS:
        try:
            moment = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        return max(0, int(moment.timestamp()))
    return None
