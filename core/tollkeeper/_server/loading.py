"""From names in the TOML to a generation. Synchronous; makes no query and opens no connection."""

import functools
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

from tollkeeper._server.chat import CHAT
from tollkeeper._server.generation import Generation, Instance, Shared, deployments_of
from tollkeeper._server.models import model_operations
from tollkeeper._server.pipeline import Pipeline, Step, collect_steps
from tollkeeper._server.pool import Pool
from tollkeeper._server.sending import Sender
from tollkeeper._server.upstream import PooledUpstream
from tollkeeper.config import Config, EnabledPlugin
from tollkeeper.errors import ConfigError, PluginError, Problem, by_line
from tollkeeper.explain import nearest
from tollkeeper.gateway import Gateway, Registry
from tollkeeper.hookspecs import empty_collection
from tollkeeper.ledger import Ledger, PriceSource
from tollkeeper.provider import Provider, ProviderContext
from tollkeeper.settings import PriceSettings, split_bind
from tollkeeper.storage import check_storage_url

if TYPE_CHECKING:
    import httpx


def build_generation(config: Config, shared: Shared, old: Iterable[Instance] = ()) -> Generation:
    """Build a plugin set, taking over instances whose settings did not change.

    Raises `ConfigError` with every problem that shows only now: unknown provider kinds, plugins
    that break their contract, names taken twice, services nobody offers.
    """
    registry, steps, instances = register_plugins(config, shared, old)
    problems = _check_needs(config, registry)
    providers = _make_providers(config, registry, shared.pool, problems)
    _check_server(config, steps, problems)
    if problems:
        raise ConfigError(problems)
    sender = Sender(providers, registry.clock, _patience(config, registry), registry.healthy)
    pipeline = sender.pipeline = _pipeline(config, steps, sender)
    generation = Generation(config, registry, pipeline, instances, sender.serves)
    generation.warnings = _warnings(config, steps)
    return generation


def find_all_problems(error: ConfigError, shared: Shared) -> ConfigError:
    """The error with what building would have found too, had reading gone well."""
    config = error.config
    if not isinstance(config, Config):
        return error
    try:
        registry, steps, _ = register_plugins(config, shared)
        problems = _check_needs(config, registry)
        _make_providers(config, registry, shared.pool, problems)
        _check_server(config, steps, problems)
    except ConfigError as further:
        problems = further.problems
    return ConfigError(sorted({*error.problems, *problems}, key=by_line))


def _check_server(
    config: Config, steps: Mapping[str, tuple[Step, ...]], problems: list[Problem]
) -> None:
    source = config.source
    if (wrong := check_storage_url(config.storage.url)) is not None:
        problems.append(source.problem(("storage", "url"), wrong))
    authenticated = steps["authenticate"] or config.broken
    if not authenticated and not config.server.open and not is_loopback(config.server.bind):
        problems.append(
            source.problem(
                ("server", "bind"),
                f'server.bind = "{config.server.bind}": no plugin that authenticates is on, so '
                "everyone who can reach this address could use it; enable [plugins.keys], "
                "bind to 127.0.0.1, or set server.open = true",
            )
        )


def register_plugins(
    config: Config, shared: Shared, old: Iterable[Instance] = ()
) -> tuple[Registry, Mapping[str, tuple[Step, ...]], list[Instance]]:
    """The part of building that the command line needs too: who registers what."""
    instances = [_instance(enabled, old, config) for enabled in config.plugins]
    manager = empty_collection()
    policies = {instance.name: instance.enabled.plugin.policy for instance in instances}
    try:
        for instance in reversed(instances):  # pluggy calls last what registered first
            _register(manager, instance)
        steps = collect_steps(manager, policies)
        registry = Registry(
            config,
            shared.database,
            shared.clock,
            lasting=shared.lasting,
            bell=shared.bell,
            healthy=shared.healthy,
        )
        core = Gateway(registry, "core")
        registry.models.update(config.models)
        models = model_operations(registry.models, config.providers, _prices(registry))
        for operation in (CHAT, *models):
            core.add_operation(operation)
        shared.health.register(core)
        for step in steps["register"]:
            step.call(Gateway(registry, step.plugin))
    except PluginError as error:
        raise ConfigError([Problem(config.source.name, str(error))]) from error
    return registry, steps, instances


def _prices(registry: Registry) -> Callable[[str], PriceSettings | None]:
    """Finds the price of a model by its first deployment, once."""

    @functools.cache
    def price_of(name: str) -> PriceSettings | None:
        source = registry.services.get(PriceSource)
        if not isinstance(source, PriceSource):
            return None
        return source.price_of(deployments_of(name, registry)[0])

    return price_of


def _instance(enabled: EnabledPlugin, old: Iterable[Instance], config: Config) -> Instance:
    for instance in old:
        if instance.enabled == enabled:
            return instance
    try:
        return Instance(enabled, enabled.plugin.cls(enabled.settings))
    except Exception as error:
        where = ("plugins", enabled.plugin.name)
        message = f"plugin {enabled.plugin.name} cannot be built: {type(error).__name__}: {error}"
        raise ConfigError([config.source.problem(where, message)]) from error


def _register(manager: pluggy.PluginManager, instance: Instance) -> None:
    try:
        manager.register(instance.plugin, instance.name)
    except (pluggy.PluginValidationError, ValueError) as error:
        text = " ".join(str(error).split())
        raise PluginError(f"plugin {instance.name}: {text}") from error


def _pipeline(config: Config, steps: Mapping[str, tuple[Step, ...]], sender: Sender) -> Pipeline:
    try:
        return Pipeline(steps, sender.send)
    except PluginError as error:
        raise ConfigError([Problem(config.source.name, str(error))]) from error


def _check_needs(config: Config, registry: Registry) -> list[Problem]:
    return [
        config.source.problem(
            ("plugins", plugin),
            f"plugin {plugin} needs a plugin that offers {protocol.__name__}, and none is enabled;"
            f" turn on [plugins.{usual}]",
        )
        for plugin, protocol, usual in registry.needs
        if protocol not in registry.services
    ]


def _make_providers(
    config: Config, registry: Registry, pool: Pool, problems: list[Problem]
) -> dict[str, Provider]:
    providers: dict[str, Provider] = {}
    for name, settings in config.providers.items():
        factory = registry.providers.get(settings.kind)
        path = ("providers", name, "kind")
        if factory is None:
            if settings.kind not in config.broken:
                problems.append(config.source.problem(path, _unspoken(settings.kind, registry)))
            continue
        presets = registry.presets[settings.kind]
        if (base_url := presets.get(settings.preset)) is None:
            hint = nearest(settings.preset, presets)
            message = f'kind "{settings.kind}" has no preset "{settings.preset}"{hint}'
            problems.append(config.source.problem(("providers", name, "preset"), message))
            continue
        if not settings.base_url:
            settings = settings.model_copy(update={"base_url": base_url})
        try:
            upstream = PooledUpstream(pool, settings)
            context = ProviderContext(name, settings, upstream, _client_maker(upstream))
            providers[name] = factory(context)
        except ValueError as error:
            where = ("providers", name)
            problems.append(config.source.problem(where, f"provider {name}: {error}"))
    return providers


def _patience(config: Config, registry: Registry) -> dict[str, float]:
    """Of each provider: seconds that a reply is read on once its client has left."""
    usual = "drain" if Ledger in registry.services else "cancel"
    return {
        name: settings.drain_seconds if (settings.on_disconnect or usual) == "drain" else 0.0
        for name, settings in config.providers.items()
    }


def _client_maker(upstream: PooledUpstream) -> "Callable[[], httpx.AsyncClient]":
    def make() -> "httpx.AsyncClient":
        from tollkeeper._server.transport import make_client  # start-up does without httpx

        return make_client(upstream)

    return make


def _unspoken(kind: str, registry: Registry) -> str:
    hint = nearest(kind, registry.providers) or f"; is [plugins.{kind}] enabled?"
    return f'unknown provider kind "{kind}": no enabled plugin speaks it{hint}'


def _warnings(config: Config, steps: Mapping[str, tuple[Step, ...]]) -> list[Problem]:
    if steps["route"]:
        return []
    return [
        config.source.problem(
            ("models", name, "deployments"),
            f'model "{name}" has several deployments but no plugin that routes is on: '
            "the first is used",
        )
        for name, model in config.models.items()
        if len(model.deployments) > 1
    ]


def is_loopback(bind: str) -> bool:
    """Whether an address is reachable from this machine only."""
    host, _ = split_bind(bind)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
