"""`[plugins.limits]`."""

from pydantic import Field

from tollkeeper import PluginSettings


class LimitsSettings(PluginSettings):
    """How much a caller may do."""

    rpm: int = Field(default=60, ge=1, le=1_000_000)
    """Requests that each key may make in any 60 seconds; a key's own `rpm` wins over it."""
