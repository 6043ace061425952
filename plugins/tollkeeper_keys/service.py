"""Virtual keys: making, revoking, finding them. Knows neither HTTP nor hooks."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from tollkeeper import NewKey, Principal, ensure_org
from tollkeeper_keys.models import Key

PREFIX = "tk-"
SECRET_BYTES = 32
SHOWN = 10
"""Characters of a key that are kept to recognise it by."""

UNKNOWN_KEPT = 10_000
LOOKUPS_PER_SECOND = 20.0


def hash_of(secret: str) -> str:
    """What is stored of a key. Its 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def create_key(database: Any, name: str, org: str, rpm: int | None) -> NewKey:  # noqa: ANN401
    """Make a key in the given organization (id or name; made if new). The secret is not stored."""
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    key = NewKey(
        id=f"key_{time.time_ns():016x}{secrets.token_hex(4)}",  # sorts by age
        key=secret,
        prefix=secret[:SHOWN],
        name=name,
        org=ensure_org(database, org),
        rpm=rpm,
        created_at=int(time.time()),
    )
    Key.insert(
        id=key.id,
        hash=hash_of(secret),
        prefix=key.prefix,
        name=name,
        org=key.org,
        rpm=rpm,
        created_at=key.created_at,
    ).execute(database)
    return key


def revoke_key(database: Any, key_id: str) -> bool:  # noqa: ANN401
    """End a key for good. False when there is no such key, or it was revoked before."""
    changed = (
        Key.update(revoked_at=int(time.time()))
        .where((Key.id == key_id) & Key.revoked_at.is_null())
        .execute(database)
    )
    return bool(changed)


def list_keys(database: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """All keys, oldest first, without their secrets, which nobody has."""
    fields = (Key.id, Key.prefix, Key.name, Key.org, Key.rpm, Key.created_at, Key.revoked_at)
    rows = Key.select(*fields).order_by(Key.created_at, Key.id).dicts()
    return [dict(row) for row in rows.execute(database)]


def load_principals(database: Any) -> dict[str, Principal]:  # noqa: ANN401
    """Every valid key, by its hash."""
    rows = Key.select(Key.hash, Key.org, Key.id, Key.name, Key.rpm).where(Key.revoked_at.is_null())
    return {
        hashed: Principal(org=org, key=key_id, name=name, rpm=rpm)
        for hashed, org, key_id, name, rpm in rows.tuples().execute(database)
    }


def find_principal(database: Any, hashed: str) -> Principal | None:  # noqa: ANN401
    """One valid key by its hash, straight from the table."""
    rows = Key.select(Key.org, Key.id, Key.name, Key.rpm).where(
        (Key.hash == hashed) & Key.revoked_at.is_null()
    )
    for org, key_id, name, rpm in rows.tuples().execute(database):
        return Principal(org=org, key=key_id, name=name, rpm=rpm)
    return None


class KeyRing:
    """The valid keys in memory, and the unknown ones that were looked up already.

    Guessing costs a hash and a dictionary look-up: an unknown key is asked for in the database
    once, and no more than `LOOKUPS_PER_SECOND` times a second in all.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._valid: dict[str, Principal] = {}
        self.version = 0
        """Grows with each `replace`: what was read before it may be out of date."""
        self._unknown: OrderedDict[str, None] = OrderedDict()
        self._allowance = LOOKUPS_PER_SECOND
        self._refilled = 0.0

    def replace(self, valid: dict[str, Principal]) -> None:
        """Take over what the table holds now."""
        self._valid = valid
        self.version += 1
        self._unknown.clear()

    def get(self, hashed: str) -> Principal | None:
        """The owner of a key, from memory."""
        return self._valid.get(hashed)

    def may_look_up(self, hashed: str) -> bool:
        """Whether an unknown key is worth a query. Counts it as asked."""
        if hashed in self._unknown:
            return False
        now = self._clock()
        gained = (now - self._refilled) * LOOKUPS_PER_SECOND
        self._allowance, self._refilled = min(LOOKUPS_PER_SECOND, self._allowance + gained), now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        self._unknown[hashed] = None
        if len(self._unknown) > UNKNOWN_KEPT:
            self._unknown.popitem(last=False)
        return True

    def add(self, hashed: str, principal: Principal) -> None:
        """Remember a key that was found in the table."""
        self._unknown.pop(hashed, None)
        self._valid[hashed] = principal
