"""Turning one dialect into another: what a translator is, and a reply seen through one."""

from collections.abc import Mapping
from typing import Protocol

from tollkeeper.errors import UpstreamError, invalid_request
from tollkeeper.exchange import Reply
from tollkeeper.sse import Splitter, data_in


class Translation(Protocol):
    """One reply on its way from one dialect to another. Made for one attempt; may keep state.

    Each method raises `UpstreamError` where what it is given is not what the dialect promises:
    fault "broken" for nonsense or a reply that is cut, "status" with a status and an OpenAI-shaped
    body for an error inside a reply.
    """

    def body(self, data: bytes) -> bytes:
        """A whole reply, with status 200."""

    def event(self, data: bytes) -> bytes:
        """What the data of one event becomes: whole server-sent events, or `b""` for nothing."""

    def end(self) -> bytes:
        """What ends the stream, at the clean end of the upstream's."""


class Unsupported:
    """What the other side cannot do: refused, or dropped and listed, as the operator chose.

    `dropped` goes out as the header `x-tollkeeper-dropped`.
    """

    def __init__(self, provider: str, *, drop: bool) -> None:
        self._provider = provider
        self._drop = drop
        self.dropped: list[str] = []

    def refuse(self, param: str, why: str = "") -> None:
        """A parameter that changes the answer and cannot be honoured: `Refused`, or noted."""
        if not self._drop:
            reason = why or f"{self._provider} has nothing like it"
            raise invalid_request(f"'{param}' cannot be honoured: {reason}.", param=param)
        self.ignore(param)

    def ignore(self, param: str) -> None:
        """A hint that changes no answer, such as a cache key: always dropped, always listed."""
        if param not in self.dropped:
            self.dropped.append(param)


def translate_reply(reply: Reply, translation: Translation) -> Reply:
    """`reply` as the translation makes it. An error status keeps its body for the core to map."""
    return reply if reply.status != 200 else _TranslatedReply(reply, translation)


class _TranslatedReply:
    def __init__(self, reply: Reply, translation: Translation) -> None:
        self.status = reply.status
        self.headers: Mapping[str, str] = reply.headers
        self._reply = reply
        self._translation = translation
        self._splitter = Splitter()
        self._ended = False
        self._failure: UpstreamError | None = None

    @property
    def closed(self) -> bool:
        return self._reply.closed

    async def read(self) -> bytes:
        return self._translation.body(await self._reply.read())

    async def chunk(self) -> bytes:
        while not self._ended:
            if self._failure is not None:
                raise self._failure
            chunk = await self._reply.chunk()
            if chunk:
                out = self._events(self._splitter.feed(chunk))
            else:
                self._ended = True
                out = self._events(self._splitter.rest)
                out += b"" if self._failure else self._translation.end()
            if out:
                self._ended = self._ended and self._failure is None
                return out
        if self._failure is not None:
            raise self._failure
        return b""

    def _events(self, whole: bytes) -> bytes:
        """What some events become; those before one that fails are not lost."""
        out: list[bytes] = []
        try:
            out.extend(map(self._translation.event, data_in(whole)))
        except UpstreamError as failure:
            self._failure = failure
        return b"".join(out)

    async def aclose(self) -> None:
        await self._reply.aclose()


def broken(message: str) -> UpstreamError:
    """The error for a reply that is not what its dialect promises."""
    return UpstreamError("broken", message)
