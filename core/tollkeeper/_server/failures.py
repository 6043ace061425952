"""From whatever went wrong to the answer for the client and the line in the log."""

import logging

from tollkeeper._server.mapping import map_upstream_error
from tollkeeper.errors import (
    ApiError,
    Failed,
    Refused,
    UpstreamError,
    database_unusable,
    find_api_error,
    find_error,
)
from tollkeeper.exchange import Exchange
from tollkeeper.storage import is_unusable

log = logging.getLogger("tollkeeper")

MAX_SHOWN = 200
"""Characters of a name from a client that go into a log line."""


def answer_for(error: Exception, secret: str) -> ApiError:
    """What the client is told. `secret` is our credential, blotted out should it be echoed."""
    if (found := find_api_error(error)) is not None:
        return found
    if (upstream := find_error(error, UpstreamError)) is not None:
        return map_upstream_error(upstream, secret)
    if is_unusable(error):
        return database_unusable()
    return Failed(500, "server_error", "The gateway failed to handle this request.")


def unauthenticated(exchange: Exchange) -> Refused:
    """The refusal for a caller that no plugin recognised."""
    if "authorization" in exchange.headers or "x-api-key" in exchange.headers:
        message = "Invalid API key."
    else:
        message = "Missing API key: send it as `Authorization: Bearer tk-...`."
    return Refused(401, "auth_error", message, headers={"www-authenticate": "Bearer"})


def log_failure(exchange: Exchange, answer: ApiError, error: Exception) -> None:
    """Every failure with its id and cause; a traceback where the cause is a bug. No secrets."""
    upstream = find_error(error, UpstreamError)
    unexpected = upstream is None and find_api_error(error) is None
    log.log(
        logging.ERROR if answer.status >= 500 else logging.INFO,
        "%s %s %s -> %d %s: %s",
        exchange.id,
        exchange.operation.name,
        exchange.deployment.name if exchange.deployment else exchange.model[:MAX_SHOWN] or "-",
        answer.status,
        answer.code,
        upstream or answer.message[: 2 * MAX_SHOWN],
        exc_info=error if unexpected else None,
    )
