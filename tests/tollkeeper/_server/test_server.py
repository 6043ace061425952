"""The server around the connections: sockets and what hypercorn is relied on for."""

import importlib
import importlib.metadata
import inspect
from pathlib import Path
from typing import Any

import pytest
import trio
from harness import http_reply, openai_toml, raw_upstream, replying, serve

from tollkeeper._server.server import needs_restart
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import parse_config


def test_hypercorn_is_the_version_whose_worker_we_know() -> None:
    assert importlib.metadata.version("hypercorn").startswith("0.18.")
    worker: Any = importlib.import_module("hypercorn.trio.run")
    replaced: Any = importlib.import_module("hypercorn.trio.tcp_server")
    source = inspect.getsource(worker.worker_serve)
    assert "TCPServer," in source, "our connections replace this name in the worker's module"
    assert "config.graceful_timeout" in source
    assert list(inspect.signature(replaced.TCPServer.__init__).parameters) == [
        "self",
        "app",
        "config",
        "context",
        "state",
        "stream",
    ]


def test_what_changes_only_with_the_next_start_is_named() -> None:
    def config(text: str) -> object:
        return parse_config(text, Catalogue(), name="t", root=Path("/"))

    old, new = (
        config(""),
        config('[server]\nbind = "127.0.0.1:1"\ngrace = 5\nmax_connections = 9\n'),
    )
    told = [str(problem) for problem in needs_restart(old, new)]  # type: ignore[arg-type]
    assert [line.split(" ")[:2] for line in told] == [
        ["t:2:", "server.bind"],
        ["t:3:", "server.grace"],
    ]


async def test_a_stopping_gateway_is_not_ready_and_takes_no_new_connection() -> None:
    async with raw_upstream(replying(http_reply(b"{}"))) as upstream:
        async with serve(openai_toml(upstream)) as gateway:
            assert (await gateway.get("/readyz")).status == 200
            gateway.server.stop()
            with trio.fail_after(5):
                await gateway.server.over.wait()
            assert gateway.server.exit_code == 0
            with pytest.raises(OSError, match="attempts"):
                await gateway.connect()
