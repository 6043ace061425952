"""`[plugins.routing]`."""

from pydantic import Field

from tollkeeper import PluginSettings, Seconds


class RoutingSettings(PluginSettings):
    """How often, and where, a request is tried before the client is told that it failed."""

    attempts: int = Field(default=3, ge=1, le=20)
    """Upstream tries per request in all, retries and fallbacks together."""
    retries: int = Field(default=1, ge=0, le=19)
    """How often one deployment is tried again before the next one is."""
    backoff: Seconds = 0.25
    """Seconds before the first retry of a deployment; doubles each time, with jitter."""
    max_wait: Seconds = 5.0
    """Longest `retry-after` that is waited for; beyond it the next deployment is tried."""
