"""tollkeeper: a self-hosted, OpenAI-compatible LLM gateway made of plugins.

These are the names that a plugin may use. Everything else is private to the core.
"""

from tollkeeper.chunks import ChunkReader
from tollkeeper.dialect import Asked, Dialect, StreamReader
from tollkeeper.errors import (
    ApiError,
    ConfigError,
    Failed,
    PluginError,
    Refused,
    TollkeeperError,
    UpstreamError,
    invalid_request,
    model_not_found,
)
from tollkeeper.exchange import (
    ANONYMOUS,
    Answer,
    Attempt,
    Deployment,
    Event,
    Exchange,
    Head,
    Operation,
    Outcome,
    Principal,
    Reply,
    Tap,
    Usage,
)
from tollkeeper.gateway import (
    Authorizer,
    Clock,
    Gateway,
    KeyIssuer,
    NewKey,
    Provider,
    ProviderContext,
    Upstream,
    UpstreamRequest,
)
from tollkeeper.hookspecs import Send, hookimpl
from tollkeeper.jsonspan import find_value, quote, replace_value
from tollkeeper.settings import ModelSettings, PluginSettings, ProviderSettings, Seconds, Secret
from tollkeeper.storage import Database, Org, ensure_org
from tollkeeper.translation import Translation, Unsupported, broken, translate_reply

__all__ = [
    "ANONYMOUS",
    "Answer",
    "ApiError",
    "Asked",
    "Attempt",
    "Authorizer",
    "ChunkReader",
    "Clock",
    "ConfigError",
    "Database",
    "Deployment",
    "Dialect",
    "Event",
    "Exchange",
    "Failed",
    "Gateway",
    "Head",
    "KeyIssuer",
    "ModelSettings",
    "NewKey",
    "Operation",
    "Org",
    "Outcome",
    "PluginError",
    "PluginSettings",
    "Principal",
    "Provider",
    "ProviderContext",
    "ProviderSettings",
    "Refused",
    "Reply",
    "Seconds",
    "Secret",
    "Send",
    "StreamReader",
    "Tap",
    "TollkeeperError",
    "Translation",
    "Unsupported",
    "Upstream",
    "UpstreamError",
    "UpstreamRequest",
    "Usage",
    "broken",
    "ensure_org",
    "find_value",
    "hookimpl",
    "invalid_request",
    "model_not_found",
    "quote",
    "replace_value",
    "translate_reply",
]
