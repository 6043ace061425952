"""Provider kind `openai`: OpenAI and everything that speaks like it.

The client's body goes upstream as it came. What must change, and nothing else: the model's name
where the client used an alias, the request for a usage event in every stream, and what the preset
of a service cures.
"""

from urllib.parse import urlsplit

import msgspec

from tollkeeper import (
    Attempt,
    Exchange,
    Gateway,
    Operation,
    PluginSettings,
    Provider,
    ProviderContext,
    ProviderSettings,
    Reply,
    Unsupported,
    UpstreamRequest,
    hookimpl,
    translate_reply,
)
from tollkeeper.jsongate import read_object
from tollkeeper_openai.request import PRESETS, Preset, asks_for, path_of
from tollkeeper_openai.service import with_older_name, with_usage_option, without_foreign
from tollkeeper_openai.stream import Tidied

KIND = "openai"
JSON = "application/json"
CURED = frozenset({"chat", "completions"})


class OpenAI:
    """Guard: it carries the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Speak to every provider of this kind."""
        gateway.add_provider(
            KIND,
            make_provider,
            presets={name: preset.base_url for name, preset in PRESETS.items()},
        )


def make_provider(context: ProviderContext) -> Provider:
    """A provider for one `[providers.*]` table. Raises ValueError for one without an address."""
    settings = context.settings
    name = settings.preset or ("openai" if is_openai(settings) else "")
    if not settings.base_url:
        raise ValueError('kind "openai" needs a base_url, such as "https://api.openai.com/v1"')
    return OpenAIProvider(context, PRESETS[name])


def is_openai(settings: ProviderSettings) -> bool:
    """Whether a table without a preset is plainly OpenAI's own, in whatever region."""
    host = urlsplit(settings.base_url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


class OpenAIProvider:
    """One configured place that speaks OpenAI's API."""

    def __init__(self, context: ProviderContext, preset: Preset) -> None:
        self._name = context.name
        self._upstream = context.upstream
        self._settings = context.settings
        self._preset = preset
        headers = [(b"user-agent", b"tollkeeper")]
        if context.settings.credential is not None:
            secret = context.settings.credential.reveal()
            value = f"Bearer {secret}" if preset.key_header == "authorization" else secret
            headers.append((preset.key_header.encode(), value.encode("latin-1")))
        self._fixed = tuple(headers)
        self._fixed_json = ((b"content-type", JSON.encode()), *headers)
        self._cures = bool(preset.cannot or preset.cures)
        self._old = not preset.newer_bound

    def speaks(self, dialect: str) -> bool:
        """Whether operations of this dialect can be sent here as they are."""
        return dialect in self._preset.dialects

    async def send(self, exchange: Exchange, attempt: Attempt) -> Reply:
        """Send the client's body, with what must change changed."""
        operation = attempt.operation or exchange.operation
        preset, own = self._preset, [(b"x-client-request-id", attempt.id.encode("ascii"))]
        dialect = operation.dialect
        is_chat = dialect is not None and dialect.name == "chat"
        kind = JSON if is_chat or dialect is None else dialect.content_type(exchange)
        if kind != JSON:
            own.append((b"content-type", kind.encode("latin-1")))
        request = UpstreamRequest(
            method="POST",
            path=path_of(operation, preset, attempt.deployment, self._settings),
            fixed_headers=self._fixed_json if kind == JSON else self._fixed,
            headers=own,
            body=self._body(exchange, attempt, operation),
        )
        reply = await self._upstream.send(request, attempt)
        return translate_reply(reply, Tidied()) if is_chat and preset.tidies else reply

    def _body(self, exchange: Exchange, attempt: Attempt, operation: Operation) -> bytes:
        body, model, dialect = attempt.body, attempt.deployment.model, operation.dialect
        if operation is not exchange.operation:
            body, dropped = without_foreign(body, self._preset.keeps)
            attempt.dropped.extend(dropped)
        # Where a dialect knows a model for requests without one, theirs does not name it.
        if dialect is not None and (model != exchange.model or dialect.default_model):
            body = dialect.with_model(exchange, body, model)
        if exchange.stream and not exchange.wants_usage:
            body = with_usage_option(body)
        if attempt.bound is not None and self._old and dialect is not None:
            body = with_older_name(body) if dialect.name == "chat" else body
        if self._cures and dialect is not None and dialect.name in CURED:
            if self._preset.cannot:
                body = self._without_unsupported(body, attempt)
            for cure in self._preset.cures:
                body = cure(body)
        return body

    def _without_unsupported(self, body: bytes, attempt: Attempt) -> bytes:
        """Refuse what the service would ignore, or take it out and say so."""
        named = [param for param in self._preset.cannot if b'"%b"' % param.encode() in body]
        if not named:
            return body
        unsupported = Unsupported(self._name, drop=self._settings.unsupported == "drop")
        document = read_object(body)
        for param in named:
            if asks_for(param, document.get(param)):
                unsupported.refuse(param)
                del document[param]
        attempt.dropped.extend(unsupported.dropped)
        return msgspec.json.encode(document) if unsupported.dropped else body
