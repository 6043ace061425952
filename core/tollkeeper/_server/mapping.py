"""From what went wrong upstream to what the client is told. Pure functions.

An upstream's error is never passed through: its status says whose fault it was, and its text is
kept only where the client can act on it. The signals are those that OpenAI and its like send.
"""

import msgspec

from tollkeeper.errors import ApiError, Failed, Refused, UpstreamError

MAX_MESSAGE = 2000

_CONTEXT_CODES = frozenset({"context_length_exceeded"})
_CONTEXT_TYPES = frozenset({"exceed_context_size_error"})
_CONTEXT_PHRASES = (
    "this model's maximum context length is",
    "exceed context limit",
    "is longer than the model's context length",
    "input tokens exceed the configured limit",
    "model's maximum context limit",
    "requested token count exceeds the model's maximum context length",
    "exceeds the available context size",
    "exceeds the maximum number of tokens allowed",
    "prompt is too long:",
    "input is too long",
    "request too large for model",
    "`inputs` tokens + `max_new_tokens` must be",
)
_CONTEXT_PAIRS = (
    ("current length is", "while limit is"),
    ("maximum input length is", "tokens"),
    ("input too long:", "input tokens, limit is"),
)
_NOT_CONTEXT = ("string_above_max_length", "string too long")
_FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "cyber_policy", "responsibleaipolicyviolation"}
)
_FILTER_PHRASES = (
    "violating our usage policy",
    "request was rejected as a result of the safety system",
    "our safety system",
    "content filtering policy",
)
_TIMEOUT_STATUSES = frozenset({408, 504})
_OPERATOR_STATUSES = frozenset({401, 402, 403})
_QUOTA_CODES = frozenset({"insufficient_quota", "credit_balance_exhausted"})
_OTHER_STATUS_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "request_too_large",
}


def read_error(body: bytes) -> dict[str, object]:
    """The upstream's error object; a bare string becomes its message, anything else is empty."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(document, list) and document:
        document = document[0]  # some wrap their one error in an array
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def map_upstream_error(error: UpstreamError, secret: str = "") -> ApiError:
    """The answer to the client. `secret` is our credential, blotted out should it be echoed."""
    if error.fault == "timeout":
        return Failed(504, "timeout", "The provider did not answer in time.")
    if error.fault != "status":
        return Failed(
            502, "server_error", "The provider could not be reached or broke off its reply."
        )
    # Blotted out once decoded, for JSON can write the same text in many ways.
    details = {key: _blotted(value, secret) for key, value in read_error(error.body).items()}
    message = str(_blotted(str(details.get("message") or ""), secret))[:MAX_MESSAGE]
    refusal = _by_signal(error.status, details, message) if error.status < 500 else None
    return refusal or _by_status(error, details, message)


def _blotted(value: object, secret: str) -> object:
    return value.replace(secret, "***") if secret and isinstance(value, str) else value


def _by_signal(status: int, details: dict[str, object], message: str) -> ApiError | None:
    """What the error's own code or text says, which is surer than its status."""
    if status in _OPERATOR_STATUSES or status == 429:
        return None
    code, kind = (str(details.get(key) or "").lower() for key in ("code", "type"))
    inner = details.get("innererror")
    if isinstance(inner, dict):
        code = code if code in _FILTER_CODES else str(inner.get("code") or code).lower()
    text = message.lower()
    if code in _FILTER_CODES or any(phrase in text for phrase in _FILTER_PHRASES):
        return Refused(400, "content_filter", message or "The provider's filter refused this.")
    is_context = code in _CONTEXT_CODES or kind in _CONTEXT_TYPES
    if is_context or (code not in _NOT_CONTEXT and _says_too_long(text)):
        default = "The input is too long for the model."
        return Refused(400, "context_length_exceeded", message or default, param="messages")
    if code in {"model_not_found", "deploymentnotfound"}:
        return Refused(404, "model_not_found", message or "The provider lacks this model.")
    return None


def _says_too_long(text: str) -> bool:
    if any(phrase in text for phrase in _NOT_CONTEXT):
        return False
    pairs = (all(part in text for part in pair) for pair in _CONTEXT_PAIRS)
    return any(phrase in text for phrase in _CONTEXT_PHRASES) or any(pairs)


def _by_status(error: UpstreamError, details: dict[str, object], message: str) -> ApiError:
    status = error.status
    if status == 429:
        return _rate_limited(error, details, message)
    if status in _TIMEOUT_STATUSES:
        return Failed(504, "timeout", "The provider timed out.")
    if status >= 500 or status in _OPERATOR_STATUSES or status < 400:
        return Failed(502, "server_error", f"The provider failed with status {status}.")
    code = _OTHER_STATUS_CODES.get(status, "invalid_request")
    param = details.get("param")
    return Refused(
        status,
        code,
        message or f"The provider refused the request with status {status}.",
        param=param if isinstance(param, str) else None,
    )


def _rate_limited(error: UpstreamError, details: dict[str, object], message: str) -> ApiError:
    headers = {}
    if (wait := error.retry_after) is not None:
        headers["retry-after"] = str(wait)
    if str(details.get("code") or details.get("type")) in _QUOTA_CODES:
        # The operator's account is empty: no retry of this client cures that.
        headers["x-should-retry"] = "false"
    return Refused(
        429, "rate_limit", message or "The provider's rate limit is reached.", headers=headers
    )
