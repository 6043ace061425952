"""One request to the API: who asks, whether it goes wrong, whether it was answered before."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from tollkeeper.provider import Clock
from tollkeeper.testing.stripe import (
    checkout,
    customers,
    invoices,
    meters,
    payments,
    prices,
    refunds,
    subscriptions,
)
from tollkeeper.testing.stripe.endpoints import Endpoint
from tollkeeper.testing.stripe.forms import Fields, decode, read
from tollkeeper.testing.stripe.idempotency import Kept, Keys
from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import State, Thing

ENDPOINTS: list[Endpoint] = [
    *customers.ENDPOINTS,
    *prices.ENDPOINTS,
    *checkout.ENDPOINTS,
    *subscriptions.ENDPOINTS,
    *invoices.ENDPOINTS,
    *payments.ENDPOINTS,
    *refunds.ENDPOINTS,
    *meters.ENDPOINTS,
]
FAULTS = ("", "drop_before", "drop_after", "500_before", "500_after", "429")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    """The fields: the body of a POST, the query of a GET."""
    where: Mapping[str, str]
    """What stands in the path for the parts of the endpoint's path that have a name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply; with status 0 there is none, and the connection is closed."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Api(State):
    """The state behind the API, and the faults it has."""

    def __init__(self, clock: Clock, secret_key: str) -> None:
        super().__init__(clock)
        self.secret_key = secret_key
        self.requests: list[tuple[str, str]] = []
        """Method and path of each request that arrived."""
        self.fault: Callable[[str, str], str] = lambda _method, _path: ""
        """What goes wrong with a request, by its method and path: one of `FAULTS`."""
        self.slowness: Callable[[str, str], float] = lambda _method, _path: 0
        """How many seconds a request takes to be answered once it is done."""
        self._keys = Keys(clock)

    async def answer(self, endpoint: Endpoint, asked: Asked) -> Answer:
        """Answer one request."""
        fault = self.fault(asked.method, asked.path)
        if fault not in FAULTS:
            raise ValueError(f"there is no fault {fault!r}")
        if fault == "drop_before":
            return Answer(0)
        try:
            if fault == "429":
                raise Refusal("Too many requests.", code="rate_limit", status=429)
            self._authorize(asked)
            reply = await self._answer_once(endpoint, asked, fault)
        except Refusal as refusal:
            reply = _refused(refusal)
        return Answer(0) if fault == "drop_after" else reply

    def _authorize(self, asked: Asked) -> None:
        given = asked.headers.get("authorization", "")
        if not given:
            raise Refusal("You did not provide an API key.", status=401)
        if given != f"Bearer {self.secret_key}":
            raise Refusal("Invalid API key provided.", status=401)

    async def _answer_once(self, endpoint: Endpoint, asked: Asked, fault: str) -> Answer:
        """Do what is asked, unless its key says that this was answered before."""
        given = decode(asked.raw)
        key = asked.headers.get("idempotency-key", "") if asked.method == "POST" else ""
        if key and (kept := self._keys.begin(key, (asked.path, given))):
            return Answer(kept.status, kept.body, {"idempotent-replayed": "true"})
        reply: Answer | None = None
        try:
            reply = self._perform(endpoint, given, asked.where, fault)
            await trio.sleep(self.slowness(asked.method, asked.path))
        finally:  # a client that does not wait for the reply finds it under its key
            if key:
                self._keys.end(key, Kept(reply.status, reply.body) if reply else None)
        return reply

    def _perform(
        self, endpoint: Endpoint, given: Fields, where: Mapping[str, str], fault: str
    ) -> Answer:
        """The reply to keep. Raises `Malformed` where nothing was begun."""
        if fault == "500_before":
            return _BROKEN
        fields = read({**endpoint.takes, "expand": [str]}, given)
        expand = fields.pop("expand", [])
        try:
            found = expanded(self, endpoint.answer(self, {**fields, **where}), expand)
        except Refusal as refusal:
            if not refusal.kept:
                raise
            reply = _refused(refusal)
        else:
            reply = Answer(200, json.dumps(found, indent=2).encode())
        return _BROKEN if fault == "500_after" else reply


def expanded(state: State, thing: Thing, paths: list[str]) -> Thing:
    """An object with others in place of their ids, at paths like `data.customer`."""
    if not paths:
        return thing
    whole = copy.deepcopy(thing)
    for path in paths:
        _expand(state, whole, path.split("."), path)
    return whole


def _expand(state: State, node: Thing | list[Thing], steps: list[str], path: str) -> None:
    if isinstance(node, list):
        for one in node:
            _expand(state, one, steps, path)
        return
    if not isinstance(node, dict) or steps[0] not in node:
        raise Refusal(f"This property cannot be expanded ({path}).", param="expand")
    value = node[steps[0]]
    if isinstance(value, str):
        if value not in state.objects:
            raise Refusal(f"This property cannot be expanded ({path}).", param="expand")
        value = node[steps[0]] = copy.deepcopy(state.objects[value])
    if value is not None and steps[1:]:
        _expand(state, value, steps[1:], path)


def _refused(refusal: Refusal) -> Answer:
    return Answer(refusal.status, json.dumps(refusal.document(), indent=2).encode())


_BROKEN = _refused(Refusal("An unknown error occurred.", status=500, extra={"type": "api_error"}))
