"""Form fields in a multipart body (RFC 7578), found and replaced; no other byte changes.

Read strictly: a body that another parser could take apart differently is refused, for the upstream
must not see another model than the gateway did.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from tollkeeper import invalid_request

MAX_PARTS = 100
MAX_FIELD = 1000
_BOUNDARY = r"[0-9A-Za-z'()+_,./:=?-]{1,70}"
_TYPE = re.compile(
    rf'multipart/form-data *; *boundary=(?:"({_BOUNDARY})"|({_BOUNDARY}))'
    r'(?: *; *charset="?utf-8"?)?',
    re.IGNORECASE,
)
_HEADER = re.compile(rb"[!-9;-~]+:[^\r\n\0]*")
_DISPOSITION = re.compile(
    rb'content-disposition: *form-data *; *name=(?:"([^"\\]*)"|([^\s;"\\]+))'
    rb'(?: *; *filename\*?=(?:"(?:[^"\\]|\\.)*"|[^\s;"]+))*',
    re.IGNORECASE,
)


class Field(NamedTuple):
    """One part: `body[start:end]` with its head, `body[value:end]` without."""

    name: str
    start: int
    value: int
    end: int


def fields(body: bytes, content_type: str) -> Iterator[Field]:
    """Each part in order. Raises `Refused` for a body that is no plain multipart form."""
    match = _TYPE.fullmatch(content_type)
    if match is None:
        raise invalid_request("The body must be multipart/form-data with a boundary.")
    delimiter = b"--" + (match[1] or match[2]).encode()
    for start, end in pairwise(_edges(body, delimiter)):
        start += len(delimiter) + 2
        head_end = body.find(b"\r\n\r\n", start, end - 2)
        if head_end < 0:
            raise _malformed()
        yield Field(_name(body[start:head_end]), start, head_end + 4, end - 2)


def _edges(body: bytes, delimiter: bytes) -> list[int]:
    """Where the delimiters stand, each on a line of its own, the last one marked as such."""
    if body.count(delimiter) > MAX_PARTS + 1:
        raise invalid_request("The body has too many parts.")
    edges, position = [], body.find(delimiter)
    while position >= 0:
        edges.append(position)
        position = body.find(delimiter, position + len(delimiter))
    for position in edges:
        before = body[max(0, position - 2) : position]
        after = position + len(delimiter)
        mark = b"--" if position == edges[-1] else b"\r\n"
        if before != (b"\r\n" if position else b"") or body[after : after + 2] != mark:
            raise _malformed()
    if len(edges) < 2 or edges[0] != 0:
        raise _malformed()
    return edges


def _name(head: bytes) -> str:
    """The field that a part's head names."""
    lines = head.split(b"\r\n")
    named = [line for line in lines if line.lower().startswith(b"content-disposition:")]
    match = _DISPOSITION.fullmatch(named[0]) if len(named) == 1 else None
    if match is None or not all(map(_HEADER.fullmatch, lines)):
        raise _malformed()
    return (match[1] or match[2] or b"").decode("utf-8", "replace")


def _malformed() -> Exception:
    return invalid_request("The multipart body is malformed.")


def read_fields(body: bytes, content_type: str, wanted: frozenset[str]) -> dict[str, str]:
    """The text of some fields. Raises `Refused` where one of them stands twice or is no text."""
    found: dict[str, str] = {}
    for name, _, start, end in fields(body, content_type):
        if name not in wanted:
            continue
        if name in found:
            raise invalid_request(f"The field '{name}' stands twice.", param=name)
        if end - start > MAX_FIELD:
            raise invalid_request(f"The field '{name}' is too long.", param=name)
        try:
            found[name] = body[start:end].decode()
        except UnicodeDecodeError:
            raise invalid_request(f"The field '{name}' is not valid UTF-8.", param=name) from None
    return found


def replace_field(body: bytes, content_type: str, name: str, value: str) -> bytes:
    """`body` with another value in a field that it has, its head too: it may tell a length."""
    for found, start, _, end in fields(body, content_type):
        if found == name:
            head = f'Content-Disposition: form-data; name="{name}"\r\n\r\n'
            return body[:start] + (head + value).encode() + body[end:]
    return body
