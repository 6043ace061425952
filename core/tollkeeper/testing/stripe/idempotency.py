"""What was already answered: replies by the key of their request, for a day."""

from dataclasses import dataclass

from tollkeeper.provider import Clock
from tollkeeper.testing.stripe.refusals import Malformed
from tollkeeper.testing.stripe.state import DAY

MAX_KEY = 255


@dataclass(frozen=True, slots=True)
class Kept:
    """A reply that is given again."""

    status: int
    body: bytes


@dataclass(slots=True)
class _Entry:
    asked: object
    since: float
    reply: Kept | None = None


class Keys:
    """The idempotency keys of a day."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def begin(self, key: str, asked: object) -> Kept | None:
        """The reply to give again, or None for a key that is new and now in use.

        Raises `Malformed` for a key that is in use or was used with something else.
        """
        if len(key) > MAX_KEY:
            raise Malformed(f"An idempotency key has up to {MAX_KEY} characters.")
        now = self._clock.time()
        entry = self._entries.get(key)
        if entry is None or (entry.reply is not None and now - entry.since >= DAY):
            self._entries[key] = _Entry(asked, now)
            return None
        told = {"type": "idempotency_error"}
        if entry.asked != asked:
            raise Malformed(
                "Keys for idempotent requests can only be used with the endpoint and the "
                f"parameters they were first used with: '{key}' was used with others.",
                extra=told,
            )
        if entry.reply is None:
            raise Malformed(
                f"Another request with the key '{key}' is in progress.",
                code="idempotency_key_in_use",
                status=409,
                extra=told,
            )
        return entry.reply

    def end(self, key: str, reply: Kept | None) -> None:
        """Keep the reply of a key that was begun; without one the key is free again."""
        if reply is None:
            del self._entries[key]
        else:
            self._entries[key].reply = reply
