"""Virtual keys: making, changing, ending and finding them. Knows neither HTTP nor hooks."""

import hashlib
import json
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import trio

from tollkeeper import Clock, NewKey, Org, Principal, ensure_org
from tollkeeper.management import LINE, KeyTerms, ManagedKey
from tollkeeper_keys.models import Key

TOPIC = "keys"
"""What changes of the table are announced under."""

PREFIX = "tk-"
SECRET_BYTES = 32
SHOWN = 10
"""Characters of a key that are kept to recognise it by."""

MAX_NAME = 200
MAX_RPM = 1_000_000
MAX_GRACE = 365 * 86_400
LAST_SECOND = 253_402_300_799
"""Of the year 9999; no calendar goes on."""

UNKNOWN_KEPT = 10_000
LOOKUPS_PER_SECOND = 20.0


def hash_of(secret: str) -> str:
    """What is stored of a key. Its 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def is_name(text: str) -> bool:
    """Whether people can read it: not empty, and nothing that a terminal would act on."""
    return len(text) <= MAX_NAME and re.fullmatch(LINE, text) is not None


def wrong_with(terms: KeyTerms, now: float) -> tuple[str, str] | None:
    """The first of the terms that cannot be, and why; None when all can."""
    if not is_name(terms.name):
        return "name", "A name is 1 to 200 printable characters."
    if terms.rpm is not None and not 1 <= terms.rpm <= MAX_RPM:
        return "rpm", f"Requests per minute are 1 to {MAX_RPM}."
    if not all(map(is_name, terms.models or ())):
        return "models", "The name of a model is 1 to 200 printable characters."
    if terms.expires_at is not None and not now < terms.expires_at <= LAST_SECOND:
        return "expires_at", "A key expires at a time to come, in Unix seconds."
    return None


def create_key(database: Any, org: str, terms: KeyTerms, now: float) -> NewKey:  # noqa: ANN401
    """Make a key in the organization of this id. The secret is not stored."""
    secret = _new_secret()
    key = NewKey(
        id=f"key_{time.time_ns():016x}{secrets.token_hex(4)}",  # sorts by age
        key=secret,
        prefix=secret[:SHOWN],
        name=terms.name,
        org=org,
        rpm=terms.rpm,
        created_at=int(now),
        models=terms.models,
        expires_at=terms.expires_at,
    )
    Key.insert(
        id=key.id,
        hash=hash_of(secret),
        prefix=key.prefix,
        org=org,
        created_at=key.created_at,
        **columns_of(terms),
    ).execute(database)
    return key


def issue_key(database: Any, org: str, terms: KeyTerms, now: float) -> NewKey:  # noqa: ANN401
    """Make a key in the org of this id or name, which is made if it is new."""
    return create_key(database, ensure_org(database, org), terms, now)


def org_is_known(database: Any, org: str) -> bool:  # noqa: ANN401
    """Whether there is an org of this id or name."""
    return Org.select().where((Org.id == org) | (Org.name == org)).count(database) > 0


def change_key(
    database: Any,  # noqa: ANN401
    org: str,
    key_id: str,
    terms: Mapping[str, object],
    now: float,
) -> ManagedKey | None:
    """Put a valid key under these terms, and leave others. None without such a key in the org."""
    changed = Key.update(**{"name": Key.name, **terms}).where(_key(org, key_id) & _valid(now))
    return _read(database, key_id) if changed.execute(database) else None


def rotate_key(
    database: Any,  # noqa: ANN401
    org: str | None,
    key_id: str,
    grace: int,
    now: float,
) -> tuple[ManagedKey, str] | None:
    """Give a valid key a new secret; the one it had ends with the grace, one before that now.

    None when there is no such key. Without an organization it may be of any.
    """
    secret = _new_secret()
    changed = Key.update(
        previous_hash=Key.hash,
        previous_until=int(now) + grace,
        hash=hash_of(secret),
        prefix=secret[:SHOWN],
    ).where(_key(org, key_id) & _valid(now))
    return (_read(database, key_id), secret) if changed.execute(database) else None


def revoke_key(database: Any, org: str | None, key_id: str, now: float) -> ManagedKey | None:  # noqa: ANN401
    """End a key for good, by all its secrets. None when there is none, or it was revoked before.

    Without an organization it may be of any.
    """
    changed = Key.update(revoked_at=int(now)).where(_key(org, key_id) & Key.revoked_at.is_null())
    return _read(database, key_id) if changed.execute(database) else None


def note_uses(database: Any, uses: dict[str, int]) -> None:  # noqa: ANN401
    """Store when keys were used last. A later time that another process stored stays."""
    for key_id, minute in uses.items():
        is_later = Key.last_used_at.is_null() | (Key.last_used_at < minute)
        Key.update(last_used_at=minute).where((Key.id == key_id) & is_later).execute(database)


def list_keys(database: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """All keys, oldest first, without their secrets, which nobody has."""
    rows = Key.select(*_SHOWN, Key.org).order_by(Key.created_at, Key.id).tuples()
    return [
        {**msgspec.structs.asdict(_managed(row)), "org": row[-1]} for row in rows.execute(database)
    ]


def keys_of(database: Any, org: str, now: float) -> list[ManagedKey]:  # noqa: ANN401
    """The valid keys of an organization, oldest first."""
    rows = Key.select(*_SHOWN).where((Key.org == org) & _valid(now))
    rows = rows.order_by(Key.created_at, Key.id).tuples()
    return [_managed(row) for row in rows.execute(database)]


class Holder(NamedTuple):
    """Who holds a secret, and how long it is valid."""

    key: str
    """Id of the virtual key."""
    principal: Principal
    until: int | None
    """Unix seconds from which on it is refused, None for never."""


def load_holders(database: Any, now: float) -> dict[str, Holder]:  # noqa: ANN401
    """The holders of all valid secrets, by their hashes."""
    rows = Key.select(*_HELD).where(_valid(now)).tuples()
    return {
        hashed: holder for row in rows.execute(database) for hashed, holder in _holders_of(row, now)
    }


def find_holder(database: Any, hashed: str, now: float) -> Holder | None:  # noqa: ANN401
    """The holder of one valid secret by its hash, straight from the table."""
    either = (Key.hash == hashed) | (Key.previous_hash == hashed)
    for row in Key.select(*_HELD).where(either & _valid(now)).tuples().execute(database):
        return dict(_holders_of(row, now)).get(hashed)
    return None


_SHOWN: tuple[Any, ...] = (Key.id, Key.prefix, Key.name, Key.rpm, Key.models, Key.created_at)
_SHOWN += (Key.last_used_at, Key.expires_at, Key.revoked_at)
_HELD: tuple[Any, ...] = (Key.hash, Key.previous_hash, Key.previous_until, Key.expires_at)
_HELD += (Key.org, Key.id, Key.name, Key.rpm, Key.models)


def _managed(row: Sequence[Any]) -> ManagedKey:
    models = None if row[4] is None else tuple(json.loads(row[4]))
    values = [*row[:4], models, *row[5:9]]  # in the order of `_SHOWN`, which is its own
    return ManagedKey(*values)


def _holders_of(row: Sequence[Any], now: float) -> Iterator[tuple[str, Holder]]:
    hashed, previous, previous_until, expires_at, org, key_id, name, rpm, models = row
    may_ask = None if models is None else frozenset(json.loads(models))
    principal = Principal(org=org, key=key_id, name=name, rpm=rpm, models=may_ask)
    yield hashed, Holder(key_id, principal, expires_at)
    if previous is not None and now < previous_until:
        yield previous, Holder(key_id, principal, min(previous_until, expires_at or LAST_SECOND))


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def columns_of(terms: KeyTerms) -> dict[str, Any]:
    """The terms, as in the table."""
    models = None if terms.models is None else json.dumps(terms.models)
    return {"name": terms.name, "rpm": terms.rpm, "models": models, "expires_at": terms.expires_at}


def _key(org: str | None, key_id: str) -> Any:  # noqa: ANN401 -- peewee's
    return (Key.id == key_id) if org is None else (Key.org == org) & (Key.id == key_id)


def _valid(now: float) -> Any:  # noqa: ANN401 -- peewee's
    return Key.revoked_at.is_null() & (Key.expires_at.is_null() | (Key.expires_at > now))


def _read(database: Any, key_id: str) -> ManagedKey:  # noqa: ANN401
    (row,) = Key.select(*_SHOWN).where(Key.id == key_id).tuples().execute(database)
    return _managed(row)


class KeyRing:
    """The valid keys in memory, their uses, and the unknown ones that were looked up already.

    Guessing costs a hash and a dictionary look-up: an unknown key is asked for in the database
    once, and no more than `LOOKUPS_PER_SECOND` times a second in all.
    """

    def __init__(self, clock: Clock) -> None:
        self._time, self._monotonic = clock.time, clock.monotonic
        self._valid: dict[str, Holder] = {}
        self.version = 0
        """Grows with each `replace`: what was read before it may be out of date."""
        self._used: dict[str, float] = {}
        self._taken: dict[str, float] = {}
        self._unknown: OrderedDict[str, None] = OrderedDict()
        self._allowance = LOOKUPS_PER_SECOND
        self._refilled = 0.0

    def replace(self, valid: dict[str, Holder]) -> None:
        """Take over what the table holds now."""
        self._valid = valid
        self.version += 1
        self._unknown.clear()

    def use(self, hashed: str, arrived: float) -> Principal | None:
        """The owner of a valid key, from memory. Notes the use, at a time of trio's clock."""
        holder = self._valid.get(hashed)
        if holder is None:
            return None
        key, principal, until = holder
        if until is not None and self._time() >= until:
            return None
        self._used[key] = arrived
        return principal

    def last_use(self, key: str) -> int | None:
        """The minute of a key's last use, in Unix seconds, while it may not be stored yet."""
        at = self._used.get(key, self._taken.get(key))
        return None if at is None else self._minute(at)

    def take_uses(self) -> dict[str, int]:
        """The minute of each key's last use, of those used since this was asked last."""
        self._taken, self._used = self._used, {}
        return {key: self._minute(at) for key, at in self._taken.items()}

    def take_back_uses(self) -> None:
        """What was taken last could not be stored: it will be taken again."""
        self._used = {**self._taken, **self._used}

    def _minute(self, at: float) -> int:
        then = self._time() - (trio.current_time() - at)
        return int(then // 60) * 60

    def may_look_up(self, hashed: str) -> bool:
        """Whether an unknown key is worth a query. Counts it as asked."""
        if hashed in self._unknown:
            return False
        now = self._monotonic()
        gained = (now - self._refilled) * LOOKUPS_PER_SECOND
        self._allowance, self._refilled = min(LOOKUPS_PER_SECOND, self._allowance + gained), now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        self._unknown[hashed] = None
        if len(self._unknown) > UNKNOWN_KEPT:
            self._unknown.popitem(last=False)
        return True

    def add(self, hashed: str, holder: Holder) -> None:
        """Remember a key that was found in the table."""
        self._unknown.pop(hashed, None)
        self._valid[hashed] = holder
