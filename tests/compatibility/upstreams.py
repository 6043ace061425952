"""The four dialects that providers speak: where, with what credential, in which frames."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from harness import STREAM_HEAD, RawUpstream, http_chunk

from compatibility import anthropic_messages, gemini, openai_chat, openai_responses
from compatibility.answers import Answer
from compatibility.requests import ALIAS, Json

SECRET = "sk-upstream-secret"


@dataclass(frozen=True, slots=True)
class Native:
    """One of them."""

    data: ModuleType
    """Its wanted bodies, replies and events."""
    turns: str
    """The member of a body that holds the conversation."""
    model: str
    """What is asked for there under the client's alias."""
    table: str
    """Of the TOML, beside the address."""
    base: str
    """Behind the address."""
    path: str
    stream_path: str
    credential: tuple[str, str]
    """The header with our credential, and its value."""
    named: bool = False
    """Whether an event's type stands in front of it as its name."""
    done: bytes = b""
    """What ends a stream beside its events."""

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return self.data.__name__.rpartition(".")[2]

    def toml(self, upstream: RawUpstream, alias: str = ALIAS) -> str:
        """A configuration whose one model is served there."""
        return f"""
[storage]
url = "sqlite:///:memory:"
[providers.up]
{self.table}
base_url = "http://127.0.0.1:{upstream.port}{self.base}"
credential = "{SECRET}"
[models."{alias}"]
deployments = [{{ provider = "up", model = "{self.model}" }}]
[plugins.openai]
[plugins.anthropic]
[plugins.gemini]
[plugins.messages]
[plugins.responses]
"""

    def frames(self, answer: Answer, encode: Callable[[object], bytes]) -> list[bytes]:
        """The events of a stream, as bytes."""
        framed = [self.frame(event, encode) for event in self.data.events(answer)]
        return [*framed, self.done] if self.done else framed

    def frame(self, event: Json, encode: Callable[[object], bytes]) -> bytes:
        """One event."""
        name = f"event: {event['type']}\n".encode() if self.named else b""
        return b"%bdata: %b\n\n" % (name, encode(event))


_OPENAI: dict[str, Any] = {
    "model": "gpt-5.1",
    "table": 'kind = "openai"\npreset = "openai"',
    "base": "/v1",
    "credential": ("authorization", f"Bearer {SECRET}"),
}
OPENAI_CHAT = Native(
    data=openai_chat,
    turns="messages",
    path="/v1/chat/completions",
    stream_path="/v1/chat/completions",
    done=b"data: [DONE]\n\n",
    **_OPENAI,
)
OPENAI_RESPONSES = Native(
    data=openai_responses,
    turns="input",
    path="/v1/responses",
    stream_path="/v1/responses",
    named=True,
    **_OPENAI,
)
ANTHROPIC = Native(
    data=anthropic_messages,
    turns="messages",
    model="claude-sonnet-4-5",
    table='kind = "anthropic"',
    base="",
    path="/v1/messages",
    stream_path="/v1/messages",
    credential=("x-api-key", SECRET),
    named=True,
)
GEMINI = Native(
    data=gemini,
    turns="contents",
    model="gemini-3-pro-preview",
    table='kind = "gemini"',
    base="",
    path="/v1beta/models/gemini-3-pro-preview:generateContent",
    stream_path="/v1beta/models/gemini-3-pro-preview:streamGenerateContent?alt=sse",
    credential=("x-goog-api-key", SECRET),
)


def native_of(dialect: str, provider: str) -> Native:
    """What the provider is spoken to in for a client of this dialect."""
    if provider == "openai":
        return OPENAI_RESPONSES if dialect == "responses" else OPENAI_CHAT
    return {"anthropic": ANTHROPIC, "gemini": GEMINI}[provider]


def http_stream(events: list[bytes], *, ends: bool = True) -> bytes:
    """A stream on the wire, cut into pieces that know nothing of lines or characters."""
    whole = b"".join(events)
    size = len(whole) // 7 + 1
    pieces = [http_chunk(whole[at : at + size]) for at in range(0, len(whole), size)]
    return b"".join([STREAM_HEAD, *pieces, b"0\r\n\r\n" if ends else b""])
