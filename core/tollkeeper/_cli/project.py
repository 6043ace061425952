"""`init`, `check`, `plugins`, `schema`: everything around a configuration file."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tollkeeper._cli.group import config_option, errors_shown
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import Config, read_config
from tollkeeper.errors import ConfigError, PluginError, Problem
from tollkeeper.schema import json_schema

if TYPE_CHECKING:
    from tollkeeper._server.generation import Shared

_PROVIDERS = {
    "openai": """\
# A place to send requests. Put the credential into the environment, not into this file.
[providers.openai]
kind = "openai"
base_url = "https://api.openai.com/v1"
credential = "${OPENAI_API_KEY}"

# A model that clients ask for, and what serves it. Prices are US dollars per million tokens.
[models."gpt-4o-mini"]
deployments = [{ provider = "openai", model = "gpt-4o-mini" }]
price = { input = "0.15", output = "0.60" }

[plugins.openai]
enabled = true
""",
    "demo": """\
# A provider that answers offline.
[providers.demo]
kind = "demo"

# A model that clients ask for, and what serves it. Prices are US dollars per million tokens.
[models.demo]
deployments = [{ provider = "demo", model = "demo" }]
price = { input = "0.15", output = "0.60" }

[plugins.demo]
enabled = true
""",
}

_FILE = """\
#:schema ./tollkeeper.schema.json
# Every option, with its default: config.example.toml in the documentation.

[server]
bind = "127.0.0.1:8080"

[storage]
url = "sqlite:///tollkeeper.db"

# Who is calling: virtual keys, made with `tollkeeper keys create --name NAME`.
[plugins.keys]
enabled = true

# How much each key may do.
[plugins.limits]
enabled = true
rpm = 60

# Retries, fallbacks and weights between the deployments of a model.
[plugins.routing]
enabled = true

"""


@click.command("init", params=[config_option()], help="Write a commented configuration file.")
@click.option(
    "--provider",
    type=click.Choice(list(_PROVIDERS)),
    default="openai",
    show_default=True,
    help="What to send requests to.",
)
@click.pass_obj
def init(path: Path, provider: str) -> None:
    """Write the file and its JSON Schema; never over an existing file."""
    schema = path.with_name("tollkeeper.schema.json")
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(_FILE + _PROVIDERS[provider])
        if not schema.exists():
            catalogue = Catalogue()
            plugins = [catalogue.load(name) for name in ("keys", "limits", "routing", provider)]
            schema.write_text(json.dumps(json_schema(plugins, catalogue), indent=2) + "\n")
    except FileExistsError:
        raise click.ClickException(f"{path} exists and was left alone") from None
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
    option = "" if path == Path("tollkeeper.toml") else f" --config {path}"
    click.echo(f"Wrote {path}. Next:")
    if provider == "openai":
        click.echo("  export OPENAI_API_KEY=sk-...")
    click.echo(f"  tollkeeper check{option}")
    click.echo(f"  tollkeeper keys create --name me{option}")
    click.echo(f"  tollkeeper serve{option}")


@click.command("check", params=[config_option()], help="Check the configuration, offline.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def check(path: Path, as_json: bool) -> None:
    """Show every problem at once; exit 1 when there is one."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    promises: list[str] = []
    try:
        warnings, promises = build(load_config(path))
    except ConfigError as error:
        problems = error.problems
    if as_json:
        document = {
            "ok": not problems,
            "problems": _shown(problems),
            "warnings": _shown(warnings),
            "promises": promises,
        }
        click.echo(json.dumps(document))
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        for warning in warnings:
            click.echo(f"{warning} (warning)", err=True)
        for promise in promises:
            click.echo(promise)
        if not problems:
            click.echo(f"{path} is fine.")
    raise SystemExit(1 if problems else 0)


def load_config(path: Path) -> Config:
    """Read the file. Raises `ConfigError` with all problems, those of building included."""
    from tollkeeper._server.loading import find_all_problems

    try:
        return read_config(path, Catalogue())
    except ConfigError as error:
        raise find_all_problems(error, _unopened()) from error


def build(config: Config) -> tuple[list[Problem], list[str]]:
    """Build all that `serve` would, but start nothing: warnings, and what plugins promise.

    Raises `ConfigError`.
    """
    from tollkeeper._server.loading import build_generation

    generation = build_generation(config, _unopened())
    return generation.warnings, generation.registry.promises


def _unopened() -> "Shared":
    from tollkeeper._server.generation import Shared
    from tollkeeper.storage import make_database

    return Shared(make_database("sqlite:///:memory:", Path()))


def _shown(problems: list[Problem]) -> list[dict[str, str]]:
    return [{"where": problem.where, "message": problem.message} for problem in problems]


@click.command("plugins", params=[config_option()], help="List the installed plugins.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def plugins(path: Path, as_json: bool) -> None:
    """What is installed, where it comes from, and whether the configuration turns it on."""
    with errors_shown():
        rows = _plugin_rows(path)
    if as_json:
        click.echo(json.dumps({"object": "list", "data": rows}))
        return
    wide = max((len(row["origin"]) for row in rows), default=0)
    for row in rows:
        state = "on " if row["enabled"] else "off"
        hooks = ", ".join(row["hooks"])
        click.echo(
            f"{state}  {row['name']:<12} {row['origin']:<{wide}} {row['policy'] or '':<9} {hooks}"
        )


def _plugin_rows(path: Path) -> list[dict[str, Any]]:
    catalogue = Catalogue()
    enabled = {}
    if path.exists():
        config = read_config(path, catalogue, without_providers=True)
        enabled = {e.plugin.name: e.plugin for e in config.plugins}
    rows = []
    for name in [*enabled, *sorted(set(catalogue) - set(enabled))]:
        plugin = enabled.get(name)
        rows.append(
            {
                "name": name,
                "enabled": plugin is not None,
                "origin": catalogue[name],
                "policy": plugin.policy if plugin else None,
                "hooks": plugin.hooks() if plugin else [],
            }
        )
    return rows


@click.command("schema", params=[config_option()], help="Print a JSON Schema for editors.")
@click.option("--json", "as_json", is_flag=True, help="As always: it is one JSON document.")
@click.pass_obj
def schema(path: Path, as_json: bool) -> None:
    """The schema of the file, with the settings of the plugins that it turns on."""
    with errors_shown():
        catalogue = Catalogue()
        try:
            names = _enabled_names(path, catalogue)
            enabled = [catalogue.load(name) for name in names]
        except PluginError as error:
            raise ConfigError([Problem(str(path), str(error))]) from error
        click.echo(json.dumps(json_schema(enabled, catalogue), indent=2))


def _enabled_names(path: Path, catalogue: Catalogue) -> list[str]:
    """Plugins that a file turns on, although the file may have mistakes elsewhere."""
    import tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("plugins", {})
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error}")]) from error
    return [
        name
        for name, table in tables.items()
        if name in catalogue and isinstance(table, dict) and table.get("enabled", True) is not False
    ]
