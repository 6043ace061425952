"""From what went wrong upstream to what the client is told. Pure functions.

An upstream's error is never passed through. What it means is read from its codes, then from its
text, then from its status; its words are kept only where the client can act on them.
"""

import math
import re
from collections.abc import Iterator, Mapping

import msgspec

from tollkeeper._server.error_signals import (
    AT_A_LIMIT,
    CODES,
    IN_FAILURES,
    IN_REFUSALS,
    KIND_OF,
    MODEL_AT_404,
    NOT_CONTEXT,
    STATUS_OF,
    Kind,
)
from tollkeeper.errors import MAX_RETRY_AFTER, ApiError, Failed, Refused, UpstreamError

MAX_MESSAGE = 2000
"""Characters of a provider's text that reach the client."""
MAX_READ = 20_000
"""Characters of a provider's text in which signals are looked for."""

Details = dict[str, object]
_CODE_OF = {404: "not_found", 405: "method_not_allowed", 409: "conflict", 413: "request_too_large"}

# What the client gets: status, code, text. `{}` is the upstream's status.
_OURS: dict[Kind, tuple[int, str, str]] = {
    "operator": (
        502,
        "server_error",
        "The provider failed with status {}: a matter for the gateway's operator.",
    ),
    "timeout": (504, "timeout", "The provider timed out."),
    "overload": (503, "server_error", "The provider is overloaded."),
    "failure": (502, "server_error", "The provider failed with status {}."),
}
_USED_UP = "The provider's limit for this gateway is used up."
_THEIRS: dict[Kind, tuple[int, str, str]] = {
    "filter": (400, "content_filter", "The provider's filter refused this."),
    "context": (400, "context_length_exceeded", "The input is too long for the model."),
    "model": (404, "model_not_found", "The provider lacks this model."),
    "rate": (429, "rate_limit", "The provider's rate limit is reached."),
}

_QUOTED = re.compile(r"(?<!\w)b?(['\"`])(?=\S)((?:\\.|.)*?)(?:\1(?!\w)|\Z)|“[^”]*", re.DOTALL)
_DETAIL_CODE = re.compile(r"[a-z_]{1,64}")
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s", re.ASCII)
_MILLISECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)


def read_error(body: bytes) -> Details:
    """The upstream's error object, whatever it is wrapped in; empty where there is none."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(document, list) and document:
        document = document[0]  # some wrap their one error in an array
    if not isinstance(document, dict):
        return {}
    error = document.get("error")
    if isinstance(error, str):
        return {"message": error}
    if isinstance(error, dict):
        return error
    message = next((document[k] for k in ("message", "Message", "detail") if document.get(k)), None)
    return {**document, "message": message} if message else {}


def map_upstream_error(error: UpstreamError, secret: str = "") -> ApiError:
    """The answer to the client. `secret` is our credential, blotted out should it be echoed."""
    if error.fault == "timeout":
        return Failed(504, "timeout", "The provider did not answer in time.")
    if error.fault != "status":
        return Failed(
            502, "server_error", "The provider could not be reached or broke off its reply."
        )
    details = _unwrapped(read_error(error.body))
    words = frozenset(_words(details, error.headers))
    status = _status(error.status, details, words)
    kind = _kind(status, words, _prose(details, error.body))
    answer = _answer(kind, status, details, secret)
    if kind not in _OURS:
        answer.detail_code = _detail_code(details, secret)
    if answer.status in {409, 429} or answer.status >= 500:
        answer.headers |= _retry_headers(kind, error.headers, details, error.retry_after)
    return answer


def _unwrapped(details: Details) -> Details:
    """With what a provider's own provider said, where it is quoted whole, as OpenRouter does."""
    metadata = details.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    inner = read_error(raw.encode(errors="replace")) if isinstance(raw, str) else {}
    return {**details, **{key: value for key, value in inner.items() if value}}


def _words(details: Details, headers: Mapping[str, str]) -> Iterator[str]:
    """Every code that names what went wrong, in lower case, without a namespace."""
    inner, listed = details.get("innererror"), details.get("details")
    found = [details.get(key) for key in ("code", "type", "status", "__type")]
    found.append(headers.get("x-amzn-errortype"))
    found += [inner.get("code")] if isinstance(inner, dict) else []
    found += [listed.get("error_code")] if isinstance(listed, dict) else []
    if isinstance(listed, list):
        found += [item.get("reason") for item in listed if isinstance(item, dict)]
    for word in found:
        if isinstance(word, str):
            yield word.lower().rpartition("#")[2].partition(":")[0]


def _status(status: int, details: Details, words: frozenset[str]) -> int:
    """The upstream's status, or the one it should have been where a code is surer."""
    named = next((number for number, codes in STATUS_OF.items() if words & {*codes}), 0)
    if status < 400:
        status = _number(details) or named or status
    is_vaguer = named == 429 or (status >= 500 and named >= 500)
    return named if is_vaguer and KIND_OF.get(status) != "operator" else status


def _number(details: Details) -> int:
    """The error status that stands in the error itself, 0 for none."""
    told = (str(details.get(key)) for key in ("status", "code", "statusCode"))
    return next((int(text) for text in told if re.fullmatch(r"[45]\d\d", text, re.ASCII)), 0)


def _prose(details: Details, body: bytes) -> str:
    """The text to look for signals in, without what it quotes: that may be the user's."""
    message = details.get("message")
    if not details:
        message = body[:MAX_READ].decode(errors="replace")
    text = message[:MAX_READ] if isinstance(message, str) else ""
    # Names are left: they are part of some phrases, and no sentence of a user's.
    return _QUOTED.sub(lambda m: "''" if re.search(r"\s", m[0]) else m[0], text).lower()


def _kind(status: int, words: frozenset[str], text: str) -> Kind:
    """What went wrong, by code, then text, then status."""
    by_status = KIND_OF.get(status)
    if by_status == "operator":
        return by_status
    coded = next((kind for kind, codes in CODES.items() if words & {*codes}), None)
    found = coded or _kind_by_text(status, words, text) or by_status
    if found is not None:
        return found
    if status == 404 and words & {*MODEL_AT_404}:
        return "model"
    return "request" if 400 <= status < 500 else "failure"


def _kind_by_text(status: int, words: frozenset[str], text: str) -> Kind | None:
    tables = [AT_A_LIMIT] if status == 429 else [IN_REFUSALS] if status < 500 else [IN_FAILURES]
    if status < 400:
        tables.append(IN_FAILURES)
    is_field = any(sign in words or sign in text for sign in NOT_CONTEXT)
    for table in tables:
        for kind, phrases in table.items():
            if any(_says(text, phrase) for phrase in phrases) and not (
                is_field and kind == "context"
            ):
                return kind
    return None


def _says(text: str, phrase: str) -> bool:
    position = 0
    for part in phrase.split(" ... "):
        if (position := text.find(part, position)) < 0:
            return False
        position += len(part)
    return True


def _answer(kind: Kind, status: int, details: Details, secret: str) -> ApiError:
    if kind == "operator" and status == 429:
        return Refused(429, "rate_limit", _USED_UP)
    if kind in _OURS:
        number, code, text = _OURS[kind]
        return Failed(number, code, text.format(status))
    # Blotted out once decoded, for JSON can write the same text in many ways.
    message = _blotted(str(details.get("message") or ""), secret)[:MAX_MESSAGE]
    if kind in _THEIRS:
        number, code, text = _THEIRS[kind]
        param = "messages" if kind == "context" else None
        return Refused(number, code, message or text, param=param)
    text = f"The provider refused the request with status {status}."
    field = details.get("param")
    param = _blotted(field, secret) if isinstance(field, str) else None
    return Refused(status, _CODE_OF.get(status, "invalid_request"), message or text, param=param)


def _detail_code(details: Details, secret: str) -> str | None:
    """Anthropic's `details.error_code`, by which its SDKs recover; None where it is no code."""
    listed = details.get("details")
    code = listed.get("error_code") if isinstance(listed, dict) else None
    found = _DETAIL_CODE.fullmatch(_blotted(code, secret)) if isinstance(code, str) else None
    return found[0] if found is not None else None


def _blotted(text: str, secret: str) -> str:
    return text.replace(secret, "***") if secret else text


def _retry_headers(
    kind: Kind, told: Mapping[str, str], details: Details, wait: int | None
) -> dict[str, str]:
    headers = {}
    delay = _told_delay(details)
    wait = delay if wait is None else wait
    if wait is not None:
        headers["retry-after"] = str(wait)
    ms = told.get("retry-after-ms", "").strip()
    if _MILLISECONDS.fullmatch(ms) and float(ms) <= MAX_RETRY_AFTER * 1000:
        headers["retry-after-ms"] = str(math.ceil(float(ms)))
    # Google calls a limit that soon ends by the same words as an account that is empty.
    if told.get("x-should-retry") == "false" or (kind == "operator" and delay is None):
        headers["x-should-retry"] = "false"
    return headers


def _told_delay(details: Details) -> int | None:
    """Whole seconds after which Google says to try again."""
    listed = details.get("details")
    for item in listed if isinstance(listed, list) else ():
        delay = item.get("retryDelay") if isinstance(item, dict) else None
        if isinstance(delay, str) and (seconds := _SECONDS.fullmatch(delay)):
            wait = math.ceil(float(seconds[1]))
            return wait if wait <= MAX_RETRY_AFTER else None
    return None
