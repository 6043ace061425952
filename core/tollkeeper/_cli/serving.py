"""`serve` and `demo`."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from tollkeeper._cli.group import config_option, errors_shown, log_to_stderr
from tollkeeper._cli.project import load_config
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import Config, parse_config, read_config
from tollkeeper.errors import TollkeeperError
from tollkeeper.gateway import KeyIssuer
from tollkeeper.storage import make_database

if TYPE_CHECKING:
    from tollkeeper._server.server import Server

DEMO_PORTS = range(8080, 8100)
DEMO_CONFIG = """
[storage]
url = "sqlite:///:memory:"

[providers.demo]
kind = "demo"

[models.demo]
deployments = [{ provider = "demo", model = "demo" }]
price = { input = "0.15", output = "0.60" }
owned_by = "tollkeeper"

[plugins.keys]
[plugins.limits]
[plugins.routing]
[plugins.demo]
"""


class StartError(TollkeeperError):
    """The gateway cannot start, for a reason outside the configuration."""


@click.command("serve", params=[config_option()], help="Serve until SIGTERM or Ctrl-C.")
@click.pass_obj
def serve(path: Path) -> None:
    """Serve; SIGHUP reads the configuration again."""
    log_to_stderr()
    with errors_shown():
        config = load_config(path)
        with _listen(config.server.bind) as listener:
            code = trio.run(_serve, config, listener, lambda: read_config(path, Catalogue()))
    raise SystemExit(code)


@click.command("demo", help="Serve offline, with no file, no account and data in memory.")
@click.option("--bind", help="Address to listen on; default 127.0.0.1 and a free port from 8080.")
def demo(bind: str | None) -> None:
    """Serve the built-in configuration and show how to call it."""
    log_to_stderr()
    with errors_shown():
        config = parse_config(DEMO_CONFIG, Catalogue(), name="built in; data in memory")
        with _listen(bind) if bind else _listen_near() as listener:
            code = trio.run(_serve, config, listener, None)
    raise SystemExit(code)


def _listen(bind: str) -> socket.socket:
    from tollkeeper._server.process import open_listener

    try:
        return open_listener(bind)
    except ValueError as error:
        raise StartError(f"{bind}: {error}") from error
    except OSError as error:
        hint = "; is another process using it?" if error.errno == errno.EADDRINUSE else ""
        raise StartError(f"cannot listen on {bind}: {error.strerror}{hint}") from error


def _listen_near() -> socket.socket:
    """The first free port of `DEMO_PORTS`, or any other."""
    for port in DEMO_PORTS:
        with contextlib.suppress(StartError):
            return _listen(f"127.0.0.1:{port}")
    return _listen("127.0.0.1:0")


async def _serve(
    config: Config, listener: socket.socket, reread: Callable[[], Config] | None
) -> int:
    """Serve until stopped. Without a file to read again it is the demo, which gets a key."""
    from tollkeeper._server.server import Server

    database = make_database(config.storage.url, config.source.root)
    database.open()
    server = Server(config, database, reread)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, listener)
            await nursery.start(server.watch_signals)
            click.echo(f"tollkeeper {version()}  {server.address}")
            click.echo(f"  Config   {config.source.name}")
            click.echo(f"  Plugins  {', '.join(e.plugin.name for e in config.plugins) or 'none'}")
            if reread is None:
                await _show_example(server)
            await server.over.wait()
            nursery.cancel_scope.cancel()
    finally:
        database.close()
    return server.exit_code


async def _show_example(server: Server) -> None:
    issuer = server.generations.current.registry.services[KeyIssuer]
    if not isinstance(issuer, KeyIssuer):
        raise StartError("the plugin that issues keys does not")
    key = await issuer.create_key("demo", "default")
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hello"}]})
    url = f"{server.address}/v1/chat/completions"
    click.echo(f"  Base URL {server.address}/v1")
    click.echo(f"  Key      {key.key}")
    click.echo("\nTry it:\n")
    click.echo(f"  curl {url} -H 'Authorization: Bearer {key.key}' -d '{body}'")
    click.echo(
        "\nA message of `status 429`, `context`, `filter`, `slow 5` or `cut 3` asks for that"
    )
    click.echo('failure; add "stream": true for a stream. Stop with Ctrl-C.')


def version() -> str:
    """The installed version."""
    return importlib.metadata.version("tollkeeper")
