"""The head of a reply, as bytes."""

import functools
import http
import logging
import time
from email.utils import formatdate

log = logging.getLogger("tollkeeper")


def encode_head(status: int, headers: dict[str, str]) -> bytes:
    """Status line and headers. A header that would break the lines is left out, and logged."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    count = len(headers)
    if lines.count("\n") != count or lines.count("\r") != count or "\x00" in lines:
        return encode_head(status, _harmless(headers))
    start = _STATUS_LINES[status] + _date_line(int(time.time()))
    return start + lines.encode("latin-1", "replace") + b"\r\n"


def _harmless(headers: dict[str, str]) -> dict[str, str]:
    kept = {}
    for name, value in headers.items():
        if any(mark in name + value for mark in "\r\n\x00"):
            log.error("header %r was left out: it contains a line break", name)
        else:
            kept[name] = value
    return kept


@functools.lru_cache(maxsize=2)
def _date_line(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()


def _status_line(status: int) -> bytes:
    phrase = http.HTTPStatus(status).phrase if status in _KNOWN_STATUSES else "Status"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_KNOWN_STATUSES = frozenset(http.HTTPStatus)
_STATUS_LINES = {status: _status_line(status) for status in range(100, 1000)}
