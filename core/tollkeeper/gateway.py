"""What a plugin is given to build itself from: places to register at, and the shared services."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import click
import trio
from pydantic import BaseModel

from tollkeeper.config import Config
from tollkeeper.errors import PluginError
from tollkeeper.exchange import Attempt, Exchange, Operation, Reply
from tollkeeper.settings import ModelSettings, ProviderSettings
from tollkeeper.storage import Database

if TYPE_CHECKING:
    import httpx

ServiceT = TypeVar("ServiceT")


class Clock:
    """Time as the gateway tells it. Durations are monotonic, dates are wall time."""

    monotonic = staticmethod(trio.current_time)
    """Seconds that only grow; trio's clock, so that tests can make it jump."""

    def time(self) -> float:
        """Unix seconds."""
        return time.time()


@dataclass(slots=True)
class UpstreamRequest:
    """What a provider sends. Headers and path may hold nothing a client chose as a host or URL."""

    method: str
    path: str
    """Appended to the provider's `base_url`."""
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    fixed_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Those that are the same for every request: encoded once."""


class Upstream(Protocol):
    """The connections to one configured provider, with its deadlines."""

    async def send(self, request: UpstreamRequest, attempt: Attempt) -> Reply:
        """Send and wait for the head of the reply. Raises `UpstreamError`.

        Sets `attempt.sent` before the first byte goes out.
        """


class Provider(Protocol):
    """One `[providers.*]` table, as the plugin of its kind speaks to it.

    May also have `speaks(dialect: str) -> bool`: whether it takes requests of the dialect of this
    name as they are. One without it is given chat only, and the core translates.
    """

    async def send(self, exchange: Exchange, attempt: Attempt) -> Reply:
        """Send `attempt.body` as `attempt.operation` wants it, to `attempt.deployment`.

        The reply is in the same dialect. Error statuses are returned, not raised, with the body
        that the upstream sent: the core maps it.
        """


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What a provider is made from: the name of its table, the table, and its connections."""

    name: str
    settings: ProviderSettings
    upstream: Upstream
    client: Callable[[], httpx.AsyncClient]
    """Makes an httpx client for adapters that want one; same connections and deadlines."""


ProviderFactory = Callable[[ProviderContext], Provider]

OPEN_POLICIES = frozenset({"open", "signed"})
ROLE_POLICIES = frozenset({"owner", "admin", "member", "billing"})


@dataclass(frozen=True, slots=True)
class Route:
    """A management page or endpoint, served by Quart beside the operations."""

    path: str
    methods: tuple[str, ...]
    handler: Callable[..., Awaitable[Any]]
    policy: frozenset[str]
    body: type[BaseModel] | None
    reply: type[BaseModel] | None
    errors: tuple[str, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """A virtual key just made. `key` is the secret, shown this once."""

    id: str
    key: str
    prefix: str
    name: str
    org: str
    rpm: int | None
    created_at: int


@runtime_checkable
class KeyIssuer(Protocol):
    """Makes virtual keys. Offered by whoever authenticates them."""

    async def create_key(self, name: str, org: str, rpm: int | None = None) -> NewKey:
        """Make a key that is valid once this returns."""


@runtime_checkable
class Authorizer(Protocol):
    """Decides who may use a management route. Offered by whoever knows users and roles."""

    async def authorize(self, headers: Mapping[str, str], policy: frozenset[str]) -> None:
        """Return for a caller with one of the roles; raise `Refused` otherwise."""


@dataclass(slots=True)
class Registry:
    """What all plugins of one set registered. Frozen in effect once the set is built."""

    config: Config
    database: Database
    clock: Clock
    providers: dict[str, ProviderFactory] = field(default_factory=dict)
    presets: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Of each provider kind: the services it knows, and where they are."""
    operations: dict[tuple[str, str], Operation] = field(default_factory=dict)
    routes: dict[tuple[str, str], Route] = field(default_factory=dict)
    commands: dict[str, click.Command] = field(default_factory=dict)
    models: dict[str, ModelSettings] = field(default_factory=dict)
    services: dict[type[Any], object] = field(default_factory=dict)
    needs: list[tuple[str, type[Any]]] = field(default_factory=list)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    """Who added what, by kind and name."""

    def claim(self, owner: str, kind: str, name: str) -> None:
        """Take a name for a plugin; a name that is taken is an error that tells by whom."""
        other = self.owners.get((kind, name))
        if other == owner:
            raise PluginError(f"plugin {owner} adds {kind} {name} twice")
        if other is not None:
            raise PluginError(f"plugins {other} and {owner} both add {kind} {name}; turn one off")
        self.owners[kind, name] = owner


class Gateway:
    """The gateway as one plugin sees it. Valid during `register`, and to keep afterwards."""

    def __init__(self, registry: Registry, plugin: str) -> None:
        self._registry = registry
        self._plugin = plugin

    @property
    def database(self) -> Database:
        """Run-time data. Not to be queried while registering."""
        return self._registry.database

    @property
    def clock(self) -> Clock:
        """The one clock to ask."""
        return self._registry.clock

    def add_provider(
        self, kind: str, factory: ProviderFactory, presets: Mapping[str, str] | None = None
    ) -> None:
        """Speak to every `[providers.*]` table of this `kind`.

        `presets` are the services that `preset` may name, each with its `base_url` where it has one
        and the same for everybody.
        """
        self._registry.claim(self._plugin, "provider kind", kind)
        self._registry.providers[kind] = factory
        self._registry.presets[kind] = {"": "", **(presets or {})}

    def add_operation(self, operation: Operation) -> None:
        """Offer clients another call, run through every stage."""
        key = (operation.method, operation.path)
        pattern = operation.path.partition("{")[0] + "{}" * ("{" in operation.path)
        self._registry.claim(self._plugin, "operation", f"{operation.method} {pattern}")
        self._registry.operations[key] = operation

    def add_route(
        self,
        path: str,
        handler: Callable[..., Awaitable[Any]],
        *,
        policy: str | frozenset[str],
        methods: Sequence[str] = ("GET",),
        body: type[BaseModel] | None = None,
        reply: type[BaseModel] | None = None,
        errors: Sequence[str] = (),
        summary: str = "",
    ) -> None:
        """Serve a management page or endpoint at `path` (Quart's syntax).

        `policy` is "open", "signed" (the handler proves its caller on the raw body) or the roles
        that may call it. `handler` gets the path's values, and `body` as a checked model where one
        is declared; it returns a model, a dict or a Quart response.
        """
        policies = frozenset({policy}) if isinstance(policy, str) else policy
        one_way = len(policies) == 1 or policies <= ROLE_POLICIES
        if not policies or not one_way or not policies <= (OPEN_POLICIES | ROLE_POLICIES):
            known = ", ".join(sorted(OPEN_POLICIES | ROLE_POLICIES))
            raise PluginError(f"plugin {self._plugin}: route {path} needs a policy of: {known}")
        route = Route(path, tuple(methods), handler, policies, body, reply, tuple(errors), summary)
        for method in route.methods:
            self._registry.claim(self._plugin, "route", f"{method} {path}")
            self._registry.routes[method, path] = route
        if not policies & OPEN_POLICIES:
            self.need(Authorizer)

    def add_command(self, command: click.Command) -> None:
        """Add a command line command; `--config` is given to it by the core."""
        self._registry.claim(self._plugin, "command", str(command.name))
        self._registry.commands[str(command.name)] = command

    def add_models(self, models: Mapping[str, ModelSettings]) -> None:
        """Serve further models, beside those of the TOML, which win over them."""
        for name, model in models.items():
            self._registry.claim(self._plugin, "model", name)
            self._registry.models.setdefault(name, model)

    def offer(self, protocol: type[ServiceT], service: ServiceT) -> None:
        """Offer a service that the core declares as a `Protocol` to other plugins."""
        if not isinstance(service, protocol):
            raise PluginError(f"plugin {self._plugin} offers no {protocol.__name__}, as it says")
        self._registry.claim(self._plugin, "service", protocol.__name__)
        self._registry.services[protocol] = service

    def need(self, protocol: type[Any]) -> None:
        """Stop the start with one clear line unless an enabled plugin offers `protocol`."""
        self._registry.needs.append((self._plugin, protocol))

    def find(self, protocol: type[ServiceT]) -> ServiceT | None:
        """The service offered for `protocol`, None without one. Complete after `register`."""
        service = self._registry.services.get(protocol)
        return service if isinstance(service, protocol) else None
