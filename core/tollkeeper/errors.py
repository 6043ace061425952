"""What can go wrong, and how a client is told.

    TollkeeperError
    |-- ConfigError        the TOML is wrong: every problem at once, each with file and line
    |-- PluginError        a plugin broke the contract of a hook, or asks for what nobody offers
    |-- UpstreamError      an upstream did not give a usable reply; may be retried or mapped
    `-- ApiError           what a client is answered, in the OpenAI shape
        |-- Refused        we said no: 4xx
        `-- Failed         something broke: 5xx

Within the table of the HTTP contract an error's `type` equals its `code`. Outside it `type` is
`invalid_request_error` and `code` one of `OTHER_CODES`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

TABLE_CODES = frozenset(
    {
        "auth_error",
        "rate_limit",
        "model_not_found",
        "context_length_exceeded",
        "content_filter",
        "server_error",
        "timeout",
    }
)
OTHER_CODES = frozenset(
    {
        "invalid_request",
        "not_found",
        "method_not_allowed",
        "request_timeout",
        "conflict",
        "request_too_large",
    }
)

MAX_RETRY_AFTER = 600

ErrorT = TypeVar("ErrorT", bound=BaseException)


class TollkeeperError(Exception):
    """The root of every error that tollkeeper raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the configuration, at a place a person can go to."""

    where: str
    """`file:line`, or the file alone where no line is to blame."""
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def by_line(problem: Problem) -> tuple[str, int]:
    """The order in which a person meets the problems of a file."""
    name, _, line = problem.where.rpartition(":")
    return (name, int(line)) if line.isdecimal() else (problem.where, 0)


class ConfigError(TollkeeperError):
    """The configuration cannot be used; `problems` holds all that is wrong with it."""

    def __init__(self, problems: list[Problem], config: object = None) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.config = config
        """The `Config` as far as it could be read, for finding what else is wrong with it."""


class PluginError(TollkeeperError):
    """A plugin broke its contract. The message names the plugin and what to change."""


UpstreamFault = Literal["status", "connect", "timeout", "broken"]


class UpstreamError(TollkeeperError):
    """An upstream attempt came to nothing before a byte of its reply was passed on.

    `fault` says how: `status` (it answered with an error), `connect` (never reached),
    `timeout` (one of our deadlines passed) or `broken` (no whole or no sensible reply).
    `status`, `headers` and `body` are the upstream's own and only set for `status`.
    """

    def __init__(
        self,
        fault: UpstreamFault,
        message: str,
        *,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.fault: UpstreamFault = fault
        self.status = status
        self.headers: Mapping[str, str] = headers or {}
        self.body = body

    @property
    def retry_after(self) -> int | None:
        """The upstream's `retry-after` in whole seconds, 0 to 600; None where it is unusable."""
        value = self.headers.get("retry-after", "").strip()
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
            return None
        return min(MAX_RETRY_AFTER, math.ceil(float(value)))

    @property
    def retryable(self) -> bool:
        """Whether the same request may fare better another time or elsewhere."""
        if self.fault != "status":
            return True
        return not 400 <= self.status < 500 or self.status in {401, 402, 403, 408, 409, 429}

    @property
    def is_ours(self) -> bool:
        """Whether the provider turns us away, whatever the request: others may take it."""
        return self.fault == "status" and self.status in {401, 402, 403}


class ApiError(TollkeeperError):
    """An answer to the client that is not what it asked for.

    `code` is from `TABLE_CODES` or `OTHER_CODES`; `param` names the request field at fault, if
    one is; `headers` go out with the reply.
    """

    detail_code: str | None = None
    """A finer word that clients of some dialects act on, as Anthropic's do on `thread_not_found`.

    Set it on the error made; the body in OpenAI's shape does not tell it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        if code not in TABLE_CODES | OTHER_CODES:
            raise ValueError(f"unknown error code {code!r}")
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers: dict[str, str] = dict(headers or {})

    @property
    def type(self) -> str:
        """The OpenAI error `type` that belongs to `code`."""
        return self.code if self.code in TABLE_CODES else "invalid_request_error"

    def body(self) -> bytes:
        """The error as JSON, `{"error": {message, type, param, code}}`."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )


class Refused(ApiError):
    """We said no. Raised by any hook before the upstream call, it ends the exchange with a 4xx."""


class Failed(ApiError):
    """Something broke, here or upstream. Ends the exchange with a 5xx."""


def invalid_request(message: str, *, param: str | None = None, status: int = 400) -> Refused:
    """A refusal that the client can only cure by sending something else."""
    return Refused(status, "invalid_request", message, param=param)


def model_not_found(model: str) -> Refused:
    """The refusal for a model that nothing here serves."""
    return Refused(404, "model_not_found", f"The model '{model}' does not exist.", param="model")


def database_unusable() -> Failed:
    """The answer where the database is down, locked or full."""
    message = "The gateway's database cannot be used now."
    return Failed(503, "server_error", message, headers={"retry-after": "5"})


def find_error(error: BaseException | None, kind: type[ErrorT]) -> ErrorT | None:
    """The first error of a kind in `error`, also inside the groups that nurseries raise."""
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, (find_error(inner, kind) for inner in error.exceptions)), None)
    return None


def find_api_error(error: BaseException) -> ApiError | None:
    """The answer for the client that an exception holds, if it does."""
    return find_error(error, ApiError)
