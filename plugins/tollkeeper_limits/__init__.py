"""Requests per minute, exactly: at most N in any 60 seconds, refused only when there were N."""

import math

from tollkeeper import Exchange, Gateway, Head, Refused, hookimpl
from tollkeeper_limits.service import Place, SlidingLog
from tollkeeper_limits.settings import LimitsSettings

NAME = "limits"
EVERYBODY = ""
"""Whose log is used while no plugin says who is calling."""
MANY_LOGS = 10_000


class Limits:
    """Guard: a limit that cannot be checked refuses."""

    Settings = LimitsSettings
    policy = "guard"

    def __init__(self, settings: LimitsSettings) -> None:
        self._settings = settings
        self._logs: dict[str, SlidingLog] = {}

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Take the clock."""
        self._clock = gateway.clock

    @hookimpl
    async def admit(self, exchange: Exchange) -> None:
        """Take a place in the caller's window, or refuse with the time until one is free."""
        if exchange.operation.answer is not None:
            return  # only what goes upstream counts
        now, limit = self._clock.monotonic(), self._limit_of(exchange)
        log = self._log_of(exchange)
        place = log.admit(limit, now)
        if place is None:
            seconds = log.wait(limit, now)
            raise Refused(
                429,
                "rate_limit",
                f"Rate limit exceeded: {limit} RPM",
                headers={
                    "retry-after": str(math.ceil(seconds)),
                    "retry-after-ms": str(math.ceil(seconds * 1000)),
                },
            )
        exchange.holds[NAME] = place

    @hookimpl
    def reply(self, exchange: Exchange, head: Head) -> None:
        """Say how much is left, on every reply to a known caller."""
        if head.status == 401:
            return
        now, limit = self._clock.monotonic(), self._limit_of(exchange)
        log = self._log_of(exchange)
        head.headers["x-ratelimit-limit-requests"] = str(limit)
        taken = log.count(now)
        if 400 <= head.status < 500 and NAME in exchange.holds and not went_upstream(exchange):
            taken -= 1  # the place is given back in settle
        head.headers["x-ratelimit-remaining-requests"] = str(max(0, limit - taken))
        head.headers["x-ratelimit-reset-requests"] = duration(log.reset(now))

    @hookimpl
    def settle(self, exchange: Exchange) -> None:
        """Give the place back where a later stage refused before anything went upstream."""
        place = exchange.holds.pop(NAME, None)
        outcome = exchange.outcome
        refused = outcome is not None and outcome.kind == "refused"
        if refused and not went_upstream(exchange) and isinstance(place, Place):
            place.give_back()

    def _limit_of(self, exchange: Exchange) -> int:
        return exchange.principal.rpm or self._settings.rpm

    def _log_of(self, exchange: Exchange) -> SlidingLog:
        key = exchange.principal.key or EVERYBODY
        log = self._logs.get(key)
        if log is None:
            if len(self._logs) >= MANY_LOGS:
                self._forget_idle()
            log = self._logs[key] = SlidingLog()
        return log

    def _forget_idle(self) -> None:
        now = self._clock.monotonic()
        self._logs = {key: log for key, log in self._logs.items() if log.count(now)}


def went_upstream(exchange: Exchange) -> bool:
    """Whether any attempt may have reached a provider."""
    return any(attempt.sent for attempt in exchange.attempts)


def duration(seconds: float) -> str:
    """A duration as OpenAI's headers write it: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 1000) / 1000, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:g}s"
