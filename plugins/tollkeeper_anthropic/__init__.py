"""Provider kind `anthropic`: Anthropic's Messages API.

A body of that API goes upstream as it came, but for the model's name where the client used an
alias. A chat request is translated, and so is its reply.
"""

from functools import partial

from tollkeeper import (
    Attempt,
    Clock,
    Exchange,
    Gateway,
    Provider,
    ProviderContext,
    Reply,
    Unsupported,
    UpstreamRequest,
    hookimpl,
    quote,
    replace_value,
    translate_reply,
)
from tollkeeper_anthropic.request import messages_body
from tollkeeper_anthropic.settings import AnthropicSettings
from tollkeeper_anthropic.stream import ChatTranslation

KIND = "anthropic"
API_VERSION = "2023-06-01"
"""The last version that takes sampling parameters, for the models that still do."""


class Anthropic:
    """Guard: it carries the request."""

    Settings = AnthropicSettings
    policy = "guard"

    def __init__(self, settings: AnthropicSettings) -> None:
        self._settings = settings

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Speak to every provider of this kind."""
        factory = partial(make_provider, settings=self._settings, clock=gateway.clock)
        gateway.add_provider(KIND, factory)


def make_provider(context: ProviderContext, settings: AnthropicSettings, clock: Clock) -> Provider:
    """A provider for one `[providers.*]` table. Raises ValueError for one without an address."""
    if not context.settings.base_url:
        raise ValueError('kind "anthropic" needs a base_url, such as "https://api.anthropic.com"')
    return AnthropicProvider(context, settings.max_tokens, clock)


class AnthropicProvider:
    """One configured place that speaks Anthropic's Messages API."""

    def __init__(self, context: ProviderContext, max_tokens: int, clock: Clock) -> None:
        self._upstream = context.upstream
        self._drops = context.settings.unsupported == "drop"
        self._max_tokens = max_tokens
        self._clock = clock
        version = context.settings.api_version or API_VERSION
        self._headers = [
            (b"content-type", b"application/json"),
            (b"user-agent", b"tollkeeper"),
            (b"anthropic-version", version.encode("latin-1")),
        ]
        if context.settings.credential is not None:
            credential = context.settings.credential.reveal()
            self._headers.append((b"x-api-key", credential.encode("latin-1")))

    def speaks(self, dialect: str) -> bool:
        """Whether operations of this dialect can be sent here."""
        return dialect in ("chat", "messages")

    async def send(self, exchange: Exchange, attempt: Attempt) -> Reply:
        """Send the request, translated if it is a chat."""
        operation = attempt.operation or exchange.operation
        if operation.dialect is not None and operation.dialect.name == "messages":
            request = self._native(operation.path, exchange, attempt)
            return await self._upstream.send(request, attempt)
        unsupported = Unsupported("Anthropic", drop=self._drops)
        model = attempt.deployment.model
        body = messages_body(attempt.body, model, self._max_tokens, unsupported)
        attempt.dropped.extend(unsupported.dropped)
        request = UpstreamRequest("POST", "/v1/messages", self._headers_for(attempt), body)
        reply = await self._upstream.send(request, attempt)
        return translate_reply(reply, ChatTranslation(int(self._clock.time())))

    def _native(self, path: str, exchange: Exchange, attempt: Attempt) -> UpstreamRequest:
        """The client's own bytes, and the betas it asks for; the version stays ours."""
        headers, body = self._headers_for(attempt), attempt.body
        if beta := exchange.headers.get("anthropic-beta"):
            headers.append((b"anthropic-beta", beta.encode("latin-1")))
        if attempt.deployment.model != exchange.model:
            body = replace_value(body, b"model", quote(attempt.deployment.model))
        return UpstreamRequest("POST", path, headers, body)

    def _headers_for(self, attempt: Attempt) -> list[tuple[bytes, bytes]]:
        return [*self._headers, (b"x-client-request-id", attempt.id.encode())]
