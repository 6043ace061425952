"""Requests per minute, exactly: at most N in any 60 seconds, refused only when there were N."""

import math

from tollkeeper import Exchange, Gateway, Head, Refused, hookimpl
from tollkeeper.management import RateGrants, RateLimits
from tollkeeper_limits.service import Place, SlidingLog
from tollkeeper_limits.settings import LimitsSettings

NAME = "limits"
EVERYBODY = ""
"""Whose log is used while no plugin says who is calling."""
MANY_LOGS = 10_000


Window = tuple[SlidingLog, int, str]
"""A log that a request must fit into, its limit, and how a refusal goes on after that."""


class Limits:
    """Guard: a limit that cannot be checked refuses."""

    Settings = LimitsSettings
    policy = "guard"

    def __init__(self, settings: LimitsSettings) -> None:
        self._settings = settings
        self._logs: dict[str, SlidingLog] = {}
        """By id of the key, and by id of the organization, which are never the same."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Take the clock, and note where to find who grants organizations their share."""
        self._clock, self._gateway = gateway.clock, gateway
        gateway.offer(RateLimits, self)  # type: ignore[type-abstract] # names a service
        self._grants: RateGrants | None = None
        self._has_looked = False

    @hookimpl
    async def admit(self, exchange: Exchange) -> None:
        """Take a place in the caller's window, or refuse with the time until one is free."""
        if exchange.operation.answer is not None:
            return  # only what goes upstream counts
        now = self._clock.monotonic()
        places: list[Place] = []
        for log, limit, whose in self._windows_of(exchange):
            place = log.admit(limit, now)
            if place is None:
                for taken in places:
                    taken.give_back()
                raise _refusal(limit, whose, log.wait(limit, now))
            places.append(place)
        exchange.holds[NAME] = places

    @hookimpl
    def reply(self, exchange: Exchange, head: Head) -> None:
        """Say how much is left, on every reply to a known caller."""
        if head.status == 401:
            return
        now = self._clock.monotonic()
        # A place that is given back in settle counts no more.
        refused = 400 <= head.status < 500 and not went_upstream(exchange)
        back = refused and NAME in exchange.holds
        left = None
        for each, most, _ in self._windows_of(exchange):
            rest = most - each.count(now) + back
            if left is None or rest < left:
                left, limit, log = rest, most, each
        head.headers["x-ratelimit-limit-requests"] = str(limit)
        head.headers["x-ratelimit-remaining-requests"] = str(max(0, left or 0))
        head.headers["x-ratelimit-reset-requests"] = duration(log.reset(now))

    @hookimpl
    def settle(self, exchange: Exchange) -> None:
        """Give the place back where a later stage refused before anything went upstream."""
        places = exchange.holds.pop(NAME, None)
        outcome = exchange.outcome
        refused = outcome is not None and outcome.kind == "refused"
        if refused and not went_upstream(exchange) and isinstance(places, list):
            for place in places:
                place.give_back()

    def _windows_of(self, exchange: Exchange) -> list[Window]:
        """The key's own, and that of its organization where it is granted one."""
        principal, logs = exchange.principal, self._logs
        if not self._has_looked:
            self._grants = self._gateway.find(RateGrants)  # type: ignore[type-abstract] # a service
            self._has_looked = True
        granted = None if self._grants is None else self._grants.rpm_of(principal.org)
        key, org = principal.key or EVERYBODY, principal.org
        if key not in logs or (granted is not None and org not in logs):
            if len(logs) >= MANY_LOGS:
                self._forget_idle()
            logs = self._logs
            logs.setdefault(key, SlidingLog())
            if granted is not None:
                logs.setdefault(org, SlidingLog())
        windows = [(logs[key], principal.rpm or self._settings.rpm, "")]
        if granted is not None:
            windows.append((logs[org], granted, " for all keys of this organization"))
        return windows

    def _forget_idle(self) -> None:
        now = self._clock.monotonic()
        self._logs = {key: log for key, log in self._logs.items() if log.count(now)}


def _refusal(limit: int, whose: str, seconds: float) -> Refused:
    """A 429 that says exactly when the next request fits."""
    headers = {
        "retry-after": str(math.ceil(seconds)),
        "retry-after-ms": str(math.ceil(seconds * 1000)),
    }
    return Refused(429, "rate_limit", f"Rate limit exceeded: {limit} RPM{whose}", headers=headers)


def went_upstream(exchange: Exchange) -> bool:
    """Whether any attempt may have reached a provider."""
    return any(attempt.sent for attempt in exchange.attempts)


def duration(seconds: float) -> str:
    """A duration as OpenAI's headers write it: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 1000) / 1000, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:g}s"
