"""The management side as plugins speak of it: who calls a route, and the keys they manage."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from tollkeeper.settings import Table

OPEN_POLICIES = frozenset({"open", "signed"})
"""Whoever calls; and callers that the route proves itself, on the raw body."""
ROLES = ("owner", "admin", "member", "billing")
"""What a user may be in an organization."""
_UNSEEN = r"\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
"""What cannot be seen, or changes how what follows it is seen."""
LINE = rf"^[^\s{_UNSEEN}]([^{_UNSEEN}]*[^\s{_UNSEEN}])?$"
"""A name that people can read, as a pattern."""
USER_POLICY = "user"
"""Whoever is logged in, whatever they are in an organization, and in none too."""
POLICIES = OPEN_POLICIES | {*ROLES, USER_POLICY}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a management route: a user, in one of the organizations they belong to."""

    user: str
    """Id of the user."""
    email: str
    token: str
    """Id of the access token."""
    org: str = ""
    """Id of the organization that is meant; empty for a user of none."""
    role: str = ""
    """What the user is there."""


@dataclass(frozen=True, slots=True)
class Write:
    """A request that may change something."""

    caller: Caller
    method: str
    path: str
    """As requested, so that what stands in it is part of what was asked."""
    body: bytes
    idempotency_key: str
    """Empty without one."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a write came to."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside those of every reply; not kept for a request that is made again."""


ItemT = TypeVar("ItemT")


class Listed(Table, Generic[ItemT]):
    """A list, as every management route answers one."""

    object: Literal["list"] = "list"
    data: list[ItemT]


@runtime_checkable
class Authorizer(Protocol):
    """Decides who may use a management route. Offered by whoever knows users and roles."""

    async def authorize(self, headers: Mapping[str, str], policy: frozenset[str]) -> Caller:
        """The caller, where they have one of the roles; raises `Refused` 401 or 403 otherwise."""

    async def write(self, write: Write, act: Callable[[], Awaitable[Done]]) -> Done:
        """Run a write once: `act`, or what it came to before under the same idempotency key.

        Notes what was done and by whom. Raises `Refused` where the key stood for another request,
        or for one that is still running.
        """


class ManagedKey(msgspec.Struct, frozen=True):
    """A virtual key as its organization sees it."""

    id: str
    prefix: str
    """The beginning of its secret, to recognise it by."""
    name: str
    rpm: int | None
    """Requests per minute, None where the general limit holds."""
    models: tuple[str, ...] | None
    """The models it may ask for, None for all."""
    created_at: int
    """Unix seconds, as all that follow."""
    last_used_at: int | None
    """To the minute."""
    expires_at: int | None
    revoked_at: int | None = None


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is to be, or is to become."""

    name: str
    rpm: int | None = None
    models: tuple[str, ...] | None = None
    expires_at: int | None = None


TERMS = frozenset(KeyTerms.__struct_fields__)
"""What may be said of a key."""


@runtime_checkable
class KeyStore(Protocol):
    """Virtual keys of organizations. Offered by whoever authenticates them.

    What is changed here is in force, on running connections too, once a method returns. A key of
    another organization is as absent as one that never was.
    """

    async def keys_of(self, org: str) -> Sequence[ManagedKey]:
        """All keys that are neither revoked nor expired, oldest first."""

    async def add_key(self, org: str, terms: KeyTerms) -> tuple[ManagedKey, str]:
        """A new key, and its secret, which nobody can read again."""

    async def change_key(
        self, org: str, key: str, terms: KeyTerms, fields: Collection[str] = TERMS
    ) -> ManagedKey | None:
        """The key under new terms, as far as `fields` name them; None where there is none."""

    async def rotate_key(
        self, org: str, key: str, grace_seconds: int
    ) -> tuple[ManagedKey, str] | None:
        """A new secret; the old one stays valid for the grace. None where there is no such key."""

    async def revoke_key(self, org: str, key: str) -> ManagedKey | None:
        """End a key for good, by all its secrets; None where there is none."""


@runtime_checkable
class RateGrants(Protocol):
    """What organizations may do in a minute. Offered by whoever sells it. It never waits."""

    def rpm_of(self, org: str) -> int | None:
        """Requests per minute of all keys of an organization together; None for no bound."""


@runtime_checkable
class RateLimits(Protocol):
    """Keeps callers to their rates, those of `RateGrants` too. Offered by whoever does."""


RouteHandler = Callable[..., Awaitable[Any]]
