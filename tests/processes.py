"""tollkeeper in processes of its own, as a self-hoster runs it."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


def need(tool: str, hint: str = "make tools") -> None:
    """Skip a test whose tool is missing here; in CI that is a failure."""
    if shutil.which(tool) is None:
        reason = f"{tool} is not installed: {hint}"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)


TOLLKEEPER = [sys.executable, "-m", "tollkeeper"]


def run(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    environment = {**os.environ, **env}
    return subprocess.run(
        [*TOLLKEEPER, *args], cwd=cwd, capture_output=True, text=True, timeout=60, env=environment
    )


@contextmanager
def running(
    *args: str, cwd: Path, until: str = "Plugins "
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway process, and what it printed until it said that it serves."""
    process = subprocess.Popen(
        [*TOLLKEEPER, *args],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        printed = ""
        while until not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        yield process, printed
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def running_stripe() -> Iterator[str]:
    """The project's own Stripe as a process; its address."""
    command = [sys.executable, "-m", "tollkeeper.testing.stripe", "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+\d", process.stdout.readline())
        assert found
        yield found.group()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """The next line with `word` in what a process prints."""
    assert process.stdout is not None
    while word not in (line := process.stdout.readline()):
        assert line, f"the process ended without printing {word!r}"
    return line


@dataclass(frozen=True)
class Demo:
    """A running demo."""

    base_url: str
    key: str


@contextmanager
def running_demo(cwd: Path) -> Iterator[Demo]:
    with running("demo", cwd=cwd, until="Ctrl-C") as (_, printed):
        base_url = re.search(r"http://\S+/v1$", printed, re.MULTILINE)
        key = re.search(r"tk-[\w-]+", printed)
        assert base_url
        assert key
        yield Demo(base_url.group(), key.group())


CONFIG = """
[server]
bind = "127.0.0.1:{port}"
[providers.demo]
kind = "demo"
[models.demo]
deployments = [{{ provider = "demo", model = "demo" }}]
price = {{ input = "0.15", output = "0.60" }}
[plugins.keys]
[plugins.limits]
[plugins.demo]
"""
"""A file whose model `demo` is answered offline, with keys and limits on."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def address(printed: str) -> str:
    found = re.search(r"http://\S+", printed)
    assert found
    return found.group()
