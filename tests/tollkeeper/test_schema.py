"""The schema, the example and the option table: three readings of one declaration."""

import json
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from pydantic.fields import FieldInfo

from tollkeeper.catalogue import Catalogue, PluginClass
from tollkeeper.config import parse_config
from tollkeeper.errors import ConfigError
from tollkeeper.schema import CORE_TABLES, default_toml, example_toml, json_schema, option_rows
from tollkeeper.settings import Money, PluginSettings, Seconds, Secret, Size, Table

BUILT_IN = ("keys", "limits", "routing", "openai", "demo")


class Inner(Table):
    word: str
    """A word."""


class ToySettings(PluginSettings):
    """A bit of everything that a plugin may declare."""

    needed: str = "x"
    """A word."""
    quoted: str = 'say "hi" \\ there'
    """A word with marks."""
    window: int = 1024**2
    """A count, not a size."""
    room: Size = 2 * 1024**2
    """A size."""
    pause: Seconds = 1234567.25
    """A duration."""
    price: Money = Decimal("0.25")
    """Money."""
    mode: Literal["a", "b"] = "a"
    """A choice."""
    hook: Secret | None = None
    """A secret."""
    inner: Inner | None = None
    """A table."""
    rules: tuple[Inner, ...] = Field(default=(), strict=False)
    """Tables."""
    words: tuple[str, ...] = Field(default=("a", "b"), strict=False)
    """Words."""
    names: dict[str, int] = Field(default_factory=dict)
    """Numbers by name."""


class Toy:
    Settings = ToySettings

    def __init__(self, settings: ToySettings) -> None:
        self.settings = settings


def toy(name: str = "toy", cls: type[Any] = Toy) -> PluginClass:
    return PluginClass.of(name, cls)


def references(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for inner in schema.values():
            yield from references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from references(inner)


def resolve(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """What a `$ref`, or an optional one, stands for."""
    for option in part.get("anyOf", [part]):
        if "$ref" in option:
            name = option["$ref"].removeprefix("#/definitions/")
            return dict(schema["definitions"][name])
    return part


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    catalogue = Catalogue()
    schema = json_schema([*map(catalogue.load, BUILT_IN), toy()], [*catalogue, "toy"])
    targets = {f"#/definitions/{name}" for name in schema["definitions"]}
    assert set(references(schema)) == targets
    assert "$defs" not in json.dumps(schema)


def test_the_schema_knows_every_key_and_forbids_all_others() -> None:
    schema = json_schema([toy()], ["toy"])
    sections = schema["properties"]
    tables = {
        "server": sections["server"],
        "storage": sections["storage"],
        "providers.<name>": sections["providers"]["additionalProperties"],
        "models.<name>": sections["models"]["additionalProperties"],
    }
    model = tables["models.<name>"]
    deployment = resolve(schema, model["properties"]["deployments"]["items"])
    price = resolve(schema, model["properties"]["price"])
    tables |= {"models.<name>.deployments[]": deployment, "models.<name>.price": price}
    tables["models.<name>.price.tiers[]"] = resolve(schema, price["properties"]["tiers"]["items"])
    for name, table in CORE_TABLES:
        assert set(tables[name]["properties"]) == set(table.model_fields), name
        assert tables[name]["additionalProperties"] is False, name
        assert all(p.get("description") for p in tables[name]["properties"].values()), name
    assert schema["additionalProperties"] is sections["plugins"]["additionalProperties"] is False


def test_a_plugin_that_is_on_is_described_and_one_that_is_off_may_hold_anything() -> None:
    plugins = json_schema([toy()], ["toy", "other"])["properties"]["plugins"]["properties"]
    assert set(plugins) == {"toy", "other"}
    assert set(plugins["toy"]["properties"]) == set(ToySettings.model_fields)
    assert plugins["toy"]["additionalProperties"] is False
    assert plugins["toy"]["properties"]["enabled"]["type"] == "boolean"
    assert "additionalProperties" not in plugins["other"]


def test_tables_of_the_same_name_in_two_plugins_stay_apart() -> None:
    def plugin(field: str) -> type[Any]:
        rule = type("Rule", (Table,), {"__annotations__": {field: str}})
        annotations = {"rule": rule}
        return type(
            "P", (), {"Settings": type("S", (PluginSettings,), {"__annotations__": annotations})}
        )

    schema = json_schema([toy("one", plugin("left")), toy("two", plugin("right"))], ["one", "two"])
    plugins = schema["properties"]["plugins"]["properties"]
    rules = {n: resolve(schema, plugins[n]["properties"]["rule"]) for n in ("one", "two")}
    assert set(rules["one"]["properties"]) == {"left"}
    assert set(rules["two"]["properties"]) == {"right"}


def test_the_schema_takes_whole_and_broken_seconds_and_sizes_with_units() -> None:
    server = json_schema([], [])["properties"]["server"]["properties"]
    assert server["grace"]["type"] == "number"
    assert {option["type"] for option in server["max_body"]["anyOf"]} == {"integer", "string"}


def test_a_secret_is_a_string_to_the_schema() -> None:
    providers = json_schema([], [])["properties"]["providers"]["additionalProperties"]
    kinds = {option["type"] for option in providers["properties"]["credential"]["anyOf"]}
    assert kinds == {"string", "null"}


def test_the_example_is_a_configuration_that_changes_no_default() -> None:
    catalogue = Catalogue()
    text = example_toml(map(catalogue.load, BUILT_IN))
    config, empty = parse_config(text, catalogue), parse_config("", catalogue)
    assert (config.server, config.storage) == (empty.server, empty.storage)
    assert [enabled.plugin.name for enabled in config.plugins] == list(BUILT_IN)
    for enabled in config.plugins:
        assert enabled.settings == enabled.plugin.settings()


def test_the_example_shows_every_option_of_the_core_with_what_it_does() -> None:
    text = example_toml([])
    shown = tomllib.loads(text)
    provider, model = shown["providers"]["openai"], shown["models"]["gpt-4o-mini"]
    tables = {
        "server": shown["server"],
        "storage": shown["storage"],
        "providers.<name>": provider,
        "models.<name>": model,
        "models.<name>.deployments[]": model["deployments"][0],
        "models.<name>.price": model["price"],
    }
    for name, table in CORE_TABLES:
        if name in tables:
            assert set(tables[name]) == set(table.model_fields), name
    for name in ("server", "storage"):
        for _, _, _, does in option_rows(dict(CORE_TABLES)[name]):
            assert f"# {does}\n" in text


def test_the_example_of_any_plugin_is_one_that_can_be_read() -> None:
    catalogue = Catalogue({"toy": Toy})
    text = example_toml([toy()])
    try:
        config = parse_config(text, catalogue)
    except ConfigError as error:
        pytest.fail(f"{error}\n{text}")
    settings_of_toy = config.plugins[0].settings
    assert settings_of_toy == ToySettings()


simple_defaults = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.decimals(allow_nan=False, allow_infinity=False)
)


@settings(deadline=None)
@given(simple_defaults)
def test_a_default_reads_back_as_itself(default: bool | int | float | str | Decimal) -> None:
    field = FieldInfo(annotation=type(default), default=default)
    read = tomllib.loads(f"default = {default_toml(field)}", parse_float=Decimal)["default"]
    assert type(default)(read) == default


def test_the_option_table_says_the_kind_and_the_default_of_each() -> None:
    rows = {name: (kind, default) for name, kind, default, _ in option_rows(ToySettings)}
    assert rows["hook"] == ("string", "")
    assert rows["inner"] == ("table", "")
    assert rows["rules"] == ("array of tables", "[]")
    assert rows["words"][0] == "array of strings"
    assert rows["enabled"] == ("boolean", "true")
    assert rows["room"] == ("integer or string", '"2MiB"')
    assert option_rows(Inner) == [("word", "string", "", "A word.")]
