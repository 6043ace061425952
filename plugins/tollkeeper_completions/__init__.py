"""The older completions interface: `POST /v1/completions`, passed on as it is."""

from tollkeeper import (
    ApiError,
    ChunkReader,
    Dialect,
    Gateway,
    Operation,
    PluginSettings,
    StreamReader,
    hookimpl,
)


class CompletionsDialect(Dialect):
    """Chunks like chat's, with text in place of messages."""

    name = "completions"
    usage_on_request = True

    def reader(self, alias: bytes | None, *, wants_usage: bool = True) -> StreamReader:
        """What reads one stream of chunks."""
        return ChunkReader(alias, wants_usage=wants_usage)

    def error_event(self, error: ApiError) -> bytes:
        """An error event, and the `[DONE]` that ends the stream."""
        return super().error_event(error) + ChunkReader.ending


COMPLETIONS = Operation(
    name="completions",
    method="POST",
    path="/v1/completions",
    dialect=CompletionsDialect(),
    summary="Complete a text. Streams server-sent events when `stream` is true.",
)


class Completions:
    """Guard: it carries the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the operation."""
        gateway.add_operation(COMPLETIONS)
