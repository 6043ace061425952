"""Provider kind `openai`: OpenAI and everything that speaks like it.

The client's body goes upstream as it came. What must change, and nothing else: the model's name
where the client used an alias, and the request for a usage event in every stream.
"""

from tollkeeper import (
    Attempt,
    Exchange,
    Gateway,
    PluginSettings,
    Provider,
    ProviderContext,
    Reply,
    UpstreamRequest,
    hookimpl,
)
from tollkeeper_openai.service import upstream_body

KIND = "openai"


class OpenAI:
    """Guard: it carries the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Speak to every provider of this kind."""
        gateway.add_provider(KIND, make_provider)


def make_provider(context: ProviderContext) -> Provider:
    """A provider for one `[providers.*]` table. Raises ValueError for one without an address."""
    if not context.settings.base_url:
        raise ValueError('kind "openai" needs a base_url, such as "https://api.openai.com/v1"')
    return OpenAIProvider(context)


class OpenAIProvider:
    """One configured place that speaks OpenAI's API."""

    def __init__(self, context: ProviderContext) -> None:
        self._upstream = context.upstream
        self._headers = [(b"content-type", b"application/json"), (b"user-agent", b"tollkeeper")]
        if context.settings.credential is not None:
            bearer = f"Bearer {context.settings.credential.reveal()}"
            self._headers.append((b"authorization", bearer.encode("latin-1")))

    async def send(self, exchange: Exchange, attempt: Attempt) -> Reply:
        """Send the client's body, with what must change changed."""
        deployment = attempt.deployment
        model = None if deployment.model == exchange.model else deployment.model
        asks_usage = exchange.stream and not exchange.wants_usage
        request = UpstreamRequest(
            method="POST",
            path=exchange.operation.path.removeprefix("/v1"),
            headers=[*self._headers, (b"x-client-request-id", attempt.id.encode())],
            body=upstream_body(exchange.body, model, asks_usage),
        )
        return await self._upstream.send(request, attempt)
