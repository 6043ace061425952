"""Provider kind `demo`: answers chat offline and deterministically, and fails on request.

The last user message `status 429`, `context`, `filter`, `slow 5` or `cut 3` asks for that failure.
"""

from collections.abc import Iterator, Mapping

import msgspec
import trio

from tollkeeper import (
    Attempt,
    Exchange,
    Gateway,
    PluginSettings,
    Provider,
    ProviderContext,
    Reply,
    UpstreamError,
    hookimpl,
)
from tollkeeper_demo.service import PACE, Script, chunks, completion, write_script

KIND = "demo"


class Demo:
    """Guard: it carries the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Answer for every provider of this kind."""
        gateway.add_provider(KIND, make_provider)


def make_provider(context: ProviderContext) -> Provider:
    """A provider that stays in this process."""
    return DemoProvider(context.settings.first_byte_timeout)


class DemoProvider:
    """The demo upstream, with the deadline that a real one would have."""

    def __init__(self, first_byte_timeout: float) -> None:
        self._first_byte_timeout = first_byte_timeout

    async def send(self, exchange: Exchange, attempt: Attempt) -> Reply:
        """Answer as the request asks."""
        attempt.sent = True
        script = write_script(attempt.body)
        await trio.sleep(min(script.delay, self._first_byte_timeout))
        if script.delay >= self._first_byte_timeout:
            raise UpstreamError("timeout", "the demo was asked to be slow")
        return DemoReply(script, f"chatcmpl-{attempt.id}")


class DemoReply:
    """A reply made as it is read: a stream at the pace of speech, the rest at once."""

    def __init__(self, script: Script, reply_id: str) -> None:
        self.status = script.status
        streams = script.stream and script.status == 200
        kind = "text/event-stream" if streams else "application/json"
        self.headers: Mapping[str, str] = {"content-type": kind}
        if script.status == 429:
            self.headers = {**self.headers, "retry-after": "1"}
        self._cut_after = script.cut_after
        self._pace = PACE if streams else 0.0
        self._parts = self._parts_of(script, reply_id)
        self._given = 0
        self.closed = True  # nothing is open

    def _parts_of(self, script: Script, reply_id: str) -> Iterator[bytes]:
        if script.status != 200:
            return iter([msgspec.json.encode(script.error)])
        if script.stream:
            return chunks(script, reply_id)
        return iter([msgspec.json.encode(completion(script, reply_id))])

    async def chunk(self) -> bytes:
        """The next part; breaks off where the request asked for it."""
        if self._cut_after is not None and self._given > self._cut_after:
            raise UpstreamError("broken", "the demo was asked to break off")
        await trio.sleep(self._pace if self._given else 0)
        self._given += 1
        if self._cut_after is not None and not self._pace:
            raise UpstreamError("broken", "the demo was asked to break off")
        return next(self._parts, b"")

    async def read(self) -> bytes:
        """The whole body."""
        parts = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    async def aclose(self) -> None:
        """Nothing is open."""
        await trio.lowlevel.checkpoint()
