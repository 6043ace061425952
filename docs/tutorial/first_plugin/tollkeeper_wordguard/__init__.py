"""Wordguard: refuses requests that contain a word, and stamps every reply."""

import json
import re
from collections.abc import Iterator

from pydantic import Field

from tollkeeper import Exchange, Head, PluginSettings, hookimpl, invalid_request

HEADER = "x-wordguard"


class WordguardSettings(PluginSettings):
    """What `[plugins.wordguard]` may hold."""

    words: tuple[str, ...] = Field(default=(), strict=False)
    """Words that no message may contain, in upper or lower case."""
    stamp: str = Field(default="checked", pattern=r"^[!-~]+$")
    """Value of the reply header `x-wordguard`."""


class Wordguard:
    """Guard: a request that cannot be checked does not pass."""

    Settings = WordguardSettings
    policy = "guard"

    def __init__(self, settings: WordguardSettings) -> None:
        self._stamp = settings.stamp
        self._words = {word.casefold() for word in settings.words}

    @hookimpl
    async def transform_request(self, exchange: Exchange) -> bytes | None:
        """Refuse a request that says one of the words; change nothing in any other."""
        if exchange.operation.dialect is None:
            return None  # the list of models has no messages
        if said := self._words & words_in(exchange.body):
            raise invalid_request(f"The word '{min(said)}' is refused here.", param="messages")
        return None

    @hookimpl
    def reply(self, head: Head) -> None:
        """Stamp every reply, refusals and errors too."""
        head.headers[HEADER] = self._stamp


def words_in(body: bytes) -> set[str]:
    """Every word of every message of a chat request, in lower case."""
    texts = texts_in(json.loads(body)["messages"])
    return {word for text in texts for word in re.findall(r"\w+", text.casefold())}


def texts_in(messages: object) -> Iterator[str]:
    """The text of messages, whether they hold a string or a list of parts."""
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else [{"text": content}]:
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                yield text
