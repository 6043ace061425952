"""Where requests enter: operations go straight to dispatch, everything else to the Quart app.

Both count as live in the generation that is current when they begin, so that a switch of plugin
sets cuts neither.
"""

import json
import logging
import time
from typing import Any

import trio

from tollkeeper._server.connection import Connection
from tollkeeper._server.delivery import ClientGone
from tollkeeper._server.dispatch import handle
from tollkeeper._server.generation import Generation
from tollkeeper._server.generations import Generations
from tollkeeper._server.incoming import Incoming
from tollkeeper.errors import Failed, Refused, find_error, invalid_request
from tollkeeper.exchange import Exchange, Head, Operation

log = logging.getLogger("tollkeeper")
access_log = logging.getLogger("tollkeeper.access")


class Front:
    """Takes every request of every connection."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    async def handle(self, request: Incoming, connection: Connection) -> None:
        """Answer one request in the generation that is current now."""
        generation = self._generations.current
        generation.enter()
        try:
            found = generation.find_operation(request.method, request.path)
            if not request.raw_path.startswith(b"/"):
                await connection.send_error(invalid_request("The request target is no path."))
            elif found is not None:
                await self._operation(request, connection, generation, *found)
            elif allowed := generation.methods_of(request.path):
                await connection.send_error(wrong_method(request.method, allowed))
            else:
                await _page(request, connection, generation)
        except ClientGone:
            request.keep_alive = False
        finally:
            generation.leave()

    async def _operation(
        self,
        request: Incoming,
        connection: Connection,
        generation: Generation,
        operation: Operation,
        path_value: str,
    ) -> None:
        exchange = Exchange(
            operation=operation,
            path_value=path_value,
            headers=request.headers,
            client=connection.client,
            arrived=trio.current_time(),
        )
        connection.exchange = exchange
        try:
            await handle(exchange, connection, generation)
        finally:
            connection.exchange = None
            if exchange.outcome is None or exchange.outcome.kind in ("gone", "stopped"):
                request.keep_alive = False
            if generation.config.server.access_log:
                access_log.info(access_line(exchange, request))


def wrong_method(method: str, allowed: list[str]) -> Refused:
    """The refusal of a method that an operation's path does not have."""
    methods = ", ".join(allowed)
    message = f"{method} is not allowed here, but {methods}."
    return Refused(405, "method_not_allowed", message, headers={"allow": methods})


def access_line(exchange: Exchange, request: Incoming) -> str:
    """One JSON object on one line; never a secret, never a prompt."""
    outcome, deployment = exchange.outcome, exchange.deployment
    usage = next((a.usage for a in reversed(exchange.attempts) if a.usage), None)
    line: dict[str, Any] = {
        "ts": round(time.time(), 3),
        "request_id": exchange.id,
        "client": exchange.client,
        "method": request.method,
        "path": request.path,
        "status": outcome.status if outcome else 0,
        "outcome": outcome.kind if outcome else "unknown",
        "error": outcome.error.code if outcome and outcome.error else None,
        "duration_s": round(trio.current_time() - exchange.arrived, 6),
        "org": exchange.principal.org,
        "key": exchange.principal.key,
        "model": exchange.model or None,
        "deployment": deployment.name if deployment else None,
        "attempts": len(exchange.attempts),
        "stream": exchange.stream,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
    }
    return json.dumps(line)


async def _page(request: Incoming, connection: Connection, generation: Generation) -> None:
    """Hand a request to the generation's Quart app, by way of ASGI."""
    app = generation.app or await generation.pages()
    has_page = app.url_map.bind("").test(request.path, request.method)
    try:
        # What nobody serves is not worth reading: Quart says 404 or 405 without it.
        body = await connection.read_body() if has_page else b""
    except Refused as refusal:
        await connection.send_error(refusal)
        return
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.version,
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query,
        "root_path": "",
        "headers": request.raw_headers,
        "client": (connection.client, 0),
        "server": None,
        "extensions": {},
        "state": {},
    }
    send = _Send(connection, request.method)
    try:
        await app(scope, _Receive(body), send)  # type: ignore[arg-type]
        if generation.config.server.access_log:
            access_log.info(page_line(request, connection, send.status))
    except Exception as error:
        if (gone := find_error(error, ClientGone)) is not None:
            raise gone from None
        if send.begun:
            raise
        log.exception("a page crashed before its reply began")
        message = "The gateway failed to handle this request."
        await connection.send_error(Failed(500, "server_error", message))


def page_line(request: Incoming, connection: Connection, status: int) -> str:
    """One JSON object on one line, for a request that is no operation."""
    line = {
        "ts": round(time.time(), 3),
        "client": connection.client,
        "method": request.method,
        "path": request.path,
        "status": status,
    }
    return json.dumps(line)


class _Receive:
    """ASGI's receive: the body once, then nothing; a client that leaves cancels the handler."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __call__(self) -> dict[str, Any]:
        if self._body is None:
            await trio.sleep_forever()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Send:
    """ASGI's send, onto the connection's wire. One write where the length is known beforehand."""

    def __init__(self, connection: Connection, method: str) -> None:
        self._connection = connection
        self._is_head = method == "HEAD"
        self._head = Head(500, {})
        self._whole: list[bytes] | None = None
        self.begun = False
        """Whether bytes of the reply may have gone out."""

    @property
    def status(self) -> int:
        """Of the reply."""
        return self._head.status

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in message["headers"]
            }
            bodyless = self._is_head or message["status"] in (204, 304)
            known = headers.pop("content-length", None) is not None
            self._whole = [] if known or bodyless else None
            self._head = Head(message["status"], headers)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        begun, self.begun = self.begun, self._whole is None or not more
        if self._whole is not None:
            self._whole.append(body)
            if not more:
                await self._connection.send(self._head, b"".join(self._whole))
        elif not begun:
            await self._connection.begin(self._head, body)
            if not more:
                await self._connection.end(b"")
        else:
            await (self._connection.write(body) if more else self._connection.end(body))
