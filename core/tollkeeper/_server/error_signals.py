"""The signs by which providers say what went wrong: their codes, phrases and statuses, as data.

All in lower case. Each is told apart by a body in `tests/golden/errors` that it alone decides.
"""

from typing import Literal

Kind = Literal[
    "operator", "filter", "context", "model", "rate", "timeout", "overload", "failure", "request"
]

CODES: dict[Kind, tuple[str, ...]] = {
    "operator": (
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_error",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "ramp_limit_exceeded",
        "blocked_api_access",
        "api_key_invalid",
        "accessdeniedexception",
        "incompletesignature",
        "notauthorized",
        "requestexpired",
        "servicequotaexceededexception",
    ),
    "filter": (
        "content_filter",
        "content_policy_violation",
        "cyber_policy",
        "responsibleaipolicyviolation",
        "guardrail_intervened",
    ),
    "context": ("context_length_exceeded", "exceed_context_size_error"),
    "model": ("model_not_found", "deploymentnotfound", "model_not_available", "invalid_model"),
}
"""Codes that settle what went wrong. Keys and accounts are the operator's, and no retry helps."""
MODEL_AT_404 = ("not_found_error", "not_found", "notfounderror", "resourcenotfoundexception")
"""Codes of a 404 that is about the model: providers that have none of their own for it."""

# In phrases ` ... ` stands for anything between two parts.
_USED_UP = (
    "you exceeded your current quota",
    "credit balance is too low",
    "you have reached your specified ... api usage limits",
)
_TOO_LARGE = ("request too large for",)
IN_REFUSALS: dict[Kind, tuple[str, ...]] = {
    "operator": (
        *_USED_UP,
        "api key not valid",
        "security token included in the request is invalid",
        "have not been submitted for this account",
    ),
    "filter": (
        "invalid prompt ... violating our usage policy",
        "request was rejected as a result of the safety system",
        "our safety system",
        "content filtering policy",
        "the response was blocked.",
    ),
    "rate": (
        "service tier capacity exceeded",
        "quota exceeded for",
        "resource exhausted",
        "please wait before trying again",  # Bedrock: "Too many tokens, please wait ..."
    ),
    "context": (
        *_TOO_LARGE,
        "this model's maximum context length is",
        "this endpoint's maximum context length is",
        "exceed context limit",
        "is longer than the model's context length",
        "is longer than the maximum model length of",
        "input tokens exceed the configured limit",
        "model's maximum context limit",
        "requested token count exceeds the model's maximum context length",
        "too large for model with ... maximum context length",
        "`inputs` tokens + `max_new_tokens` must be",
        "exceeds the available context size",
        "exceeds the maximum number of tokens allowed",
        "current length is ... while limit is",
        "maximum input length is ... tokens",
        "input too long: ... input tokens, limit is",
        "prompt is too long:",
        "prompt: length",
        "input is too long",
        "too many tokens",
        "too many input tokens",
        "expected maxlength:",
    ),
    "model": (
        "the model ` ... ` does not exist",
        "model not exist",
        "provided model identifier is invalid",
        "is not a valid model id",
        "no endpoints found for",
        "try pulling it first",
    ),
}
"""What the text of a 4xx says; the first kind that fits counts."""
NOT_CONTEXT = ("string_above_max_length", "string too long")
"""Codes and phrases of a field that is too long, which is no matter of the context."""
AT_A_LIMIT: dict[Kind, tuple[str, ...]] = {"operator": _USED_UP, "context": _TOO_LARGE}
"""What the text of a 429 may say that its status does not."""
IN_FAILURES: dict[Kind, tuple[str, ...]] = {
    "timeout": ("a timeout occurred", "timed out"),
    "overload": ("overloaded",),
}
"""What the text of a 5xx says."""

STATUS_OF: dict[int, tuple[str, ...]] = {
    429: (
        "rate_limit_exceeded",
        "rate_limit_error",
        "rate_limited",
        "resource_exhausted",
        "throttlingexception",
        "capacity_exceeded",
        "tokens",
        "requests",
        "insufficient_quota",
    ),
    529: (
        "overloaded_error",
        "server_is_overloaded",
        "slow_down",
        "unavailable",
        "unavailable_error",
        "service_unavailable_error",
        "serviceunavailableexception",
    ),
    504: ("timeout_error", "deadline_exceeded", "timeout", "modeltimeoutexception"),
    404: ("not_found_error", "not_found"),
    401: ("authentication_error", "unauthenticated"),
    403: ("permission_error", "permission_denied"),
    409: ("conflict_error",),
    413: ("request_too_large",),
    400: ("invalid_request_error", "invalid_argument", "failed_precondition"),
}
"""The status that a code stands for, for an error that came with none or with a vaguer one."""
KIND_OF: dict[int, Kind] = {
    **dict.fromkeys((401, 402, 403, 407, 501), "operator"),
    **dict.fromkeys((429, 498), "rate"),
    **dict.fromkeys((408, 504, 522, 524), "timeout"),
    529: "overload",
}
"""What a status means where nothing else does."""
