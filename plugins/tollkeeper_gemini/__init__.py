"""Provider kind `gemini`: Google's own generateContent API.

A chat request is translated, and so is its reply. What Gemini cannot do is refused by name; hints
that change no answer are dropped and listed.
"""

from functools import partial
from urllib.parse import quote

from tollkeeper import (
    Attempt,
    Clock,
    Exchange,
    Gateway,
    PluginSettings,
    Provider,
    ProviderContext,
    Reply,
    Unsupported,
    UpstreamRequest,
    hookimpl,
    translate_reply,
)
from tollkeeper.canonical import read_chat
from tollkeeper_gemini.request import write_request
from tollkeeper_gemini.stream import GeminiTranslation

KIND = "gemini"
DIALECT = "chat"
API_VERSION = "v1beta"


class Gemini:
    """Guard: it carries the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Speak to every provider of this kind."""
        gateway.add_provider(KIND, partial(make_provider, clock=gateway.clock))


def make_provider(context: ProviderContext, clock: Clock | None = None) -> Provider:
    """A provider for one `[providers.*]` table. Raises ValueError for one without an address."""
    if not context.settings.base_url:
        example = "https://generativelanguage.googleapis.com"
        raise ValueError(f'kind "gemini" needs a base_url, such as "{example}"')
    return GeminiProvider(context, clock or Clock())


class GeminiProvider:
    """One configured place that speaks generateContent."""

    def __init__(self, context: ProviderContext, clock: Clock) -> None:
        self._upstream = context.upstream
        self._clock = clock
        self._version = context.settings.api_version or API_VERSION
        self._drop = context.settings.unsupported == "drop"
        self._headers = [(b"content-type", b"application/json"), (b"user-agent", b"tollkeeper")]
        if context.settings.credential is not None:
            key = context.settings.credential.reveal().encode("latin-1")
            self._headers.append((b"x-goog-api-key", key))

    def speaks(self, dialect: str) -> bool:
        """Whether requests of a dialect can be sent here: those of chat alone."""
        return dialect == DIALECT

    async def send(self, exchange: Exchange, attempt: Attempt) -> Reply:
        """Send a chat request in Gemini's shape; its reply comes back in that of chat."""
        model = attempt.deployment.model.removeprefix("models/")
        chat, unknown = read_chat(attempt.body)
        unsupported = Unsupported("Gemini", drop=self._drop)
        body = write_request(chat, unknown, model, unsupported)
        attempt.dropped.extend(unsupported.dropped)
        request = UpstreamRequest(
            method="POST",
            path=path_of(self._version, model, stream=bool(chat.stream)),
            headers=[*self._headers, (b"x-client-request-id", attempt.id.encode())],
            body=body,
        )
        reply = await self._upstream.send(request, attempt)
        return translate_reply(reply, GeminiTranslation(model, int(self._clock.time())))


def path_of(version: str, model: str, *, stream: bool) -> str:
    """The path of a call; nothing in a name can leave its place in it."""
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/{quote(version, safe='')}/models/{quote(model, safe='')}:{method}"
