"""tollkeeper: a self-hosted, OpenAI-compatible LLM gateway made of plugins.

These are the names that a plugin may use. Everything else is private to the core.
"""

from tollkeeper.chunks import ChunkReader
from tollkeeper.dialect import Asked, Dialect, StreamReader, bound_of
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
from tollkeeper.gateway import Gateway, KeyIssuer, NewKey
from tollkeeper.hookspecs import Send, hookimpl
from tollkeeper.jsonspan import find_value, quote, replace_value
from tollkeeper.management import Authorizer, Caller
from tollkeeper.notice import Notice
from tollkeeper.provider import Clock, Provider, ProviderContext, Upstream, UpstreamRequest
from tollkeeper.settings import (
    ModelSettings,
    Money,
    PluginSettings,
    PriceSettings,
    ProviderSettings,
    Seconds,
    Secret,
    Size,
)
from tollkeeper.storage import Database, Org, Session, ensure_org
from tollkeeper.translation import Translation, Unsupported, broken, translate_reply

__all__ = [
    "ANONYMOUS",
    "Answer",
    "ApiError",
    "Asked",
    "Attempt",
    "Authorizer",
    "Caller",
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
    "Money",
    "NewKey",
    "Notice",
    "Operation",
    "Org",
    "Outcome",
    "PluginError",
    "PluginSettings",
    "PriceSettings",
    "Principal",
    "Provider",
    "ProviderContext",
    "ProviderSettings",
    "Refused",
    "Reply",
    "Seconds",
    "Secret",
    "Send",
    "Session",
    "Size",
    "StreamReader",
    "Tap",
    "TollkeeperError",
    "Translation",
    "Unsupported",
    "Upstream",
    "UpstreamError",
    "UpstreamRequest",
    "Usage",
    "bound_of",
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
