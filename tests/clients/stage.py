"""Stand-ins for three providers, and a gateway in front of them, for clients that block."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import urlopen

import pytest
from anyio.from_thread import start_blocking_portal
from harness import Served, serve
from processes import need

NODE = Path(__file__).parent.parent / "node"
HELLO = "Hello, Wörld! 🌍"
MODELS = ("gpt", "claude", "gemini")
OpenT = TypeVar("OpenT")


def need_packages(*names: str) -> None:
    """Skip a test whose npm packages are missing here; in CI that is a failure."""
    need("node")
    for name in names:
        if not (NODE / "node_modules" / name).is_dir():
            reason = f"{name} for node is not installed: make tools"
            assert "CI" not in os.environ, reason
            pytest.skip(reason)


@contextmanager
def held_open(opening: AbstractAsyncContextManager[OpenT]) -> Iterator[OpenT]:
    """What an async context manager gives, running in a thread of its own meanwhile."""
    with start_blocking_portal("trio") as portal, portal.wrap_async_context_manager(opening) as it:
        yield it


@dataclass(frozen=True)
class Stage:
    """A gateway whose models `gpt`, `claude` and `gemini` are served by the stand-ins.

    `openai` is the same model as `gpt`, at a provider that takes the Responses API as it is.
    """

    served: Served
    providers: str

    @property
    def key(self) -> str:
        return self.served.key

    @property
    def base_url(self) -> str:
        """For the SDKs of OpenAI."""
        return self.served.base_url

    @property
    def root_url(self) -> str:
        """For the SDKs of Anthropic."""
        return self.base_url.removesuffix("/v1")

    def asked(self, said: str) -> list[dict[str, Any]]:
        """What reached the stand-ins with these words in it: path, headers, body."""
        with urlopen(f"{self.providers}/__aimock/journal") as journal:
            entries = json.load(journal)
        return [entry for entry in entries if said in json.dumps(entry["body"])]


@contextmanager
def stand_ins() -> Iterator[str]:
    """The address of the stand-ins, in a process of their own."""
    need_packages("@copilotkit/aimock")
    with subprocess.Popen(
        ["node", "providers.mjs"],
        cwd=NODE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address, "the stand-ins did not start"
            yield address
        finally:
            process.stdin.close()  # that ends it


@contextmanager
def stage() -> Iterator[Stage]:
    """Stand-ins and a gateway with every endpoint and keys, for a module's tests."""
    with stand_ins() as providers, held_open(serve(_toml(providers))) as served:
        yield Stage(served, providers)


def run_node(script: str, *args: str) -> Any:
    """What a script prints as its one JSON document."""
    result = subprocess.run(
        ["node", script, *args], cwd=NODE, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def _toml(providers: str) -> str:
    return f"""
[storage]
url = "sqlite:///:memory:"
[providers.openai]
kind = "openai"
preset = "openai"
base_url = "{providers}/v1"
[providers.alike]
kind = "openai"
base_url = "{providers}/v1"
[providers.anthropic]
kind = "anthropic"
base_url = "{providers}"
[providers.google]
kind = "gemini"
base_url = "{providers}"
[models.openai]
deployments = [{{ provider = "openai", model = "gpt-4o-mini" }}]
[models.gpt]
deployments = [{{ provider = "alike", model = "gpt-4o-mini" }}]
[models.claude]
deployments = [{{ provider = "anthropic", model = "claude-sonnet-4-5" }}]
[models.gemini]
deployments = [{{ provider = "google", model = "gemini-2.5-flash" }}]
[plugins.keys]
[plugins.openai]
[plugins.anthropic]
[plugins.gemini]
[plugins.messages]
[plugins.responses]
store = true
[plugins.embeddings]
[plugins.completions]
[plugins.moderations]
[plugins.audio]
[plugins.images]
"""
