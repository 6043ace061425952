"""Writes that are done once, and noted: idempotency keys and the audit log."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from tollkeeper import Refused, invalid_request
from tollkeeper.management import Done, Write
from tollkeeper_accounts.models import Audit, Claim
from tollkeeper_accounts.service import aged_id

KEPT_SECONDS = 86_400
SECRETS = ("key", "token", "access_token", "refresh_token")
"""Fields of a reply that are not stored with it."""
ORG_PATH = "/api/v1/gateway/org"
AUTH_PATH = "/api/v1/auth/"
ACCEPT_PATH = AUTH_PATH + "accept"
PASSWORD_PATH = AUTH_PATH + "password"

_KEY = re.compile(r"[\x20-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Noted:
    """What somebody did."""

    id: str
    at: int
    user: str
    email: str
    action: str
    target: str


def check_key(key: str) -> None:
    """Raise `Refused` for an idempotency key that is none."""
    if _KEY.fullmatch(key) is None:
        raise invalid_request("An Idempotency-Key is 1 to 200 printable ASCII characters.")


def claim(database: Any, write: Write, now: int) -> Done | None:  # noqa: ANN401
    """Take the idempotency key of a write that is to run: None; or what it came to before.

    Raises `Refused` where the key stands for another request, or for one that still runs.
    """
    ours = (Claim.user == write.caller.user) & (Claim.key == write.idempotency_key)
    Claim.delete().where(ours, Claim.created_at <= now - KEPT_SECONDS).execute(database)
    rows = Claim.select(Claim.digest, Claim.status, Claim.body).where(ours)
    for digest, status, body in rows.tuples().execute(database):
        if digest != _digest(write):
            raise _conflict("This Idempotency-Key was used for another request.")
        if not status:
            raise _conflict("The request with this Idempotency-Key is still running.")
        return Done(status, bytes(body))
    Claim.insert(
        user=write.caller.user,
        key=write.idempotency_key,
        digest=_digest(write),
        status=0,
        body=b"",
        created_at=now,
    ).execute(database)
    return None


def begin(database: Any, write: Write, now: int) -> tuple[Done | None, str]:  # noqa: ANN401
    """What a write came to before, or the id of the note that it is being made.

    The note comes first: whatever dies in between, nothing is changed that is noted nowhere.
    """
    before = claim(database, write, now) if write.idempotency_key else None
    return (before, "") if before is not None else (None, note_write(database, write, now))


def settle(database: Any, write: Write, done: Done, note: str) -> None:  # noqa: ANN401
    """Store what a write came to under its key, and keep its note where it changed something.

    After a 5xx or a 429 the key is free again.
    """
    if write.idempotency_key:
        ours = (Claim.user == write.caller.user) & (Claim.key == write.idempotency_key)
        if done.status >= 500 or done.status == 429:  # it may be another answer soon
            Claim.delete().where(ours).execute(database)
        else:
            stored = {"status": done.status, "body": without_secrets(done.body)}
            Claim.update(stored).where(ours).execute(database)
    if 400 <= done.status < 500:
        Audit.delete().where(Audit.id == note).execute(database)
        return
    target = _object(done.body).get("id")
    named = target if isinstance(target, str) else ""
    # Who makes or joins an organization does so in that one, not in the one they were in before.
    org = named if _path(write) in (ORG_PATH, ACCEPT_PATH) else write.caller.org
    Audit.update(target=named, org=org).where(Audit.id == note).execute(database)


def note_write(database: Any, write: Write, now: int) -> str:  # noqa: ANN401
    """The id of a new note that a write is being made."""
    note = aged_id("aud")
    Audit.insert(
        id=note,
        at=now,
        org=write.caller.org,
        user=write.caller.user,
        email=write.caller.email,
        action=f"{write.method} {_path(write)}",
        target="",
    ).execute(database)
    return note


def audit(database: Any, org: str, limit: int, before: str | None) -> list[Noted]:  # noqa: ANN401
    """What was done in an organization, newest first; only what is older than `before`."""
    columns = (Audit.id, Audit.at, Audit.user, Audit.email, Audit.action, Audit.target)
    rows = Audit.select(*columns).where(Audit.org == org)
    if before is not None:
        rows = rows.where(Audit.id < before)
    newest = rows.order_by(Audit.id.desc()).limit(limit)
    return [Noted(*row) for row in newest.tuples().execute(database)]


def delete_expired(database: Any, now: int) -> None:  # noqa: ANN401
    """Forget idempotency keys that were kept long enough."""
    Claim.delete().where(Claim.created_at <= now - KEPT_SECONDS).execute(database)


def without_secrets(body: bytes) -> bytes:
    """A reply as it may be stored: its secrets are null."""
    document = _object(body)
    if not any(name in document for name in SECRETS):
        return body
    shown = {name: None if name in SECRETS else value for name, value in document.items()}
    return msgspec.json.encode(shown)


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _digest(write: Write) -> str:
    """What was asked. The same in another organization is another request."""
    path = _path(write)
    of_user = path == ORG_PATH or path.startswith(AUTH_PATH)
    org = "" if of_user else write.caller.org
    parts = (org.encode(), write.method.encode(), write.path.encode(), write.body)
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


def _path(write: Write) -> str:
    return write.path.partition("?")[0]


def _conflict(message: str) -> Refused:
    return Refused(409, "conflict", message)
