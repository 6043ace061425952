"""Settings of the plugin `moderations`."""

from tollkeeper import PluginSettings


class ModerationsSettings(PluginSettings):
    """The table `[plugins.moderations]`."""

    model: str = ""
    """The model for requests that name none; they are refused while this is empty."""
