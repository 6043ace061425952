"""What goes wrong at providers, as each of them tells it, and what clients are told of it."""

import json
from dataclasses import dataclass
from typing import Any

from anthropic.types import ErrorResponse
from openai.types import ErrorObject
from openai.types.responses import ResponseErrorEvent

from compatibility.requests import Json
from tollkeeper.testing import Answered


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a client gets it: HTTP status, OpenAI's code, Anthropic's type."""

    status: int
    code: str
    kind: str
    keeps: str = ""
    """What is kept of the provider's own text."""


BROKEN = Told(502, "server_error", "api_error")
OVERLOADED = Told(503, "server_error", "overloaded_error")
FAULTS = {
    "credential": BROKEN,
    "rate limit": Told(429, "rate_limit", "rate_limit_error"),
    "context": Told(400, "context_length_exceeded", "invalid_request_error", "tokens"),
    "filter": Told(400, "content_filter", "invalid_request_error"),
    "overloaded": OVERLOADED,
}
"""What is wrong, and what every client is told of it in its dialect."""


def _openai(kind: str, code: str | None, message: str) -> Json:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _anthropic(kind: str, message: str) -> Json:
    error = {"type": "error", "error": {"type": kind, "message": message}}
    return {**error, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def _gemini(code: int, status: str, message: str, **more: Any) -> Json:
    return {"error": {"code": code, "message": message, "status": status, **more}}


_BAD_KEY = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
}

REPORTED: dict[str, dict[str, tuple[int, Any]]] = {
    "openai": {
        "credential": (
            401,
            _openai("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
        ),
        "rate limit": (
            429,
            _openai("tokens", "rate_limit_exceeded", "Rate limit reached for gpt-5.1."),
        ),
        "context": (
            400,
            _openai(
                "invalid_request_error",
                "context_length_exceeded",
                "Your input exceeds the context window of this model: 400001 tokens.",
            ),
        ),
        "filter": (
            400,
            _openai(
                "invalid_request_error",
                "invalid_prompt",
                "Invalid prompt: your prompt was flagged as violating our usage policy.",
            ),
        ),
        "overloaded": (503, _openai("server_error", "server_is_overloaded", "Overloaded.")),
    },
    "anthropic": {
        "credential": (401, _anthropic("authentication_error", "invalid x-api-key")),
        "rate limit": (429, _anthropic("rate_limit_error", "This request would exceed...")),
        "context": (
            400,
            _anthropic(
                "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"
            ),
        ),
        "filter": (
            400,
            _anthropic("invalid_request_error", "Output blocked by content filtering policy"),
        ),
        "overloaded": (529, _anthropic("overloaded_error", "Overloaded")),
    },
    "gemini": {
        "credential": (
            400,
            _gemini(400, "INVALID_ARGUMENT", "API key not valid.", details=[_BAD_KEY]),
        ),
        "rate limit": (
            429,
            [_gemini(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.")],
        ),
        "context": (
            400,
            _gemini(
                400,
                "INVALID_ARGUMENT",
                "The input token count (1200000) exceeds the maximum number of tokens allowed"
                " (1048576).",
            ),
        ),
        "filter": (
            200,
            {
                "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
                "usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8},
                "modelVersion": "gemini-3-pro-preview",
            },
        ),
        "overloaded": (503, _gemini(503, "UNAVAILABLE", "The model is overloaded.")),
    },
}
"""Status and body by provider and fault."""

WITHIN: dict[str, Json] = {
    "openai_chat": _openai("server_error", None, "The server had an error."),
    "openai_responses": {
        "type": "error",
        "code": "server_error",
        "message": "The server had an error.",
        "param": None,
        "sequence_number": 9,
    },
    "anthropic_messages": _anthropic("overloaded_error", "Overloaded"),
    "gemini": _gemini(503, "UNAVAILABLE", "The model is overloaded."),
}
"""The event of an error inside a stream, by dialect."""

TOLD_WITHIN = {
    "openai_chat": BROKEN,
    "openai_responses": BROKEN,
    "anthropic_messages": OVERLOADED,
    "gemini": OVERLOADED,
}
"""What clients are told of that event."""

TERMINAL = {"openai_chat": 3, "openai_responses": 1, "anthropic_messages": 1, "gemini": 1}
"""How many events at the end of a stream say that it is over."""


def check_error(dialect: str, told: Told, got: Answered) -> None:
    """An error in place of a reply, in the client's own dialect."""
    assert got.status == told.status, got.body
    assert got.headers["content-type"] == "application/json"
    if dialect == "messages":
        assert got.headers["request-id"] == got.headers["x-request-id"]
    message = _message(dialect, got.body, told)
    assert told.keeps in message


def _message(dialect: str, data: bytes, told: Told) -> str:
    if dialect == "messages":
        reply = ErrorResponse.model_validate_json(data, strict=True)
        assert reply.error.type == told.kind
        return reply.error.message
    error = ErrorObject.model_validate(json.loads(data)["error"], strict=True)
    assert error.code == told.code
    return error.message


def check_error_within(dialect: str, told: Told, got: Answered) -> None:
    """A stream that ends in an error of the client's dialect, and tells of no clean end."""
    assert got.status == 200
    if dialect == "chat":
        *_, error, done, rest = got.body.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        _message(dialect, error.removeprefix(b"data: "), told)
        return
    *_, last, rest = got.body.split(b"\n\n")
    assert rest == b""
    assert b"event: message_stop" not in got.body
    assert b"event: response.completed" not in got.body
    name, _, data = last.partition(b"\ndata: ")
    assert name == b"event: error"
    if dialect == "messages":
        _message(dialect, data, told)
    else:
        event = ResponseErrorEvent.model_validate_json(data, strict=True)
        assert event.code == told.code
