"""`[plugins.apidocs]`."""

from tollkeeper import PluginSettings


class ApidocsSettings(PluginSettings):
    """Who may read the API reference."""

    public: bool = True
    """Whether the document and its pages are open; otherwise whoever is logged in may read them."""
