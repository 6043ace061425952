"""From the text of a TOML file to checked settings, with every mistake told at once."""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tollkeeper.catalogue import Catalogue, PluginClass
from tollkeeper.errors import ConfigError, PluginError, Problem
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


def read_config(path: Path, catalogue: Catalogue) -> Config:
    """Read and check a file. Raises `ConfigError` with all problems."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = f"no such file; write one with: tollkeeper init --config {path}"
        raise ConfigError([Problem(str(path), hint)]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error}")]) from None
    return parse_config(text, catalogue, name=str(path), root=path.resolve().parent)


def parse_config(
    text: str, catalogue: Catalogue, *, name: str = "<config>", root: Path | None = None
) -> Config:
    """Check the text of a configuration. Raises `ConfigError` with all problems."""
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(name, str(error))]) from None
    source = Source(name, root or Path.cwd(), locate_keys(text))
    return _Reader(source, data, catalogue).read()


def _syntax_problem(name: str, message: str) -> Problem:
    place = re.search(r" \(at line (\d+), column (\d+)\)", message)
    if place is None:
        return Problem(name, f"is not TOML: {message}")
    return Problem(f"{name}:{place.group(1)}", f"is not TOML: {message.replace(place.group(), '')}")


def nearest(name: str, known: Mapping[str, Any] | tuple[str, ...] | list[str]) -> str:
    """` - did you mean "x"?`, or nothing where no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f' - did you mean "{close[0]}"?' if close else ""


class _Reader:
    """One reading of one text; collects problems instead of stopping at the first."""

    def __init__(self, source: Source, data: dict[str, Any], catalogue: Catalogue) -> None:
        self.source = source
        self.data = data
        self.catalogue = catalogue
        self.problems: list[Problem] = []
        self.broken: set[str] = set()

    def read(self) -> Config:
        for key in self.data:
            if key not in SECTIONS:
                self._complain((key,), f'unknown table "{key}"{nearest(key, SECTIONS)}')
        config = Config(
            source=self.source,
            server=self._table(ServerSettings, ("server",)) or ServerSettings(),
            storage=self._table(StorageSettings, ("storage",)) or StorageSettings(),
            providers=self._tables(ProviderSettings, "providers"),
            models=self._tables(ModelSettings, "models"),
            plugins=self._plugins(),
            broken=frozenset(self.broken),
        )
        self._check_references(config)
        if self.problems:
            raise ConfigError(self.problems, config)
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
        raw = self._expand(self._section(path), path)
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=True):
                self._complain((*path, *detail["loc"]), _explain(detail, model, path, raw))
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

    def _check_references(self, config: Config) -> None:
        named = self._section(("providers",))
        for name, model in config.models.items():
            for index, deployment in enumerate(model.deployments):
                if deployment.provider not in named:
                    path = ("models", name, "deployments", index, "provider")
                    hint = nearest(deployment.provider, named)
                    self._complain(path, f'unknown provider "{deployment.provider}"{hint}')

    def _expand(self, value: Any, path: KeyPath) -> Any:  # noqa: ANN401 -- whatever TOML holds
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
        if name in os.environ:
            return os.environ[name]
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
    r"\$\{(?:file:(?P<file>[^}]+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?)\}"
)


def dotted(path: KeyPath) -> str:
    """A key path as TOML writes it."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if bare else f'"{part}"')
    return text


def _explain(detail: ErrorDetails, model: type[Table], path: KeyPath, raw: object) -> str:
    loc = detail["loc"]
    key = dotted((*path, *loc))
    if detail["type"] == "extra_forbidden":
        known = list(_model_at(model, loc[:-1]).model_fields)
        table = dotted((*path, *loc[:-1]))
        return f'unknown key "{loc[-1]}" in [{table}]{nearest(str(loc[-1]), known)}'
    if detail["type"] == "missing":
        return f"{key} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key} = {_shown(raw, loc)}: {message[0].lower()}{message[1:]}"


def _model_at(model: type[Table], loc: tuple[str | int, ...]) -> type[Table]:
    """The model that validates what stands at `loc` inside `model`."""
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            for inner in _tables_in(model.model_fields[part].annotation):
                model = inner
    return model


def _tables_in(annotation: Any) -> list[type[Table]]:  # noqa: ANN401 -- an annotation
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return [annotation]
    return [t for arg in getattr(annotation, "__args__", ()) for t in _tables_in(arg)]


def _shown(raw: object, loc: tuple[str | int, ...]) -> str:
    """The offending value as the person wrote it, unless it may be a secret."""
    value: Any = raw
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return "(nothing)"
    secret = re.search(r"credential|secret|password|token|key$", str(loc[-1]) if loc else "")
    if secret:
        return "***"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
