"""Settings of the plugin `images`."""

from tollkeeper import PluginSettings


class ImagesSettings(PluginSettings):
    """The table `[plugins.images]`."""

    model: str = ""
    """The model for requests that name none; they are refused while this is empty."""
