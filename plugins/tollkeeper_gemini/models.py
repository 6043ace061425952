"""What Gemini sends: a reply or an event of a stream, read.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse.
"""

from typing import Any

import msgspec

from tollkeeper import UpstreamError, broken


class Called(msgspec.Struct, gc=False):
    """A function call; `args` is the JSON of an object."""

    name: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    id: str = ""


class File(msgspec.Struct):
    """A file that the model made; chat has no place for one."""


class Part(msgspec.Struct, rename="camel", gc=False):
    """A part of a candidate: text, a thought, or a function call."""

    text: str | None = None
    thought: bool = False
    thought_signature: str = ""
    function_call: Called | None = None
    inline_data: File | None = None


class Content(msgspec.Struct, gc=False):
    """What a candidate says; without parts where there was nothing to say."""

    parts: list[Part] = []


class Token(msgspec.Struct, rename="camel", gc=False):
    """A token and the logarithm of its probability."""

    token: str = ""
    log_probability: float = 0.0


class TopTokens(msgspec.Struct):
    """The likeliest tokens at one place."""

    candidates: list[Token] = []


class Logprobs(msgspec.Struct, rename="camel"):
    """The tokens chosen, and the likeliest ones at each place."""

    chosen_candidates: list[Token] = []
    top_candidates: list[TopTokens] = []


class Candidate(msgspec.Struct, rename="camel", gc=False):
    """One answer, or what one event adds to it."""

    content: Content | None = None
    index: int = 0
    finish_reason: str = ""
    finish_message: str = ""
    logprobs_result: Logprobs | None = None


class Feedback(msgspec.Struct, rename="camel"):
    """Why a prompt was blocked, if it was."""

    block_reason: str = ""
    block_reason_message: str = ""


class Response(msgspec.Struct, rename="camel"):
    """A whole reply, or one event of a stream."""

    candidates: list[Candidate] = []
    usage_metadata: msgspec.Raw = msgspec.Raw(b"")
    model_version: str = ""
    response_id: str = ""
    prompt_feedback: Feedback | None = None
    error: Any = None


class UsageMetadata(msgspec.Struct, rename="camel"):
    """Tokens, as Gemini counts them."""

    prompt_token_count: int = 0
    cached_content_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    total_token_count: int = 0


_decode = msgspec.json.Decoder(Response).decode


def read_response(data: bytes) -> Response:
    """A reply or an event. Raises `UpstreamError` for an error, a blocked prompt and nonsense."""
    try:
        response = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _error_in_array(data) or broken(f"not a reply of Gemini: {error}") from None
    if response.error is not None:
        raise _reported(response.error)
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason and not response.candidates:
        raise _blocked(feedback)
    return response


def _error_in_array(data: bytes) -> UpstreamError | None:
    """The error in `[{"error": ...}]`, which Google sends for some failures."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    first = document[0] if isinstance(document, list) and document else None
    error = first.get("error") if isinstance(first, dict) else None
    return None if error is None else _reported(error)


def failed(status: int, code: str, message: str) -> UpstreamError:
    """An error of Gemini's in OpenAI's shape, for the core to map."""
    error = {"message": message, "type": code, "param": None, "code": code}
    body = msgspec.json.encode({"error": error})
    return UpstreamError("status", message, status=status, body=body)


def _reported(error: object) -> UpstreamError:
    told = error if isinstance(error, dict) else {"message": str(error)}
    status = told.get("code")
    if not isinstance(status, int) or not 400 <= status <= 599:
        status = 502
    details = told.get("details")
    if isinstance(details, list) and any(map(_is_bad_key, details)):
        status = 401  # sent as 400, although it is our key and no fault of the client
    code = str(told.get("status") or "server_error")
    return failed(status, code, str(told.get("message") or "Gemini reported an error."))


def _is_bad_key(detail: object) -> bool:
    return isinstance(detail, dict) and detail.get("reason") == "API_KEY_INVALID"


def _blocked(feedback: Feedback) -> UpstreamError:
    message = f"Gemini blocked the prompt: {feedback.block_reason}."
    if feedback.block_reason_message:
        message = f"{message} {feedback.block_reason_message}"
    return failed(400, "content_filter", message)
