"""The API and the pages on a socket."""

import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from quart import Response, redirect, request
from quart_trio import QuartTrio

from tollkeeper.testing.stripe import pages
from tollkeeper.testing.stripe.api import ENDPOINTS, Answer, Api, Asked
from tollkeeper.testing.stripe.endpoints import Endpoint
from tollkeeper.testing.stripe.refusals import Refusal

_HANG_UP = "x-hang-up"
"""Marks a reply that is not to be given."""


def make_app(api: Api) -> QuartTrio:
    """All that is served."""
    app = QuartTrio("tollkeeper.testing.stripe", static_folder=None)

    @app.before_request
    async def note() -> None:
        api.requests.append((request.method, request.path))

    for endpoint in ENDPOINTS:
        app.add_url_rule(
            endpoint.path,
            f"{endpoint.method} {endpoint.path}",
            _view(api, endpoint),
            methods=[endpoint.method],
        )
    _add_pages(app, api)
    app.register_error_handler(404, _unknown)
    app.register_error_handler(405, _unknown)
    return app


def _view(api: Api, endpoint: Endpoint) -> Callable[..., Awaitable[Response]]:
    async def view(**where: str) -> Response:
        is_post = request.method == "POST"
        raw: bytes = await request.body if is_post else request.query_string
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.method, request.path, headers, raw, where)
        return _response(await api.answer(endpoint, asked))

    return view


def _response(answer: Answer) -> Response:
    if not answer.status:
        return Response(b"", 200, {_HANG_UP: "1"})
    response = Response(answer.body, answer.status, dict(answer.headers))
    response.content_type = "application/json"
    response.headers["request-id"] = f"req_{secrets.token_hex(7)}"
    return response


async def _unknown(_error: Exception) -> Response:
    refusal = Refusal(f"Unrecognized request URL ({request.method}: {request.path}).", status=404)
    return _response(Answer(404, json.dumps(refusal.document()).encode()))


def _add_pages(app: QuartTrio, api: Api) -> None:
    @app.get("/pay/<session>")
    async def show_session(session: str) -> Response:
        return _html(pages.pay_page(api, session))

    @app.post("/pay/<session>")
    async def pay(session: str) -> Any:  # noqa: ANN401 -- werkzeug's
        return redirect(pages.pay_session(api, session), 303)

    @app.get("/portal/<portal>")
    async def show_portal(portal: str) -> Response:
        return _html(pages.portal_page(api, portal))

    @app.post("/portal/<portal>/cancel/<subscription>")
    async def cancel(portal: str, subscription: str) -> Any:  # noqa: ANN401 -- werkzeug's
        later = bool(request.args.get("later"))
        return redirect(pages.cancel_plan(api, portal, subscription, later), 303)

    @app.errorhandler(Refusal)
    async def refuse(refusal: Refusal) -> Response:
        return _html(pages.refusal_page(refusal), refusal.status)


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, content_type="text/html; charset=utf-8")


class _Line:
    """The app on a line that goes dead where it says so."""

    def __init__(self, app: QuartTrio) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- ASGI
        dead = False

        async def relay(message: Any) -> None:  # noqa: ANN401 -- ASGI
            nonlocal dead
            if message["type"] == "http.response.start":
                dead = _HANG_UP.encode() in dict(message["headers"])
                if dead:
                    # hypercorn answers 500 for an app that says nothing. After an interim reply,
                    # which clients pass over, it closes the connection instead.
                    await send({"type": "http.response.start", "status": 102, "headers": []})
            if not dead:
                await send(message)

        await self._app(scope, receive, relay)


async def serve(
    api: Api,
    listener: socket.socket,
    task_status: "trio.TaskStatus[list[str]]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on a bound socket, which is closed in the end. `started` means that it answers."""
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    config.graceful_timeout = 0
    line: Any = _Line(make_app(api))
    await hypercorn_serve(line, config, mode="asgi", task_status=task_status)
