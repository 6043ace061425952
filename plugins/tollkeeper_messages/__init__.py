"""Endpoints of Anthropic's Messages API, for clients that speak it.

To a provider that speaks it too, bodies go as they came. For any other, a request is turned into a
chat, and the reply back.
"""

from tollkeeper import Exchange, Gateway, Head, Operation, PluginSettings, hookimpl
from tollkeeper_messages import shapes
from tollkeeper_messages.service import CountDialect, MessagesDialect

CREATE = Operation(
    name="messages",
    method="POST",
    path="/v1/messages",
    dialect=MessagesDialect(),
    shape=shapes.CREATE,
    summary="Create a message. Streams server-sent events when `stream` is true.",
)
COUNT = Operation(
    name="count_tokens",
    method="POST",
    path="/v1/messages/count_tokens",
    dialect=CountDialect(),
    metered=False,
    shape=shapes.COUNT_TOKENS,
    summary="Count the input tokens of a message, without creating it.",
)


class Messages:
    """Guard: it reads the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer both calls."""
        gateway.add_operation(CREATE)
        gateway.add_operation(COUNT)

    @hookimpl
    def reply(self, exchange: Exchange, head: Head) -> None:
        """Name the request where Anthropic's SDKs look for it."""
        if isinstance(exchange.operation.dialect, MessagesDialect):
            head.headers["request-id"] = exchange.id
