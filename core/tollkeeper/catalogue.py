"""The plugins that are installed here, by the name they have in the TOML."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from tollkeeper.errors import PluginError
from tollkeeper.hookspecs import PROJECT, Hooks
from tollkeeper.settings import PluginSettings

GROUP = "tollkeeper"
"""The entry-point group: `name = "package.module:Class"`."""

Policy = Literal["guard", "observer"]


@dataclass(frozen=True, slots=True)
class PluginClass:
    """A plugin's class and what the loader needs to know of it."""

    name: str
    cls: type[Any]
    settings: type[PluginSettings]
    policy: Policy
    package: str
    """The package its migrations are looked for in."""

    @classmethod
    def of(cls, name: str, plugin: type[Any]) -> "PluginClass":
        """Read a class; raises `PluginError` where it does not keep the contract."""
        settings = getattr(plugin, "Settings", PluginSettings)
        if not (isinstance(settings, type) and issubclass(settings, PluginSettings)):
            raise PluginError(f"plugin {name}: Settings must derive from PluginSettings")
        policy: Policy = getattr(plugin, "policy", "guard")
        if policy not in ("guard", "observer"):
            raise PluginError(f'plugin {name}: policy is "guard" or "observer", not {policy!r}')
        if unmarked := _unmarked_hooks(plugin):
            raise PluginError(f"plugin {name}: {unmarked[0]} is named like a hook: add @hookimpl")
        module = plugin.__module__
        is_package = hasattr(sys.modules.get(module), "__path__")
        package = module if is_package else module.rpartition(".")[0] or module
        return cls(name, plugin, settings, policy, package)

    def hooks(self) -> list[str]:
        """The hooks it implements, in the order of a request."""
        marker = f"{PROJECT}_impl"
        return [hook for hook in vars(Hooks) if hasattr(getattr(self.cls, hook, None), marker)]


def _unmarked_hooks(plugin: type[Any]) -> list[str]:
    """Methods that would never be called although their author may think so."""
    marker = f"{PROJECT}_impl"
    found = ((hook, getattr(plugin, hook, None)) for hook in vars(Hooks) if hook[0] != "_")
    return [hook for hook, method in found if callable(method) and not hasattr(method, marker)]


class Catalogue(Mapping[str, str]):
    """Installed plugins: name -> distribution and version. Importing happens in `load` only."""

    def __init__(self, extra: Mapping[str, type[Any]] | None = None) -> None:
        self._extra = dict(extra or {})
        self._points: dict[str, EntryPoint] = {}
        for point in entry_points(group=GROUP):
            self._points.setdefault(point.name, point)

    def __getitem__(self, name: str) -> str:
        if name in self._extra:
            return "given to the gateway"
        point = self._points[name]
        return f"{point.dist.name} {point.dist.version}" if point.dist else point.value

    def __iter__(self) -> Iterator[str]:
        return iter({**self._points, **self._extra})

    def __len__(self) -> int:
        return len({**self._points, **self._extra})

    def load(self, name: str) -> PluginClass:
        """Import one plugin. Raises `PluginError` with the cause in one line."""
        if name in self._extra:
            return PluginClass.of(name, self._extra[name])
        point = self._points[name]
        try:
            plugin = point.load()
        except Exception as error:
            cause = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise PluginError(
                f"plugin {name} ({point.value}) cannot be imported: {cause}"
            ) from error
        return PluginClass.of(name, plugin)
