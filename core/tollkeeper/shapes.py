"""What operations take and answer, as JSON Schema: for the API reference and for tests.

Only what the gateway relies on is told; everything else passes through and is the provider's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JsonSchema = Mapping[str, Any]

STRING: JsonSchema = {"type": "string"}
NAME: JsonSchema = {"type": "string", "minLength": 1}
INTEGER: JsonSchema = {"type": "integer"}
BOOLEAN: JsonSchema = {"type": "boolean"}
OBJECT: JsonSchema = {"type": "object"}
NULL: JsonSchema = {"type": "null"}
COUNT: JsonSchema = {"type": "integer", "minimum": 0}


def obj(required: str = "", **properties: JsonSchema) -> JsonSchema:
    """An object with these properties and whatever else; `required` names some, with spaces."""
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = required.split()
    return schema


def array(items: JsonSchema, **more: Any) -> JsonSchema:  # noqa: ANN401 -- JSON Schema's
    """An array of such items."""
    return {"type": "array", "items": items, **more}


def nullable(schema: JsonSchema) -> JsonSchema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def one_of(*values: str) -> JsonSchema:
    """One of these texts."""
    return {"type": "string", "enum": list(values)}


ERROR = obj(
    "error",
    error=obj(
        "message type param code",
        message=STRING,
        type=STRING,
        param=nullable(STRING),
        code=STRING,
    ),
)
"""Every error of the gateway, but where a dialect has a shape of its own."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one operation takes and answers."""

    reply: JsonSchema
    """Of a whole reply."""
    request: JsonSchema | None = None
    """Of the body; None for a request without one."""
    streams: bool = False
    """Whether the reply is a stream of events where the request asks for it."""
    request_type: str = "application/json"
    """Of the body."""
    reply_type: str = "application/json"
    """Of a whole reply."""
    error: JsonSchema | None = None
    """Of an error, where it is not `ERROR`."""
