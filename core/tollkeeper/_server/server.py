"""The running gateway: sockets, hypercorn's worker around our connections, signals, shutdown."""

import contextlib
import dataclasses
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import hypercorn.trio.run
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve as hypercorn_serve

from tollkeeper._server.channel import SocketChannel
from tollkeeper._server.connection import Connection
from tollkeeper._server.front import Front
from tollkeeper._server.generation import Shared
from tollkeeper._server.generations import Generations
from tollkeeper._server.heads import encode_head
from tollkeeper._server.loading import find_all_problems
from tollkeeper._server.process import (
    BACKLOG,
    address_of,
    peer_of,
    raise_descriptor_limit,
    tune_garbage_collection,
)
from tollkeeper._server.rounds import Rounds
from tollkeeper.config import Config
from tollkeeper.errors import ConfigError, Failed, Problem
from tollkeeper.exchange import new_request_id
from tollkeeper.settings import ServerSettings
from tollkeeper.storage import Database

log = logging.getLogger("tollkeeper")

LONG_STEP = 0.05
# The name that hypercorn's worker looks up for each connection; it exports it by use only.
_WORKER: Any = hypercorn.trio.run
_HypercornServer = _WORKER.TCPServer

ReadConfig = Callable[[], Config]


class Server:
    """One gateway process. `run` serves until `stop`."""

    def __init__(
        self, config: Config, database: Database, reread: ReadConfig | None = None
    ) -> None:
        self.config = config
        self.shared = Shared(database)
        self.address = ""
        """`http://host:port`, once it listens."""
        self.generations: Generations
        self._reread = reread
        self.over = trio.Event()
        """Set once everything is settled and closed."""
        self.exit_code = 0
        self.long_steps = 0
        """How often the event loop was kept busy for longer than `LONG_STEP`."""
        self._stop = trio.Event()
        self._reloading = trio.CancelScope()
        self.connections: Rounds[Connection] = Rounds()

    async def run(
        self,
        listener: socket.socket,
        task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on a bound socket. `started` means that the address answers."""
        tune_garbage_collection()
        raise_descriptor_limit()
        try:
            async with trio.open_nursery() as outer, self.shared.database.announcer.listening():
                self.generations = Generations(outer, self.shared, self._on_guard_crash)
                await self.switch(self.config)
                outer.start_soon(self.connections.run)
                outer.start_soon(self._watch_loop)
                outer.start_soon(self.shared.pool.run)
                self.address = address_of(listener)
                served = trio.Event()
                await outer.start(self._serve_until_stopped, served, listener)
                task_status.started()
                await self.generations.current.pages()
                await served.wait()
                outer.cancel_scope.cancel()
        finally:
            await self.shared.pool.aclose()
            self.over.set()

    async def _serve_until_stopped(
        self, served: trio.Event, listener: socket.socket, task_status: "trio.TaskStatus[Any]"
    ) -> None:
        config = HypercornConfig()
        config.bind = [f"fd://{listener.detach()}"]
        config.graceful_timeout = self.config.server.grace
        config.backlog = BACKLOG
        config.errorlog = None
        _WORKER.TCPServer = _serve_connection
        try:
            await hypercorn_serve(
                _App(self), config, shutdown_trigger=self._stop.wait, task_status=task_status
            )
        finally:
            served.set()

    def stop(self, code: int = 0) -> None:
        """Stop accepting, let running exchanges end within the grace, then return from `run`."""
        self.exit_code = max(self.exit_code, code)
        self.shared.health.draining = True
        self._stop.set()
        self._reloading.cancel()
        for connection in self.connections:
            connection.draining = True
            self.connections.plan(connection, 0.0)

    def _on_guard_crash(self) -> None:
        log.critical("a guard's own task crashed: the gateway drains and stops")
        self.stop(1)

    async def switch(self, config: Config) -> None:
        """Switch to another configuration; raises and keeps the old one if it cannot be used."""
        generation = await self.generations.switch(config)
        for warning in generation.warnings:
            log.warning("%s", warning)

    async def reload(self) -> bool:
        """Read the configuration again and switch to it. Logs why where it cannot."""
        if self._reread is None:
            log.warning("there is no configuration file to read again")
            return False
        try:
            config = self._reread()
            bound = config.server.model_copy(update={"bind": self.config.server.bind})
            await self.switch(dataclasses.replace(config, server=bound))
        except ConfigError as error:
            log.error("the configuration was not changed:")
            for problem in find_all_problems(error, self.shared).problems:
                log.error("  %s", problem)
            return False
        except Exception:
            log.exception("the configuration was not changed: a plugin failed to start")
            return False
        for problem in needs_restart(self.config, config):
            log.warning("%s", problem)
        log.info("the configuration was read again and is in force")
        return True

    async def watch_signals(
        self, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        """SIGTERM and SIGINT stop, the second one at once; SIGHUP reads the TOML again."""
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        send, receive = trio.open_memory_channel[None](1)
        with trio.open_signal_receiver(*wanted) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reload_on, receive)
                task_status.started()
                async for received in signals:
                    if received == signal.SIGHUP:
                        with contextlib.suppress(trio.WouldBlock):
                            send.send_nowait(None)
                    elif self._stop.is_set():
                        for connection in self.connections:
                            connection.cut_off()
                    else:
                        self.stop()

    async def _reload_on(self, requests: "trio.MemoryReceiveChannel[None]") -> None:
        with self._reloading:
            async for _ in requests:
                await self.reload()

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        """One client, from accept to close."""
        settings = self.generations.current.config.server
        if len(self.connections) >= settings.max_connections:
            await _turn_away(stream, settings)
            return
        channel = SocketChannel(stream.socket)
        connection = Connection(channel, peer_of(stream), settings, Front(self.generations).handle)
        connection.draining = self._stop.is_set()
        self.connections.plan(connection, 0.0)
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)

    async def _watch_loop(self) -> None:
        """Count and log when the event loop is held up: nothing else runs meanwhile."""
        while True:
            asleep = trio.current_time()
            await trio.sleep(LONG_STEP)
            late = trio.current_time() - asleep - LONG_STEP
            if late > LONG_STEP:
                self.long_steps += 1
                log.warning("the event loop was busy for %d ms without a pause", late * 1000)


async def _turn_away(stream: trio.SocketStream, settings: ServerSettings) -> None:
    body = Failed(503, "server_error", "The gateway has too many connections.").body()
    request_id = new_request_id()
    log.warning("%s a client was turned away: max_connections is reached", request_id)
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    headers |= {"connection": "close", "retry-after": "1", "x-request-id": request_id}
    with trio.move_on_after(settings.write_timeout):
        try:
            await stream.send_all(encode_head(503, headers) + body)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client that was turned away left first")
    await trio.aclose_forcefully(stream)


class _App:
    """What hypercorn serves. It only ever sees the lifespan: connections are ours."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- ASGI
        if scope["type"] != "lifespan":
            raise RuntimeError("a request reached hypercorn's own protocol")
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})


async def _serve_connection(
    app: Any,  # noqa: ANN401 -- hypercorn's wrapper
    config: HypercornConfig,
    context: Any,  # noqa: ANN401 -- hypercorn's
    state: Any,  # noqa: ANN401 -- hypercorn's
    stream: Any,  # noqa: ANN401 -- a trio stream
) -> None:
    """Stands in for hypercorn's TCPServer; other apps in this process keep theirs."""
    if isinstance(app.app, _App):
        await app.app.server.serve_connection(stream)
    else:
        await _HypercornServer(app, config, context, state, stream)


def needs_restart(old: Config, new: Config) -> list[Problem]:
    """Settings that are read at start only and differ now."""
    fixed = {
        "bind": old.server.bind != new.server.bind,
        "grace": old.server.grace != new.server.grace,
    }
    problems = [
        new.source.problem(("server", key), f"server.{key} changes with the next start only")
        for key, changed in fixed.items()
        if changed
    ]
    if old.storage != new.storage:
        message = "storage.url changes with the next start only"
        problems.append(new.source.problem(("storage", "url"), message))
    return problems
