"""Where a request goes: weights, retries and fallbacks, before the first byte of a reply."""

from collections.abc import Sequence
from random import Random

import trio

from tollkeeper import Deployment, Exchange, Reply, Send, UpstreamError, hookimpl
from tollkeeper_routing.service import Plan, order
from tollkeeper_routing.settings import RoutingSettings


class Routing:
    """Guard: a request that cannot be routed is refused."""

    Settings = RoutingSettings
    policy = "guard"

    def __init__(self, settings: RoutingSettings) -> None:
        self._settings = settings
        self._random = Random()  # noqa: S311 -- spreads load, guards nothing

    @hookimpl
    async def route(self, exchange: Exchange) -> Sequence[Deployment] | None:
        """The configured deployments, one chosen by weight first."""
        return order(exchange.candidates, self._random) or None

    @hookimpl
    def wrap_send(self, send: Send) -> Send:
        """Try again, and elsewhere, within the request's budget of attempts."""

        async def send_with_retries(exchange: Exchange) -> Reply:
            plan = Plan(exchange.deployments, self._settings, self._random)
            while True:
                exchange.deployment = plan.current
                try:
                    return await send(exchange)
                except UpstreamError as error:
                    pause = plan.after(error, error.retry_after)
                    if pause is None:
                        raise
                await trio.sleep(pause)

        return send_with_retries
