"""What the settings say of themselves: JSON Schema, example file, reference."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import WithJsonSchema
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

    def of(table: type[Table], owner: str = "core") -> dict[str, Any]:
        schema = table.model_json_schema(ref_template=f"#/definitions/{owner}.{{model}}")
        found = schema.pop("$defs", {})
        definitions.update({f"{owner}.{name}": inner for name, inner in found.items()})
        return schema

    plugins: dict[str, Any] = {
        name: {"type": "object", "properties": {"enabled": {"type": "boolean"}}}
        for name in sorted(installed)
    }
    plugins |= {plugin.name: _switchable(of(plugin.settings, plugin.name)) for plugin in enabled}
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
    return f"array of {_kind(schema.get('items', {}))}s" if kind == "array" else kind


def default_toml(field: FieldInfo) -> str:
    """The default as it would stand in the file; empty where there is none."""
    if field.is_required():
        return ""
    default = field.get_default(call_default_factory=True)
    return _size(default) if _is_size(field) and isinstance(default, int) else toml_value(default)


def _is_size(field: FieldInfo) -> bool:
    return any(isinstance(part, WithJsonSchema) for part in field.metadata)


def toml_value(value: object) -> str:
    """A value as TOML writes it; empty for None, which TOML does not know."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Table):
        return toml_value(dict(value))
    if isinstance(value, Mapping):
        members = ((toml_key(str(k)), toml_value(v)) for k, v in value.items())
        text = ", ".join(f"{key} = {text}" for key, text in members if text)
        return f"{{ {text} }}" if text else "{}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value) if isinstance(value, int) else toml_text(str(value))


def toml_text(text: str) -> str:
    """A string as TOML writes it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(name: str) -> str:
    """A key as TOML writes it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_text(name)


def _size(value: int) -> str:
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
        if value in ("", "{}") and (examples := table.model_fields[key].examples):
            value = toml_value(examples[0])
        name = toml_key(key)
        lines += [f"# {text}".rstrip(), f"{name} = {value}" if value else f"# {name} ="]
    return "\n".join(lines) + "\n"


_PROVIDER = {
    "kind": '"openai"',
    "base_url": '"https://api.openai.com/v1"',
    "credential": '"${OPENAI_API_KEY:-sk-example}"',
    "on_disconnect": '"drain"',
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
# Output tokens that a call is bound to where a budget needs a bound and it names none.
max_output = 16384
# Shown by /v1/models; the provider's kind when empty.
owned_by = "openai"
# Unix seconds, shown by /v1/models.
created = 1735689600
"""
