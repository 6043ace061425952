"""The Quart app of a plugin set: management routes and pages, beside the operations.

Quart cannot take a rule back, so each plugin set has an app of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec
from pydantic import BaseModel, ValidationError

from tollkeeper.errors import (
    ApiError,
    Failed,
    Refused,
    database_unusable,
    find_api_error,
    invalid_request,
)
from tollkeeper.exchange import new_request_id
from tollkeeper.gateway import Route
from tollkeeper.jsongate import read_object
from tollkeeper.management import OPEN_POLICIES, Authorizer, Caller, Done, Write
from tollkeeper.storage import is_unusable

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

log = logging.getLogger("tollkeeper")

JSON = "application/json"
MAX_BODY = 1024**2
"""Bytes of a request to a management route."""
MAX_SHOWN = 64
"""Characters of a name from a client that are told in an error."""
_WORDS = {
    "extra_forbidden": "there is no such field",
    "missing": "is missing",
    "string_pattern_mismatch": "has a form or characters that it may not have",
}
_CODES = {404: "not_found", 405: "method_not_allowed", 408: "request_timeout"}
_CODES |= {409: "conflict", 413: "request_too_large"}


def build_app(
    routes: Mapping[tuple[str, str], Route], authorizer: Authorizer | None, max_body: int
) -> QuartTrio:
    """An app with these routes, whose every error has the OpenAI shape."""
    from quart_trio import QuartTrio
    from werkzeug.exceptions import HTTPException

    app = QuartTrio("tollkeeper", static_folder=None)
    app.url_map.merge_slashes = False  # or a redirect would go wherever the Host header says
    app.config.update(
        MAX_CONTENT_LENGTH=min(max_body, MAX_BODY), RESPONSE_TIMEOUT=None, BODY_TIMEOUT=None
    )
    app.json.sort_keys = False  # type: ignore[attr-defined] # Quart's default provider has it
    for route in dict.fromkeys(routes.values()):
        name = f"{'+'.join(route.methods)} {route.path}".replace(".", "_")
        app.add_url_rule(
            route.path,
            name,
            _view(route, authorizer),
            methods=list(route.methods),
            provide_automatic_options=False,
        )
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _error)
    app.after_request(_with_request_id)
    return app


def _view(route: Route, authorizer: Authorizer | None) -> Any:  # noqa: ANN401 -- Quart's callable
    async def view(**values: Any) -> Any:  # noqa: ANN401 -- a route returns what Quart takes
        from quart import request

        caller = None
        if not route.policy & OPEN_POLICIES and authorizer is not None:
            headers = _joined(request.headers.items())
            caller = values["caller"] = await authorizer.authorize(headers, route.policy)
        data = cast("bytes", await request.get_data())
        if caller is not None:
            _refuse_undeclared(route, data, request.args)
        if route.query is not None:
            values["query"] = _checked_query(route.query, request.args.to_dict(flat=False))
        if route.body is not None:
            values["body"] = _checked(route.body, read_object(data or b"{}"))
        if caller is None or authorizer is None or request.method in ("GET", "HEAD"):
            return _shaped(_plain(await route.handler(**values)))
        return await _write(authorizer, caller, data, lambda: route.handler(**values))

    return view


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their names in lower case; one that stands twice is neither of the two."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def _refuse_undeclared(route: Route, data: bytes, query: Mapping[str, str]) -> None:
    """A field that nobody declared is a mistake, also where there are no fields at all."""
    if route.query is None and query:
        name = next(iter(query))
        raise invalid_request(f"{name}: this takes no query", param=name)
    if route.body is None and data.strip() not in (b"", b"{}"):
        raise invalid_request("This takes no body.")


async def _write(
    authorizer: Authorizer, caller: Caller, data: bytes, act: Callable[[], Awaitable[Any]]
) -> Response:
    """Run a handler as a write of its caller's: once under an idempotency key, and noted."""
    from quart import Response, request

    async def done() -> Done:
        try:
            return Done(200, msgspec.json.encode(_plain(await act())))
        except ApiError as error:
            return Done(error.status, error.body(), error.headers)

    key = request.headers.get("idempotency-key", "")
    if not key and "idempotency-key" in request.headers:
        raise invalid_request("Idempotency-Key: empty", param="Idempotency-Key")
    write = Write(caller, request.method, request.full_path.rstrip("?"), data, key)
    result = await authorizer.write(write, done)
    return Response(result.body, result.status, dict(result.headers), content_type=JSON)


def _shaped(result: Any) -> Any:  # noqa: ANN401 -- whatever a handler returns
    from quart import Response

    if isinstance(result, dict):
        return Response(msgspec.json.encode(result), content_type=JSON)
    return result


def _plain(result: Any) -> Any:  # noqa: ANN401 -- whatever a handler returns
    return result.model_dump(mode="json") if isinstance(result, BaseModel) else result


def _checked(model: type[BaseModel], document: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate_json(msgspec.json.encode(document))
    except ValidationError as error:
        raise _refusal_of(error, "body") from None


def _checked_query(model: type[BaseModel], given: Mapping[str, list[str]]) -> BaseModel:
    """The query as a model: each name once, numbers read as such."""
    twice = next((name for name, values in given.items() if len(values) > 1), None)
    if twice is not None:
        raise invalid_request(f"{twice}: given twice", param=twice)
    try:
        return model.model_validate_strings({name: values[0] for name, values in given.items()})
    except ValidationError as error:
        raise _refusal_of(error, "query") from None


def _refusal_of(error: ValidationError, part: str) -> Refused:
    """What is wrong first, in words that are not about patterns."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))[:MAX_SHOWN] or None
    told = _WORDS.get(first["type"], first["msg"])
    return invalid_request(f"{place or part}: {told}", param=place)


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
    if is_unusable(error):
        return _shown(database_unusable())
    return _shown(Failed(500, "server_error", "The gateway failed to handle this request."))


def _shown(error: ApiError) -> Response:
    from quart import Response, request

    headers = {**error.headers, "x-request-id": new_request_id()}
    where = f"{request.method} {request.path}"
    log.info("%s %s -> %d %s", headers["x-request-id"], where, error.status, error.message)
    return Response(error.body(), error.status, headers, content_type=JSON)


async def _with_request_id(response: Response) -> Response:
    response.headers.setdefault("x-request-id", new_request_id())
    if response.mimetype == JSON:
        response.headers.setdefault("cache-control", "no-store")  # it may hold a secret
    return response
