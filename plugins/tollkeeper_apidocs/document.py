"""The OpenAPI document of a running gateway, from what its plugins registered. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from tollkeeper import Operation
from tollkeeper.gateway import Route
from tollkeeper.management import OPEN_POLICIES
from tollkeeper.shapes import ERROR

Json = dict[str, Any]

KEY, LOGIN = "key", "login"
"""Names of the two kinds of credential."""
ERRORS = {
    "400": "The request is wrong; the message says what.",
    "401": "The credential is missing, unknown or over.",
    "403": "The caller may not do this.",
    "404": "There is no such thing, or it is another organization's.",
    "405": "The path has another method.",
    "408": "The request did not arrive in time.",
    "409": "It contradicts what is there.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "429": "A limit or a budget is reached; `retry-after` says until when.",
    "500": "The gateway failed.",
    "502": "The provider failed.",
    "503": "The gateway cannot serve now.",
    "504": "The provider did not answer in time.",
}
OF_OPERATIONS = ("400", "401", "403", "404", "408", "413", "415", "429", "500", "502", "503", "504")
STATUS_OF = {"conflict": "409", "not_found": "404", "rate_limit": "429", "auth_error": "403"}
_VALUE = re.compile(r"<(?:(\w+):)?(\w+)>")
_REF = "#/components/schemas/{model}"
HTML = "text/html"


def openapi(
    operations: Iterable[Operation], routes: Iterable[Route], version: str, *, keys: bool
) -> Json:
    """The document, OpenAPI 3.1. `keys` is whether operations ask for a key."""
    schemas: Json = {"Error": ERROR}
    paths: dict[str, Json] = {}
    for operation in operations:
        told = _operation(operation, keys=keys)
        paths.setdefault(operation.path, {})[operation.method.lower()] = told
    for route in routes:
        path = _VALUE.sub(r"{\2}", route.path)
        for method in route.methods:
            paths.setdefault(path, {})[method.lower()] = _route(route, method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tollkeeper",
            "version": version,
            "description": "OpenAI-compatible endpoints below `/v1`, by a key; the management"
            " of organizations and keys below `/api`, by logging in.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                KEY: {"type": "http", "scheme": "bearer", "description": "A virtual key, `tk-...`"},
                LOGIN: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The access token that logging in answers",
                },
            },
        },
    }


def _content(schema: Mapping[str, Any], kind: str = "application/json") -> Json:
    return {kind: {"schema": schema}}


def _error(status: str, schema: Mapping[str, Any] | None = None) -> Json:
    shown = schema or {"$ref": "#/components/schemas/Error"}
    return {"description": ERRORS[status], "content": _content(shown)}


def _operation(operation: Operation, *, keys: bool) -> Json:
    shape = operation.shape
    content: Json = {}
    error = None if shape is None else shape.error
    if shape is not None:
        content = _content(shape.reply, shape.reply_type)
        if shape.streams:
            content |= _content({}, "text/event-stream")
    told: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": ["gateway"],
        "security": [{KEY: []}] if keys else [],
        "responses": {"200": {"description": "The reply.", "content": content}}
        | {status: _error(status, error) for status in OF_OPERATIONS},
    }
    if name := re.search(r"{(\w+)}", operation.path):
        told["parameters"] = [_path_value(name[1])]
    if shape is not None and shape.request is not None:
        body = _content(shape.request, shape.request_type)
        told["requestBody"] = {"required": True, "content": body}
    return told


def _path_value(name: str, kind: str = "string") -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": kind}}


def _route(route: Route, method: str, schemas: Json) -> Json:
    writes = method not in ("GET", "HEAD")
    is_open = bool(route.policy & OPEN_POLICIES)
    values = _VALUE.findall(route.path)
    told: Json = {
        "operationId": f"{method.lower()}{re.sub(r'[^a-zA-Z0-9]+', '_', route.path)}",
        "summary": route.summary,
        "tags": [route.plugin],
        "security": [] if is_open else [{LOGIN: []}],
        "parameters": [
            *(_path_value(name, "integer" if kind == "int" else "string") for kind, name in values),
            *_query(route.query, schemas),
            *([] if is_open else _headers(writes=writes)),
        ],
        "responses": {"200": {"description": "Done.", "content": _reply(route, schemas)}},
    }
    if not is_open:
        told["description"] = "For " + ", ".join(sorted(route.policy)) + "."
    if route.body is not None:
        told["requestBody"] = {"required": True, "content": _content(_ref(route.body, schemas))}
    for status in _statuses(route, writes=writes):
        told["responses"][status] = _error(status)
    return told


def _reply(route: Route, schemas: Json) -> Json:
    if route.reply is not None:
        return _content(_ref(route.reply, schemas))
    return _content({"type": "object"}) if route.plugin != "apidocs" else _content({}, "*/*")


def _statuses(route: Route, *, writes: bool) -> list[str]:
    found = {"500", "503", *(STATUS_OF[code] for code in route.errors)}
    is_open = bool(route.policy & OPEN_POLICIES)
    if "auth_error" in route.errors:
        found |= {"401", "403"}
    if route.body is not None or route.query is not None or writes:
        found |= {"400", "408", "413", "415"}
    if not is_open:
        found |= {"400", "401", "403", "404", *(["409"] if writes else [])}
    if "<" in route.path:
        found.add("404")
    return sorted(found)


def _headers(*, writes: bool) -> list[Json]:
    text = {"type": "string", "pattern": "^[!-~]+$", "maxLength": 200}
    org = {"name": "x-org-id", "in": "header", "description": "Which organization is meant."}
    once = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same answer for the same request, for 24 hours.",
    }
    return [{**header, "schema": text} for header in ([org, once] if writes else [org])]


def _query(model: type[BaseModel] | None, schemas: Json) -> list[Json]:
    if model is None:
        return []
    schema = model.model_json_schema(ref_template=_REF)
    schemas.update(schema.get("$defs", {}))
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": told}
        for name, told in schema["properties"].items()
    ]


def _ref(model: type[BaseModel], schemas: Json) -> Json:
    """A reference to a model, which is put among the schemas with all that it is made of."""
    schema = _renamed(model.model_json_schema(ref_template=_REF))
    schemas.update({_name(name): inner for name, inner in schema.pop("$defs", {}).items()})
    schemas[_name(model.__name__)] = schema
    return {"$ref": _REF.format(model=_name(model.__name__))}


def _name(model: str) -> str:
    """What a component may be called: `Listed[Key]` is `Listed_Key`."""
    return re.sub(r"\W+", "_", model).strip("_")


def _renamed(schema: Any) -> Any:  # noqa: ANN401 -- JSON
    """The same with references by such names."""
    if isinstance(schema, list):
        return [_renamed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _renamed(value) for key, value in schema.items()}
    if isinstance(ref := found.get("$ref"), str):
        found["$ref"] = _REF.format(model=_name(ref.rpartition("/")[2]))
    return found
