"""`[plugins.responses]`."""

from pydantic import Field

from tollkeeper import PluginSettings


class ResponsesSettings(PluginSettings):
    """Whether responses are kept here, and how long."""

    store: bool = False
    """Whether responses are kept, to be read back and to be continued by `previous_response_id`."""
    keep_days: int = Field(default=30, ge=1, le=3650)
    """Days after which a kept response is deleted."""
