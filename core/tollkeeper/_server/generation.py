"""A generation: one frozen set of plugins and settings, and the exchanges that run in it."""

import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from tollkeeper._server.core_pages import Health
from tollkeeper._server.pipeline import Pipeline
from tollkeeper._server.pool import Pool
from tollkeeper.config import Config, EnabledPlugin
from tollkeeper.dialect import Dialect
from tollkeeper.errors import Problem
from tollkeeper.exchange import Deployment, Operation
from tollkeeper.gateway import Bell, Registry
from tollkeeper.provider import Clock
from tollkeeper.storage import Database

if TYPE_CHECKING:
    from quart_trio import QuartTrio


@dataclass(slots=True)
class Instance:
    """A plugin object. Lives on through generations for as long as its settings stay equal."""

    enabled: EnabledPlugin
    plugin: Any
    users: int = 0
    """Generations that are not over yet and use it."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Around its `run`."""
    running: bool = False

    @property
    def name(self) -> str:
        """Its name in the TOML."""
        return self.enabled.plugin.name


@dataclass(frozen=True, slots=True)
class Shared:
    """What all generations of a gateway have in common."""

    database: Database
    clock: Clock = field(default_factory=Clock)
    pool: Pool = field(default_factory=Pool)
    health: Health = field(default_factory=Health)
    lasting: dict[str, object] = field(default_factory=dict)
    """What plugins keep beyond their instances, by their names."""
    bell: Bell = field(default_factory=Bell)
    healthy: dict[str, bool] = field(default_factory=dict)


class Generation:
    """What a request runs through. Counts the requests that began in it."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        pipeline: Pipeline,
        instances: Iterable[Instance],
        serves: Callable[[str, Dialect], bool],
    ) -> None:
        self.config = config
        self.registry = registry
        self.pipeline = pipeline
        self.instances = tuple(instances)
        self.app: QuartTrio | None = None
        """Its pages, once they are built."""
        self.make_app: Callable[[], QuartTrio] | None = None
        self.warnings: list[Problem] = []
        self.live = 0
        self.on_empty: Callable[[], None] | None = None
        """Set once it is superseded: called when its last request is over."""
        self._operations = dict(registry.operations)
        self._open_ended = [o for o in self._operations.values() if o.path.endswith("}")]
        self._serves = serves
        self._deployments = {name: deployments_of(name, registry) for name in registry.models}
        self._serving: dict[tuple[str, str], tuple[Deployment, ...]] = {}
        """The deployments of a model that can serve a dialect, by both names."""

    async def pages(self) -> "QuartTrio":
        """The app of its pages. Building the first one loads Quart, which calls do not wait for."""
        if self.app is None and "quart_trio.app" not in sys.modules:
            await trio.to_thread.run_sync(importlib.import_module, "quart_trio.app")
        if self.app is None:
            if self.make_app is None:
                raise RuntimeError("a generation serves before it is complete")
            self.app = self.make_app()
        return self.app

    def enter(self) -> None:
        """A request begins in this generation."""
        self.live += 1

    def leave(self) -> None:
        """It is over."""
        self.live -= 1
        if self.live == 0 and self.on_empty is not None:
            self.on_empty()

    def find_operation(self, method: str, path: str) -> tuple[Operation, str] | None:
        """The operation for a request, and what its `{name}` matched."""
        if (operation := self._operations.get((method, path))) is not None:
            return operation, ""
        for operation in self._open_ended:
            prefix = operation.path.partition("{")[0]
            if operation.method == method and path.startswith(prefix) and len(path) > len(prefix):
                return operation, path[len(prefix) :]
        return None

    def methods_of(self, path: str) -> list[str]:
        """The methods under which `path` is an operation."""
        known = dict.fromkeys(method for method, _ in self._operations)
        return [method for method in known if self.find_operation(method, path)]

    def deployments_of(self, model: str, dialect: Dialect) -> tuple[Deployment, ...] | None:
        """The deployments of a model that can serve a dialect, None for an unknown model."""
        key = (model, dialect.name)
        if (serving := self._serving.get(key)) is None and model in self._deployments:
            every = self._deployments[model]
            serving = tuple([d for d in every if self._serves(d.provider, dialect)])
            self._serving[key] = serving
        return serving

    def secret_of(self, provider: str) -> str:
        """Our credential at a provider, empty without one."""
        settings = self.config.providers.get(provider)
        return settings.credential.reveal() if settings and settings.credential else ""


def deployments_of(name: str, registry: Registry) -> tuple[Deployment, ...]:
    """What can serve a model, as the TOML has it."""
    model, providers = registry.models[name], registry.config.providers
    return tuple(
        Deployment(
            alias=name,
            provider=wanted.provider,
            kind=(provider := providers[wanted.provider]).kind,
            model=wanted.model,
            weight=wanted.weight,
            price=model.price,
            max_output=model.max_output,
            base_url=provider.base_url
            or registry.presets.get(provider.kind, {}).get(provider.preset, ""),
            drain_usd=provider.drain_usd,
        )
        for wanted in model.deployments
    )
