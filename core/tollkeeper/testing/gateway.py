"""A gateway in memory, and what its clients get."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
import trio.testing

from tollkeeper._server.connection import Connection
from tollkeeper._server.front import Front
from tollkeeper._server.generation import Shared
from tollkeeper._server.generations import Generations
from tollkeeper._server.link import Link
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import parse_config
from tollkeeper.exchange import Exchange
from tollkeeper.gateway import KeyIssuer
from tollkeeper.hookspecs import hookimpl
from tollkeeper.provider import Clock
from tollkeeper.settings import PluginSettings
from tollkeeper.sse import data_of, split_events
from tollkeeper.storage import make_database
from tollkeeper.testing.upstream import MODEL, ScriptedUpstream

_BASIS = """
[storage]
url = "sqlite:///:memory:"
[providers.scripted]
kind = "scripted"
[models.test]
deployments = [{ provider = "scripted", model = "test" }]
[plugins.scripted]
[plugins.witness]
"""


class JumpClock(Clock):
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self.now

    def time(self) -> float:
        """The same, as Unix seconds."""
        return self.now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Answered:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 -- whatever came
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error reply."""
        return str(self.json()["error"]["code"])

    def events(self) -> list[str]:
        """The data of each event of a stream, `[DONE]` included."""
        found = (data_of(event) for event in split_events(self.body))
        return [data.decode() for data in found if data is not None]

    def text(self) -> str:
        """What the assistant said, whole or streamed."""
        if "event-stream" not in self.headers["content-type"]:
            return str(self.json()["choices"][0]["message"]["content"])
        documents = [json.loads(event) for event in self.events() if event != "[DONE]"]
        choices = [choice for document in documents for choice in document.get("choices", [])]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


@dataclass(slots=True)
class TestGateway:
    """A running gateway without sockets. Made by `open_gateway`."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    generations: Generations
    nursery: trio.Nursery
    settled: list[Exchange]
    """Every exchange so far, in the order of settlement."""
    configure: Any
    key: str = ""
    """Sent as the bearer key of every request while it is not empty."""

    async def create_key(self, name: str = "test", rpm: int | None = None) -> str:
        """Make a virtual key by the plugin that issues them."""
        issuer = self.generations.current.registry.services[KeyIssuer]
        if not isinstance(issuer, KeyIssuer):
            raise TypeError("no plugin issues keys")
        return (await issuer.create_key(name, "default", rpm)).key

    async def switch(self, toml: str) -> None:
        """Switch to another configuration, as SIGHUP does."""
        await self.generations.switch(self.configure(toml))

    async def chat(self, message: str = "hello", **fields: object) -> Answered:
        """Ask the model something; further fields go into the body."""
        return await self.post("/v1/chat/completions", chat_body(message, **fields))

    async def get(self, path: str) -> Answered:
        """A GET."""
        return await self.request("GET", path)

    async def post(self, path: str, document: object) -> Answered:
        """A POST of a JSON document."""
        return await self.request("POST", path, json.dumps(document).encode())

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answered:
        """Any request, and its whole reply."""
        async with self.open(method, path, body, headers) as link:
            parts = []
            while part := await link.chunk():
                parts.append(part)
            return Answered(link.status, dict(link.headers), b"".join(parts))

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Link]:
        """A request whose reply has begun. Leaving early is a client that goes away."""
        link = self.connect()
        lines = {"host": "test", "content-length": str(len(body)), **(headers or {})}
        if self.key and "authorization" not in lines:
            lines["authorization"] = f"Bearer {self.key}"
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        try:
            await link.request(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            yield link
        finally:
            await link.aclose()

    def connect(self) -> Link:
        """A client connection, as an upstream link: the same protocol from the other side."""
        client, server = trio.testing.memory_stream_pair()
        settings = self.generations.current.config.server
        connection = Connection(server, "memory", settings, Front(self.generations).handle)
        self.nursery.start_soon(connection.run)
        return Link(client)


def chat_body(message: str = "hello", **fields: object) -> dict[str, object]:
    """The body of a chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": message}], **fields}


@contextlib.asynccontextmanager
async def open_gateway(
    upstream: ScriptedUpstream | None = None,
    toml: str = "",
    *,
    plugins: Mapping[str, type[Any]] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[TestGateway]:
    """A gateway in memory whose model `test` is served by `upstream`.

    `plugins` are turned on by their names, in the order given and before those of `toml`, which is
    added to the configuration and may set them up.
    """
    classes = dict(plugins or {})
    settled: list[Exchange] = []
    scripted = (upstream or ScriptedUpstream()).as_plugin()
    catalogue = Catalogue({**classes, "scripted": scripted, "witness": _witness(settled)})

    def configure(text: str) -> Any:  # noqa: ANN401 -- a Config
        tables = "".join(
            f"[plugins.{name}]\n" for name in classes if f"[plugins.{name}]" not in text
        )
        return parse_config(tables + text + _BASIS, catalogue, name="<test>", root=Path("/"))

    database = make_database("sqlite:///:memory:", Path("/"))
    database.open()
    shared = Shared(database, clock) if clock else Shared(database)
    try:
        async with _generations(shared) as (generations, nursery):
            await generations.switch(configure(toml))
            yield TestGateway(generations, nursery, settled, configure)
    finally:
        await shared.pool.aclose()
        database.close()


@contextlib.asynccontextmanager
async def _generations(shared: Shared) -> AsyncIterator[tuple[Generations, trio.Nursery]]:
    """Generations that end with the block; a guard's crash in them is an error of the test."""
    crashed = False

    def on_guard_crash() -> None:
        nonlocal crashed
        crashed = True
        nursery.cancel_scope.cancel()

    async with unwrapped(), trio.open_nursery() as nursery:
        # What clients began is over before the plugins stop, as when a gateway goes down.
        async with unwrapped(), trio.open_nursery() as connections:
            yield Generations(nursery, shared, on_guard_crash), connections
            connections.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    if crashed:
        raise RuntimeError("a guard's own task crashed; the log says how")


@contextlib.asynccontextmanager
async def unwrapped() -> AsyncIterator[None]:
    """Let a lone exception out of the group that a nursery puts it in, as a test wants it."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None


def _witness(settled: list[Exchange]) -> type[Any]:
    class Witness:
        policy = "observer"

        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl(trylast=True)
        def settle(self, exchange: Exchange) -> None:
            settled.append(exchange)

    return Witness
