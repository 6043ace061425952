"""`init`, `check`, `plugins` and `schema`, in process."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tollkeeper.__main__ import main


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


@pytest.mark.parametrize("provider", ["openai", "demo"])
def test_what_init_writes_passes_check_and_has_its_schema(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "t.toml"
    assert invoke("init", "--provider", provider, "--config", str(config)).exit_code == 0
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    checked = invoke("check", "--config", str(config))
    assert (checked.exit_code, checked.output) == (0, f"{config} is fine.\n")
    schema = json.loads((tmp_path / "tollkeeper.schema.json").read_text())
    assert "limits" in schema["properties"]["plugins"]["properties"]
    assert config.read_text().startswith("#:schema ./tollkeeper.schema.json\n")


def test_the_first_thing_that_is_missing_is_named(tmp_path: Path) -> None:
    config = tmp_path / "t.toml"
    invoke("init", "--config", str(config))
    checked = invoke("check", "--config", str(config))
    assert checked.exit_code == 1
    assert checked.output.count("environment variable OPENAI_API_KEY is not set") == 1


def test_init_explains_a_folder_it_cannot_write_to(tmp_path: Path) -> None:
    result = invoke("init", "--config", str(tmp_path / "no" / "t.toml"))
    assert result.exit_code == 1
    assert "cannot write" in result.output


def test_plugins_lists_enabled_ones_in_the_order_of_the_file(tmp_path: Path) -> None:
    config = tmp_path / "t.toml"
    config.write_text("[plugins.routing]\n[plugins.keys]\n[plugins.demo]\nenabled = false\n")
    rows = json.loads(invoke("plugins", "--json", "--config", str(config)).output)["data"]
    enabled = [row["name"] for row in rows if row["enabled"]]
    assert enabled == ["routing", "keys"]
    (keys,) = [row for row in rows if row["name"] == "keys"]
    assert keys["policy"] == "guard"
    assert keys["hooks"] == ["register", "run", "authenticate", "admit"]
    (demo,) = [row for row in rows if row["name"] == "demo"]
    assert (demo["enabled"], demo["hooks"]) == (False, [])
    assert "routing" in invoke("plugins", "--config", str(config)).output.splitlines()[0]


def test_schema_describes_only_what_is_enabled_and_ignores_mistakes_elsewhere(
    tmp_path: Path,
) -> None:
    config = tmp_path / "t.toml"
    config.write_text("[server]\nnonsense = 1\n[plugins.limits]\n")
    assert tomllib.loads(config.read_text())
    schema = json.loads(invoke("schema", "--config", str(config)).output)
    plugins = schema["properties"]["plugins"]["properties"]
    assert "rpm" in plugins["limits"]["properties"]
    assert set(plugins["routing"]["properties"]) == {"enabled"}
    assert plugins["limits"]["properties"]["enabled"]["type"] == "boolean"
    none = json.loads(invoke("schema", "--config", str(tmp_path / "none.toml")).output)
    assert set(none["properties"]) == {"server", "storage", "providers", "models", "plugins"}
