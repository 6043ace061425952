"""`[plugins.anthropic]`."""

from pydantic import Field

from tollkeeper import PluginSettings


class AnthropicSettings(PluginSettings):
    """What Anthropic wants to be told and a chat request need not say."""

    max_tokens: int = Field(default=8192, ge=1, le=1_000_000)
    """Most output tokens where a chat request sets no bound; what it thinks comes on top."""
