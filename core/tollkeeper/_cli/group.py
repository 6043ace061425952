"""The command group: finds the configuration first, then the commands that its plugins add."""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from tollkeeper.catalogue import Catalogue
from tollkeeper.config import DEFAULT_PATH, Config, read_config
from tollkeeper.errors import ConfigError, TollkeeperError, find_error
from tollkeeper.storage import Database, make_database

CONFIG_HELP = "The configuration file."


def config_option() -> click.Option:
    """`--config FILE`. Its value is read before commands are resolved, so it is not passed on."""
    return click.Option(
        ["--config"],
        metavar="FILE",
        default=str(DEFAULT_PATH),
        show_default=True,
        expose_value=False,
        help=CONFIG_HELP,
    )


def find_config_path(args: Sequence[str]) -> Path:
    """The value of `--config` anywhere on a command line, or the default."""
    for index, arg in enumerate(args):
        if arg == "--":
            break
        if arg.startswith("--config="):
            return Path(arg.partition("=")[2])
        if arg == "--config" and index + 1 < len(args):
            return Path(args[index + 1])
    return DEFAULT_PATH


class TollkeeperGroup(click.Group):
    """Built-in commands, and those of the plugins that the configuration turns on."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the path of the configuration for whoever needs it."""
        ctx.obj = find_config_path(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Built-in ones, then the plugins' where the configuration can be read."""
        try:
            return [*super().list_commands(ctx), *sorted(_plugin_commands(ctx.obj))]
        except TollkeeperError:
            return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A built-in command, or one of an enabled plugin."""
        if (command := super().get_command(ctx, cmd_name)) is not None:
            return command
        if ctx.resilient_parsing:
            return None
        with errors_shown():
            found = _plugin_commands(ctx.obj).get(cmd_name)
            if found is None and cmd_name in Catalogue():
                table = f"[plugins.{cmd_name}]"
                message = (
                    f"the plugin {cmd_name} is off in {ctx.obj}: {table} must be there, enabled"
                )
                raise click.ClickException(message)
            return found


def _plugin_commands(path: Path) -> dict[str, click.Command]:
    from tollkeeper._server.generation import Shared
    from tollkeeper._server.loading import register_plugins

    config = read_config(path, Catalogue(), without_providers=True)
    database = make_database(config.storage.url, config.source.root)
    registry, _, _ = register_plugins(config, Shared(database))
    for command in registry.commands.values():
        _prepare(command, config, database)
    return registry.commands


def _prepare(command: click.Command, config: Config, database: Database) -> None:
    """Give a plugin's command `--config`, and the open database while it runs."""
    command.params.append(config_option())
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _prepare(inner, config, database)
    elif command.callback is not None:
        command.callback = _with_database(command.callback, config, database)


def _with_database(
    callback: Callable[..., Any], config: Config, database: Database
) -> Callable[..., Any]:
    @wraps(callback)
    def run(*args: object, **options: object) -> object:
        with errors_shown():
            database.open()
            try:
                for enabled in config.plugins:
                    database.migrate_package(enabled.plugin.name, enabled.plugin.package)
                return callback(*args, **options)
            finally:
                database.close()

    return run


class errors_shown:
    """Turn our errors into one line each on standard error, and exit code 1."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        found = find_error(error, TollkeeperError)
        if found is None:
            return
        lines = list(map(str, found.problems)) if isinstance(found, ConfigError) else [str(found)]
        for line in lines:
            click.echo(line, err=True)
        sys.exit(1)


class _OneLine(logging.Formatter):
    """A message is one line, whatever a client put into it; tracebacks keep theirs."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def log_to_stderr() -> None:
    """Log lines for people on standard error; access lines as they are."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx", "httpcore", "peewee", "peewee.migrations"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    access = logging.StreamHandler()
    access.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("tollkeeper.access")
    logger.addHandler(access)
    logger.propagate = False
