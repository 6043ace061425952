"""From the text of a TOML file to checked settings, with every mistake told at once."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from tollkeeper.catalogue import Catalogue, PluginClass
from tollkeeper.errors import ConfigError, PluginError, Problem, by_line
from tollkeeper.explain import dotted, explain, nearest, own_findings
from tollkeeper.settings import (
    ModelSettings,
    PluginSettings,
    ProviderSettings,
    ServerSettings,
    StorageSettings,
    Table,
)
from tollkeeper.toml_lines import KeyPath, locate_keys

DEFAULT_PATH = Path("tollkeeper.toml")
SECTIONS = ("server", "storage", "providers", "models", "plugins")

TableT = TypeVar("TableT", bound=Table)


@dataclass(frozen=True, slots=True)
class EnabledPlugin:
    """A plugin that the TOML turns on: its class and its settings."""

    plugin: PluginClass
    settings: PluginSettings


@dataclass(frozen=True, slots=True)
class Source:
    """The text that a configuration came from, for naming places in it."""

    name: str
    root: Path
    """What relative paths in the configuration are relative to."""
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`file:line` of a key, or of the nearest table around it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A mistake at a key."""
        return Problem(self.where(path), message)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the TOML says, checked as far as it can be without building anything."""

    source: Source
    server: ServerSettings
    storage: StorageSettings
    providers: Mapping[str, ProviderSettings]
    models: Mapping[str, ModelSettings]
    plugins: tuple[EnabledPlugin, ...]
    """In the order of the TOML, which is the order they run in."""
    broken: frozenset[str] = frozenset()
    """Plugins that are on but missing from `plugins`, for their tables have mistakes."""


def read_config(path: Path, catalogue: Catalogue, *, without_providers: bool = False) -> Config:
    """Read and check a file. Raises `ConfigError` with all problems.

    `without_providers` leaves references in `[providers.*]` alone, for a command that needs no
    credential should not ask for one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        hint = f"no such file; write one with: tollkeeper init --config {path}"
        raise ConfigError([Problem(str(path), hint)]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error}")]) from None
    return parse_config(
        text,
        catalogue,
        name=str(path),
        root=path.resolve().parent,
        unresolved=("providers",) if without_providers else (),
    )


def parse_config(
    text: str,
    catalogue: Catalogue,
    *,
    name: str = "<config>",
    root: Path | None = None,
    unresolved: tuple[str, ...] = (),
) -> Config:
    """Check the text of a configuration. Raises `ConfigError` with all problems.

    References are left as they stand in the sections named in `unresolved`.
    """
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(name, str(error))]) from None
    source = Source(name, root or Path.cwd(), locate_keys(text))
    return _Reader(source, data, catalogue, unresolved).read()


def _syntax_problem(name: str, message: str) -> Problem:
    place = re.search(r" \(at line (\d+), column (\d+)\)", message)
    if place is None:
        return Problem(name, f"is not TOML: {message}")
    return Problem(f"{name}:{place.group(1)}", f"is not TOML: {message.replace(place.group(), '')}")


class _Reader:
    """One reading of one text; collects problems instead of stopping at the first."""

    def __init__(
        self,
        source: Source,
        data: dict[str, Any],
        catalogue: Catalogue,
        unresolved: tuple[str, ...],
    ) -> None:
        self.unresolved = unresolved
        self.source = source
        self.data = data
        self.catalogue = catalogue
        self.problems: list[Problem] = []
        self.broken: set[str] = set()

    def read(self) -> Config:
        for key in self.data:
            if key not in SECTIONS:
                word = "table" if isinstance(self.data[key], dict) else "key"
                self._complain((key,), f'unknown {word} "{key}"{nearest(key, SECTIONS)}')
        config = Config(
            source=self.source,
            server=self._table(ServerSettings, ("server",)) or ServerSettings(),
            storage=self._table(StorageSettings, ("storage",)) or StorageSettings(),
            providers=self._tables(ProviderSettings, "providers"),
            models=self._tables(ModelSettings, "models"),
            plugins=self._plugins(),
            broken=frozenset(self.broken),
        )
        self._check_references()
        if self.problems:
            raise ConfigError(sorted(set(self.problems), key=by_line), config)
        return config

    def _complain(self, path: KeyPath, message: str) -> None:
        self.problems.append(self.source.problem(path, message))

    def _section(self, path: KeyPath) -> dict[str, Any]:
        value: Any = self.data
        for key in path:
            value = value.get(key, {})
            if not isinstance(value, dict):
                self._complain(path, f"must be a table, [{dotted(path)}]")
                return {}
        return cast("dict[str, Any]", value)

    def _table(self, model: type[TableT], path: KeyPath) -> TableT | None:
        written = self._section(path)
        before = len(self.problems)
        expanded = self._expand(written, path)
        told = {problem.where for problem in self.problems[before:]}
        try:
            return model.model_validate(expanded)
        except ValidationError as error:
            for detail in own_findings(error):
                message = explain(detail, model, path, written)
                problem = self.source.problem((*path, *detail["loc"]), message)
                if problem.where not in told:  # what is unset cannot be right
                    self.problems.append(problem)
            return None

    def _tables(self, model: type[TableT], section: str) -> dict[str, TableT]:
        found = {}
        for name in self._section((section,)):
            if (table := self._table(model, (section, name))) is not None:
                found[name] = table
        return found

    def _plugins(self) -> tuple[EnabledPlugin, ...]:
        enabled = []
        for name in self._section(("plugins",)):
            path: KeyPath = ("plugins", name)
            if name not in self.catalogue:
                hint = nearest(name, self.catalogue) or "; is its package installed?"
                self._complain(path, f'unknown plugin "{name}"{hint}')
            elif self._section(path).get("enabled", True) is not False:
                plugin = self._plugin(name, path)
                if plugin is None:
                    self.broken.add(name)
                else:
                    enabled.append(plugin)
        return tuple(enabled)

    def _plugin(self, name: str, path: KeyPath) -> EnabledPlugin | None:
        try:
            plugin = self.catalogue.load(name)
        except PluginError as error:
            self._complain(path, str(error))
            return None
        settings = self._table(plugin.settings, path)
        return None if settings is None else EnabledPlugin(plugin, settings)

    def _check_references(self) -> None:
        """Every deployment's provider, whatever else is wrong with the model."""
        providers = self._section(("providers",))
        for name, model in self._section(("models",)).items():
            deployments = model.get("deployments", []) if isinstance(model, dict) else []
            for index, deployment in enumerate(
                deployments if isinstance(deployments, list) else []
            ):
                wanted = deployment.get("provider") if isinstance(deployment, dict) else None
                if isinstance(wanted, str) and wanted not in providers:
                    path = ("models", name, "deployments", index, "provider")
                    self._complain(path, f'unknown provider "{wanted}"{nearest(wanted, providers)}')

    def _expand(self, value: Any, path: KeyPath) -> Any:  # noqa: ANN401 -- whatever TOML holds
        if path[0] in self.unresolved:
            return value
        if isinstance(value, dict):
            return {key: self._expand(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expand(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return _REFERENCE.sub(lambda match: self._resolve(match, path), value)
        return value

    def _resolve(self, match: re.Match[str], path: KeyPath) -> str:
        if match.group("file") is not None:
            return self._read_secret_file(match.group("file"), path)
        name, default = match.group("name"), match.group("default")
        if name is None:
            self._complain(path, f"what stands in ${{...}} is no reference ({dotted(path)})")
            return match.group()
        found = os.environ.get(name)
        if found or (found is not None and default is None):
            return found
        if default is None:
            self._complain(path, f"environment variable {name} is not set ({dotted(path)})")
            return match.group()
        return default

    def _read_secret_file(self, name: str, path: KeyPath) -> str:
        try:
            return (self.source.root / name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            self._complain(path, f"file {name} cannot be read: {error} ({dotted(path)})")
            return "unreadable"


_REFERENCE = re.compile(
    r"\$\{(?:(?:file:(?P<file>[^}]+)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?)\}"
    r"|[^}]*\}?)"  # anything else is a mistake
)
