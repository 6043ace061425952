"""The Quart app of a plugin set: management routes and pages, beside the operations.

Quart cannot take a rule back, so each plugin set has an app of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from tollkeeper.errors import ApiError, Failed, Refused, find_api_error, invalid_request
from tollkeeper.exchange import new_request_id
from tollkeeper.gateway import OPEN_POLICIES, Authorizer, Route

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

log = logging.getLogger("tollkeeper")

_CODES = {404: "not_found", 405: "method_not_allowed", 408: "request_timeout"}
_CODES |= {409: "conflict", 413: "request_too_large"}


def build_app(
    routes: Mapping[tuple[str, str], Route], authorizer: Authorizer | None, max_body: int
) -> QuartTrio:
    """An app with these routes, whose every error has the OpenAI shape."""
    from quart_trio import QuartTrio
    from werkzeug.exceptions import HTTPException

    app = QuartTrio("tollkeeper", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=max_body, RESPONSE_TIMEOUT=None, BODY_TIMEOUT=None)
    app.json.sort_keys = False  # type: ignore[attr-defined] # Quart's default provider has it
    for route in dict.fromkeys(routes.values()):
        name = f"{'+'.join(route.methods)} {route.path}".replace(".", "_")
        app.add_url_rule(route.path, name, _view(route, authorizer), methods=list(route.methods))
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _error)
    app.after_request(_with_request_id)
    return app


def _view(route: Route, authorizer: Authorizer | None) -> Any:  # noqa: ANN401 -- Quart's callable
    async def view(**values: Any) -> Any:  # noqa: ANN401 -- a route returns what Quart takes
        from quart import request

        if not route.policy & OPEN_POLICIES and authorizer is not None:
            headers = {name.lower(): value for name, value in request.headers.items()}
            await authorizer.authorize(headers, route.policy)
        if route.body is not None:
            values["body"] = _checked(route.body, await request.get_data())
        result = await route.handler(**values)
        return result.model_dump(mode="json") if isinstance(result, BaseModel) else result

    return view


def _checked(model: type[BaseModel], data: bytes | str) -> BaseModel:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or None
        raise invalid_request(f"{place or 'body'}: {first['msg']}", param=place) from None


async def _http_error(error: Any) -> Response:  # noqa: ANN401 -- werkzeug's
    status = int(error.code or 500)
    if status >= 500:
        return _shown(Failed(status, "server_error", "The gateway failed to handle this request."))
    code = _CODES.get(status, "invalid_request")
    description = "There is nothing at this path." if status == 404 else error.description
    headers = {n: v for n, v in error.get_headers() if n.lower() == "allow"}
    return _shown(Refused(status, code, str(description or error.name), headers=headers))


async def _error(error: Exception) -> Response:
    if (found := find_api_error(error)) is not None:
        return _shown(found)
    log.error("a management route crashed", exc_info=error)
    return _shown(Failed(500, "server_error", "The gateway failed to handle this request."))


def _shown(error: ApiError) -> Response:
    from quart import Response, request

    headers = {**error.headers, "x-request-id": new_request_id()}
    where = f"{request.method} {request.path}"
    log.info("%s %s -> %d %s", headers["x-request-id"], where, error.status, error.message)
    return Response(error.body(), error.status, headers, content_type="application/json")


async def _with_request_id(response: Response) -> Response:
    response.headers.setdefault("x-request-id", new_request_id())
    return response
