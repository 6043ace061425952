"""The real server on a real socket, and upstreams and clients that speak in raw bytes."""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tollkeeper._server.link import Link
from tollkeeper._server.process import open_listener
from tollkeeper._server.server import Server
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import Config, parse_config
from tollkeeper.exchange import Exchange
from tollkeeper.gateway import KeyIssuer
from tollkeeper.hookspecs import hookimpl
from tollkeeper.settings import PluginSettings
from tollkeeper.storage import make_database
from tollkeeper.testing import Answered, unwrapped

DONE = b"data: [DONE]\n\n"


class Recorder:
    """A plugin that notes each settled exchange, at the moment it is settled."""

    policy = "observer"
    exchanges: list[Exchange]

    def __init__(self, settings: PluginSettings) -> None:
        pass

    @hookimpl
    def settle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


def make_recorder() -> type[Recorder]:
    """A recorder class with a list of its own."""
    return type("OwnRecorder", (Recorder,), {"exchanges": []})


@dataclass(slots=True)
class Served:
    """A gateway that is serving on a socket."""

    server: Server
    port: int
    recorder: type[Recorder]
    configure: Callable[[str], Config]
    key: str = ""

    @property
    def settled(self) -> list[Exchange]:
        return self.recorder.exchanges

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    def head(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        lines = {"host": "x", **(headers or {})}
        if self.key:
            lines.setdefault("authorization", f"Bearer {self.key}")
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode()

    def chat_bytes(self, message: str = "hello", **fields: object) -> bytes:
        body = json.dumps(chat_body(message, **fields)).encode()
        return self.head("POST", "/v1/chat/completions", {"content-length": str(len(body))}) + body

    async def ask(self, request: bytes) -> Answered:
        """Send raw bytes on a connection of their own; the whole reply."""
        link = Link(await self.connect())
        try:
            await link.request(request)
            parts = []
            while part := await link.chunk():
                parts.append(part)
            return Answered(link.status, dict(link.headers), b"".join(parts))
        finally:
            await link.aclose()

    async def chat(self, message: str = "hello", **fields: object) -> Answered:
        return await self.ask(self.chat_bytes(message, **fields))

    async def get(self, path: str) -> Answered:
        return await self.ask(self.head("GET", path))

    async def wait_settled(self, count: int) -> None:
        with trio.fail_after(5):
            while len(self.settled) < count:
                await trio.sleep(0.005)


def chat_body(message: str = "hello", **fields: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": message}], **fields}


@contextlib.asynccontextmanager
async def serve(
    toml: str,
    plugins: Mapping[str, type[Any]] | None = None,
    reread: Callable[[], str] | None = None,
) -> AsyncIterator[Served]:
    """Serve a configuration on a free port; with the plugin `recorder` beside those named."""
    recorder = make_recorder()
    catalogue = Catalogue({"recorder": recorder, **(plugins or {})})
    database = make_database("sqlite:///:memory:", Path("/"))
    database.open()
    listener = open_listener("127.0.0.1:0")
    port = listener.getsockname()[1]

    def configure(source: str) -> Config:
        return parse_config(
            source + "\n[plugins.recorder]\n", catalogue, name="<story>", root=Path("/")
        )

    server = Server(configure(toml), database, (lambda: configure(reread())) if reread else None)
    served = Served(server, port, recorder, configure)
    try:
        async with unwrapped(), trio.open_nursery() as nursery:
            await nursery.start(server.run, listener)
            if KeyIssuer in server.generations.current.registry.services:
                issuer = server.generations.current.registry.services[KeyIssuer]
                assert isinstance(issuer, KeyIssuer)
                served.key = (await issuer.create_key("story", "default")).key
            yield served
            nursery.cancel_scope.cancel()
    finally:
        listener.close()  # still ours where the gateway did not start
        database.close()


@dataclass(slots=True)
class Received:
    """A request as an upstream received it."""

    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        for line in self.head.decode().split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return ""

    def json(self) -> Any:
        return json.loads(self.body)


Script = Callable[[trio.SocketStream, Received], Awaitable[None]]


@dataclass(slots=True)
class RawUpstream:
    """An upstream on a socket, whose replies are the bytes that a test says."""

    port: int
    script: Script
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    gone: int = 0
    """Connections that the gateway closed while a reply was being written."""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, stream: trio.SocketStream) -> None:
        buffered = b""
        self.connections += 1
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                received, buffered = await read_request(stream, buffered)
                if received is None:
                    break
                self.requests.append(received)
                try:
                    await self.script(stream, received)
                except trio.BrokenResourceError:
                    self.gone += 1
                    break
        await trio.aclose_forcefully(stream)


async def read_request(stream: trio.SocketStream, buffered: bytes) -> tuple[Received | None, bytes]:
    while b"\r\n\r\n" not in buffered:
        data = await stream.receive_some(65536)
        if not data:
            return None, b""
        buffered += data
    head, _, rest = buffered.partition(b"\r\n\r\n")
    received = Received(head, b"")
    size = int(received.header("content-length") or 0)
    while len(rest) < size:
        data = await stream.receive_some(65536)
        if not data:
            return None, b""
        rest += data
    received.body = rest[:size]
    return received, rest[size:]


@contextlib.asynccontextmanager
async def raw_upstream(script: Script) -> AsyncIterator[RawUpstream]:
    async with unwrapped(), trio.open_nursery() as nursery:
        upstream = RawUpstream(0, script)
        listeners = await nursery.start(trio.serve_tcp, upstream.serve, 0)
        upstream.port = listeners[0].socket.getsockname()[1]
        yield upstream
        nursery.cancel_scope.cancel()


def http_reply(body: bytes, status: int = 200, headers: str = "") -> bytes:
    kind = "" if "content-type" in headers else "content-type: application/json\r\n"
    return (
        f"HTTP/1.1 {status} X\r\n{kind}{headers}content-length: {len(body)}\r\n\r\n".encode() + body
    )


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def replying(data: bytes) -> Script:
    async def script(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(data)

    return script


def streaming(*events: bytes) -> Script:
    """All events, one chunk each, and the end of the body."""

    async def script(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(STREAM_HEAD)
        for event in events:
            await stream.send_all(http_chunk(event))
        await stream.send_all(b"0\r\n\r\n")

    return script


def openai_toml(upstream: RawUpstream, *, plugins: str = "", extra: str = "") -> str:
    """A configuration whose model `m` is served by an upstream on a socket."""
    return f"""
[storage]
url = "sqlite:///:memory:"
[providers.up]
kind = "openai"
base_url = "{upstream.base_url}"
credential = "sk-upstream-secret"
{extra}
[models.m]
deployments = [{{ provider = "up", model = "m" }}]
{plugins}
[plugins.openai]
"""
