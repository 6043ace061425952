"""The chain of hashes over the ledger's rows: each link covers the one before it and one row."""

import hashlib
from collections.abc import Sequence

import msgspec

GENESIS = bytes(32)
"""What the first chain of a ledger hangs on."""

_encode = msgspec.json.encode


def link(before: bytes, row: Sequence[int | str]) -> bytes:
    """The link of a row: its columns in the order of the table, without the hash itself."""
    return hashlib.sha256(before + _encode(row)).digest()
