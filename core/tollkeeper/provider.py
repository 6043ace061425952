"""What a provider is given to speak to its upstream, and what the core asks of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from tollkeeper.exchange import Attempt, Exchange, Reply
from tollkeeper.settings import ProviderSettings

if TYPE_CHECKING:
    import httpx


class Clock:
    """Time as the gateway tells it. Durations are monotonic, dates are wall time."""

    monotonic = staticmethod(trio.current_time)
    """Seconds that only grow; trio's clock, so that tests can make it jump."""

    def time(self) -> float:
        """Unix seconds."""
        return time.time()


@dataclass(slots=True)
class UpstreamRequest:
    """What a provider sends. Headers and path may hold nothing a client chose as a host or URL."""

    method: str
    path: str
    """Appended to the provider's `base_url`."""
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    fixed_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Those that are the same for every request: encoded once."""


class Upstream(Protocol):
    """The connections to one configured provider, with its deadlines."""

    async def send(self, request: UpstreamRequest, attempt: Attempt) -> Reply:
        """Send and wait for the head of the reply. Raises `UpstreamError`.

        Sets `attempt.sent` before the first byte goes out.
        """


class Provider(Protocol):
    """One `[providers.*]` table, as the plugin of its kind speaks to it.

    May also have `speaks(dialect: str) -> bool`: whether it takes requests of the dialect of this
    name as they are. One without it is given chat only, and the core translates.
    """

    async def send(self, exchange: Exchange, attempt: Attempt) -> Reply:
        """Send `attempt.body` as `attempt.operation` wants it, to `attempt.deployment`.

        The reply is in the same dialect. Error statuses are returned, not raised, with the body
        that the upstream sent: the core maps it.
        """


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What a provider is made from: the name of its table, the table, and its connections."""

    name: str
    settings: ProviderSettings
    upstream: Upstream
    client: Callable[[], httpx.AsyncClient]
    """Makes an httpx client for adapters that want one; same connections and deadlines."""


ProviderFactory = Callable[[ProviderContext], Provider]
