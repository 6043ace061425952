"""What a plugin is given to build itself from: places to register at, and the shared services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import click
from pydantic import BaseModel

from tollkeeper.config import Config
from tollkeeper.errors import PluginError
from tollkeeper.exchange import Operation
from tollkeeper.management import OPEN_POLICIES, POLICIES, ROLES, Authorizer
from tollkeeper.notice import Notice
from tollkeeper.provider import Clock, ProviderFactory
from tollkeeper.settings import ModelSettings, ProviderSettings
from tollkeeper.storage import Database

ServiceT = TypeVar("ServiceT")
StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True)
class Route:
    """A management page or endpoint, served by Quart beside the operations."""

    path: str
    methods: tuple[str, ...]
    handler: Callable[..., Awaitable[Any]]
    policy: frozenset[str]
    plugin: str
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    reply: type[BaseModel] | None = None
    errors: tuple[str, ...] = ()
    summary: str = ""


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
    models: tuple[str, ...] | None = None
    """The models it may ask for, None for all."""
    expires_at: int | None = None
    """Unix seconds from which on it is refused, None for never."""


@runtime_checkable
class KeyIssuer(Protocol):
    """Makes virtual keys. Offered by whoever authenticates them."""

    async def create_key(self, name: str, org: str, rpm: int | None = None) -> NewKey:
        """Make a key that is valid once this returns."""


@dataclass(slots=True)
class Bell:
    """Tells notices to the set of plugins that is in force."""

    ring: Callable[[Notice], None] = lambda notice: None


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
    needs: list[tuple[str, type[Any], str]] = field(default_factory=list)
    """Who needs which service, and which plugin usually offers it."""
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    """Who added what, by kind and name."""
    lasting: dict[str, object] = field(default_factory=dict)
    """By plugin: what outlives its instances. The same for every set of the process."""
    promises: list[str] = field(default_factory=list)
    """What `tollkeeper check` says of the configuration."""
    bell: Bell = field(default_factory=Bell)
    healthy: dict[str, bool] = field(default_factory=dict)
    """Of each provider that was tried: whether it could be used last."""

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

    @property
    def healthy(self) -> Mapping[str, bool]:
        """Of each provider that was tried since the start: whether it could be used last."""
        return self._registry.healthy

    def keep(self, make: Callable[[], StateT]) -> StateT:
        """State that outlives a change of the plugin's settings: made once per process."""
        lasting = self._registry.lasting
        if self._plugin not in lasting:
            lasting[self._plugin] = make()
        return cast("StateT", lasting[self._plugin])

    def promise(self, line: str) -> None:
        """Have `tollkeeper check` say this of the configuration."""
        self._registry.promises.append(line)

    def notify(self, notice: Notice) -> None:
        """Call every plugin's `notice`. Raises nothing. Not while registering."""
        self._registry.bell.ring(notice)

    @property
    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Every route of this set, by method and path. Complete after `register`."""
        return self._registry.routes

    @property
    def operations(self) -> Mapping[tuple[str, str], Operation]:
        """Every operation of this set, by method and path. Complete after `register`."""
        return self._registry.operations

    @property
    def models(self) -> Mapping[str, ModelSettings]:
        """What clients may ask for. Complete after `register`."""
        return self._registry.models

    @property
    def providers(self) -> Mapping[str, ProviderSettings]:
        """The places that requests may be sent to."""
        return self._registry.config.providers

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
        policy: str | frozenset[str] = "",
        methods: Sequence[str] = ("GET",),
        body: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        reply: type[BaseModel] | None = None,
        errors: Sequence[str] = (),
        summary: str = "",
    ) -> None:
        """Serve a management page or endpoint at `path` (Quart's syntax).

        `policy`, which every route must have, is "open", "signed" (the handler proves its caller on
        the raw body), "user" (whoever is logged in) or the roles that may call it. `handler` gets
        the path's values, `caller` unless it is open or signed, and `body` and `query` as checked
        models where they are declared; it returns a model, a dict or a Quart response. `errors` are
        codes that it may answer beside those of every route.
        """
        policies = frozenset({policy}) if isinstance(policy, str) else policy
        one_way = len(policies) == 1 or policies <= set(ROLES)
        if not policies or not one_way or not policies <= POLICIES:
            known = ", ".join(sorted(POLICIES))
            raise PluginError(f"plugin {self._plugin}: route {path} needs a policy of: {known}")
        told = (body, query, reply, tuple(errors), summary)
        route = Route(path, tuple(methods), handler, policies, self._plugin, *told)
        for method in route.methods:
            self._registry.claim(self._plugin, "route", f"{method} {path}")
            self._registry.routes[method, path] = route
        if not policies & OPEN_POLICIES:
            self.need(Authorizer, "accounts")

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

    def need(self, protocol: type[Any], usual: str) -> None:
        """Stop the start with one clear line unless an enabled plugin offers `protocol`.

        The line names the plugin that usually does.
        """
        if (need := (self._plugin, protocol, usual)) not in self._registry.needs:
            self._registry.needs.append(need)

    def find(self, protocol: type[ServiceT]) -> ServiceT | None:
        """The service offered for `protocol`, None without one. Complete after `register`."""
        service = self._registry.services.get(protocol)
        return service if isinstance(service, protocol) else None
