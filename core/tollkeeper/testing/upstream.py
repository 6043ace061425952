"""An upstream that answers what a test told it to."""

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from tollkeeper.errors import UpstreamError
from tollkeeper.exchange import Attempt, Exchange, Reply
from tollkeeper.gateway import Gateway
from tollkeeper.hookspecs import hookimpl
from tollkeeper.provider import Provider, ProviderContext
from tollkeeper.settings import PluginSettings

MODEL = "test"
"""The model that a test gateway serves by its scripted upstream."""


@dataclass(slots=True)
class ScriptedReply:
    """A reply given part by part; an exception among the parts is raised in its place."""

    status: int
    headers: Mapping[str, str]
    parts: deque[bytes | Exception | float]
    closed: bool = False

    async def chunk(self) -> bytes:
        """The next part. A number waits that many seconds."""
        await trio.lowlevel.checkpoint()
        while self.parts:
            part = self.parts.popleft()
            if isinstance(part, Exception):
                raise part
            if isinstance(part, (int, float)):
                await trio.sleep(part)
            else:
                return part
        return b""

    async def read(self) -> bytes:
        """The whole body."""
        whole = b""
        while part := await self.chunk():
            whole += part
        return whole

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True
        await trio.lowlevel.checkpoint()


def completion(text: str = "hello", model: str = MODEL) -> dict[str, Any]:
    """A whole chat completion, as an upstream sends it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1735689600,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def chunk(text: str | None, *, model: str = MODEL, finish: str | None = None) -> bytes:
    """One event of a chat stream; with `text` None its delta is empty."""
    delta = {} if text is None else {"content": text}
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1735689600,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def usage_chunk(input_tokens: int = 3, output_tokens: int = 2, *, model: str = MODEL) -> bytes:
    """The event that carries the usage of a stream."""
    usage = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens}
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1735689600}
    document |= {"model": model, "choices": [], "usage": usage}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class ScriptedUpstream:
    """A provider of kind `scripted` that answers with what it was told, one reply per request.

    With nothing scripted it answers `completion()`, or the same text as a stream.
    """

    def __init__(self) -> None:
        self.dialects = {"chat"}
        """Names of the dialects it speaks; others are turned into chat where that is possible."""
        self.bodies: list[bytes] = []
        """The request bodies that reached it."""
        self.attempts: list[Attempt] = []
        self.replies: list[ScriptedReply] = []
        """The replies given."""
        self._script: deque[ScriptedReply | Exception] = deque()

    def reply(
        self,
        document: object = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        delay: float = 0,
    ) -> None:
        """Answer the next request with a JSON document, after `delay` seconds."""
        body = json.dumps(completion() if document is None else document).encode()
        self._add(status, "application/json", headers, [delay, body])

    def stream(
        self, *parts: bytes | Exception | float, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer the next request with a stream: bytes are sent, numbers waited, errors raised."""
        self._add(200, "text/event-stream", headers, parts)

    def raw(self, kind: str, *parts: bytes | Exception | float) -> None:
        """Answer the next request with bytes of another content type."""
        self._add(200, kind, None, parts)

    def forget(self) -> None:
        """Drop what was scripted and not yet asked for."""
        self._script.clear()

    def speaks(self, dialect: str) -> bool:
        """Whether requests of this dialect reach it as they are."""
        return dialect in self.dialects

    def fail(self, error: Exception | None = None) -> None:
        """Let the next request come to nothing."""
        self._script.append(error or UpstreamError("connect", "nobody is there"))

    def _add(
        self,
        status: int,
        kind: str,
        headers: Mapping[str, str] | None,
        parts: Iterable[bytes | Exception | float],
    ) -> None:
        given = {"content-type": kind, **(headers or {})}
        self._script.append(ScriptedReply(status, given, deque(parts)))

    async def send(self, exchange: Exchange, attempt: Attempt) -> Reply:
        """Answer one request."""
        self.bodies.append(attempt.body)
        self.attempts.append(attempt)
        attempt.sent = True
        await trio.lowlevel.checkpoint()
        if not self._script:
            if exchange.stream:
                self.stream(chunk("hel"), chunk("lo"), chunk(None, finish="stop"), DONE)
            else:
                self.reply()
        scripted = self._script.popleft()
        if isinstance(scripted, Exception):
            raise scripted
        self.replies.append(scripted)
        return scripted

    def as_plugin(self) -> type[Any]:
        """A plugin class whose provider is this upstream."""
        upstream = self

        class Scripted:
            def __init__(self, settings: PluginSettings) -> None:
                pass

            @hookimpl
            def register(self, gateway: Gateway) -> None:
                def make(_context: ProviderContext) -> Provider:
                    return upstream

                gateway.add_provider("scripted", make)

        return Scripted
