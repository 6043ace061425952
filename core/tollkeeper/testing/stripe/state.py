"""What the fake holds: objects, events, the money's switches, and the time of all of it."""

import copy
import secrets
from dataclasses import dataclass, field
from typing import Any

from tollkeeper.provider import Clock
from tollkeeper.testing.stripe.refusals import Refusal

API_VERSION = "2026-10-28.endive"
DAY = 86400
MINIMUM = 50
"""The least amount, in cents, that a card can be charged."""

Thing = dict[str, Any]
"""An object as the API shows it."""


@dataclass(slots=True)
class Order:
    """What a checkout session is to bring about once it is paid; the API does not show it."""

    lines: list[tuple[Thing, int]]
    """Prices with their quantities; 0 for a metered one."""
    intent: Thing = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    """For the subscription."""
    invoice: bool = False


class State:
    """Everything that was made so far, and how the world behaves."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.url = ""
        self.objects: dict[str, Thing] = {}
        self.orders: dict[str, Order] = {}
        """Of each checkout session."""
        self.events: list[Thing] = []
        """Every event so far, in the order of creation."""
        self.meter_events: list[Thing] = []
        """Every meter event that was accepted."""
        self.identifiers: dict[str, float] = {}
        """When the identifier of a meter event was last taken."""
        self.declining = ""
        """Why cards are declined when a payment intent is confirmed; empty while they work."""
        self.pending: dict[str, list[Thing]] = {}
        """Lines for the next invoice of each subscription."""
        self.lines: dict[str, list[Thing]] = {}
        """All lines of each invoice, which itself shows the first."""
        self.slow_refunds = False
        """Whether refunds stay pending until they are settled or failed."""

    def now(self) -> int:
        """Unix seconds, as the API tells time."""
        return int(self.clock.time())

    def add(self, kind: str, prefix: str, fields: Thing) -> Thing:
        """Make an object. Its id is random unless the fields have one."""
        thing = {
            "id": f"{prefix}_{secrets.token_hex(12)}",
            "object": kind,
            "created": self.now(),
            "livemode": False,
            **fields,
        }
        self.objects[thing["id"]] = thing
        return thing

    def find(self, kind: str, thing_id: str, param: str = "") -> Thing:
        """The object of an id. Raises `Refusal`: 404, or 400 where `param` named it."""
        thing = self.objects.get(thing_id)
        if thing is None or thing["object"] != kind:
            raise Refusal(
                f"No such {kind}: '{thing_id}'",
                code="resource_missing",
                param=param or "id",
                status=400 if param else 404,
            )
        return thing

    def every(self, kind: str, **fields: object) -> list[Thing]:
        """The objects of a kind whose fields have these values, newest first."""
        return [
            thing
            for thing in reversed(self.objects.values())
            if thing["object"] == kind and all(thing[name] == fields[name] for name in fields)
        ]

    def record(self, kind: str, thing: Thing, before: Thing | None = None) -> Thing:
        """Make an event that shows an object as it is now, and what differs from `before`."""
        data: Thing = {"object": copy.deepcopy(thing)}
        if before is not None:
            changed = {name: was for name, was in before.items() if was != thing[name]}
            data["previous_attributes"] = copy.deepcopy(changed)
        event = {
            "id": f"evt_{secrets.token_hex(12)}",
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now(),
            "data": data,
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        }
        self.events.append(event)
        return event
