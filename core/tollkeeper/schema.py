"""What the settings say of themselves: JSON Schema, example file, reference."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from pydantic.fields import FieldInfo

from tollkeeper.catalogue import PluginClass
from tollkeeper.settings import (
    DeploymentSettings,
    ModelSettings,
    PluginSettings,
    PriceSettings,
    ProviderSettings,
    ServerSettings,
    StorageSettings,
    Table,
    TierSettings,
)

CORE_TABLES: tuple[tuple[str, type[Table]], ...] = (
    ("server", ServerSettings),
    ("storage", StorageSettings),
    ("providers.<name>", ProviderSettings),
    ("models.<name>", ModelSettings),
    ("models.<name>.deployments[]", DeploymentSettings),
    ("models.<name>.price", PriceSettings),
    ("models.<name>.price.tiers[]", TierSettings),
)


def json_schema(enabled: Iterable[PluginClass], installed: Iterable[str]) -> dict[str, Any]:
    """A JSON Schema (draft 7) of the whole file. Plugins that are off allow any content."""
    definitions: dict[str, Any] = {}

    def of(table: type[Table]) -> dict[str, Any]:
        schema = table.model_json_schema(ref_template="#/definitions/{model}")
        definitions.update(schema.pop("$defs", {}))
        return schema

    plugins: dict[str, Any] = {
        name: {"type": "object", "properties": {"enabled": {"type": "boolean"}}}
        for name in sorted(installed)
    }
    plugins |= {plugin.name: _switchable(of(plugin.settings)) for plugin in enabled}
    sections = {
        "server": of(ServerSettings),
        "storage": of(StorageSettings),
        "providers": {"type": "object", "additionalProperties": of(ProviderSettings)},
        "models": {"type": "object", "additionalProperties": of(ModelSettings)},
        "plugins": {"type": "object", "properties": plugins, "additionalProperties": False},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "tollkeeper.toml",
        "type": "object",
        "properties": sections,
        "additionalProperties": False,
        "definitions": definitions,
    }


def _switchable(schema: dict[str, Any]) -> dict[str, Any]:
    """A plugin's schema with `enabled` as the switch that it is in the file."""
    properties = {**schema["properties"], "enabled": {"type": "boolean", "default": True}}
    return {**schema, "properties": properties}


def option_rows(table: type[Table]) -> list[tuple[str, str, str, str]]:
    """Each option of a table: name, type, default as TOML, what it does."""
    rows = []
    schema = table.model_json_schema()
    for name, field in table.model_fields.items():
        kind = "boolean" if name == "enabled" else _kind(schema["properties"][name])
        text = " ".join((field.description or "").split())
        rows.append((name, kind, default_toml(field), text))
    return rows


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "$ref" in schema:
        return "table"
    kind = str(schema.get("type", "any"))
    return "array of tables" if kind == "array" else kind


def default_toml(field: FieldInfo) -> str:
    """The default as it would stand in the file; empty where there is none."""
    default = field.default
    if field.is_required() or default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return f'"{default}"'
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, (int, Decimal)):
        return _size(default)
    return "[]" if default == () else str(default)


def _size(value: int | Decimal) -> str:
    mebibytes, rest = divmod(value, 1024**2)
    return f'"{mebibytes}MiB"' if mebibytes and not rest else str(value)


def example_toml(plugins: Iterable[PluginClass]) -> str:
    """The text of `config.example.toml`: every option with its default and what it does."""
    parts = [
        _EXAMPLE_HEAD,
        _section("server", ServerSettings),
        _section("storage", StorageSettings),
        _section("providers.openai", ProviderSettings, _PROVIDER),
        _EXAMPLE_MODELS,
    ]
    parts += [_section(f"plugins.{plugin.name}", plugin.settings) for plugin in plugins]
    return "\n".join(parts)


def _section(name: str, table: type[Table], values: dict[str, str] | None = None) -> str:
    lines = [f"# {' '.join((table.__doc__ or '').split())}", f"[{name}]"]
    if issubclass(table, PluginSettings):
        lines[0] = f"# The plugin {name.removeprefix('plugins.')}."
    for key, _, default, text in option_rows(table):
        value = (values or {}).get(key, default)
        lines += [f"# {text}", f"{key} = {value}" if value else f"# {key} ="]
    return "\n".join(lines) + "\n"


_PROVIDER = {
    "kind": '"openai"',
    "base_url": '"https://api.openai.com/v1"',
    "credential": '"${OPENAI_API_KEY:-sk-example}"',
}

_EXAMPLE_HEAD = """\
# Every option of tollkeeper, with its default where it has one.
#
# The configuration is this one file. Inside any string, after parsing:
#   ${NAME} is an environment variable, ${NAME:-text} has a default,
#   ${file:/run/secrets/name} is the content of a file.
# Sizes are bytes or text such as "16MiB", durations are seconds, money is US dollars.
# Plugins run in the order they stand in. Check a file with: tollkeeper check --config FILE
"""

_EXAMPLE_MODELS = """\
# A model that clients ask for, and what serves it.
[models."gpt-4o-mini"]
# What can serve it, first choice first. `weight` is its share of the traffic that tries it
# first; 0 serves as a fallback only.
deployments = [{ provider = "openai", model = "gpt-4o-mini", weight = 1 }]
# US dollars per million tokens, shown by /v1/models. `tiers` replace them for long inputs.
price = { input = "0.15", output = "0.60", cache_read = "0.075", cache_write = "0.15", tiers = [] }
# Shown by /v1/models; the provider's kind when empty.
owned_by = "openai"
# Unix seconds, shown by /v1/models.
created = 1735689600
"""
