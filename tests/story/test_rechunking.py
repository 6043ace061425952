"""However an upstream's stream is cut, the client gets the same; wherever it ends, it shows."""

import json
import os
import re
from collections import deque
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from compatibility.answers import ANSWERS
from compatibility.cells import LOSSLESS, TRANSLATED, Cell, cells
from compatibility.requests import PATHS, request
from compatibility.upstreams import native_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper import Exchange, Operation, Reply, Translation, UpstreamError, translate_reply
from tollkeeper._server.chat import ChatDialect
from tollkeeper._server.relay import StreamRelay
from tollkeeper.dialect import Dialect
from tollkeeper.provider import Clock
from tollkeeper.testing import ScriptedReply
from tollkeeper_anthropic.stream import ChatTranslation
from tollkeeper_gemini.stream import GeminiTranslation
from tollkeeper_messages.service import MessagesDialect
from tollkeeper_responses.routes import ResponsesDialect

RECHUNKINGS = int(os.environ.get("TOLLKEEPER_RECHUNKINGS", "5000"))
MADE_HERE = re.compile(rb"\b(resp|msg|fc|rs|chatcmpl|call_gem)[-_][0-9a-zA-Z_-]+")
"""Ids that are new each time."""
SSE = {"content-type": "text/event-stream"}


class StoppedClock(Clock):
    def time(self) -> float:
        return 1735689600.0


DIALECTS: dict[str, Dialect] = {
    "chat": ChatDialect(),
    "messages": MessagesDialect(),
    "responses": ResponsesDialect(StoppedClock(), keeps=False),
}
STREAMS = [cell for cell in cells() if cell.streamed and cell.state in (LOSSLESS, TRANSLATED)]


def compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


@cache
def stream_of(cell: Cell) -> bytes:
    """What the upstream sends."""
    native = native_of(cell.dialect, cell.provider)
    return b"".join(native.frames(ANSWERS[cell.feature], compact))


def translations(cell: Cell) -> list[Translation]:
    """What stands between the upstream's dialect and the client's."""
    if cell.native:
        return []
    dialect = DIALECTS[cell.dialect]
    exchange = Exchange(Operation("x", "POST", PATHS[cell.dialect], dialect), "", {}, "test", 0.0)
    exchange.body = compact(request(cell))
    exchange.model, exchange.stream, exchange.wants_usage = dialect.peek(exchange)[:3]
    of_provider: dict[str, Translation] = {
        "anthropic": ChatTranslation(1735689600),
        "gemini": GeminiTranslation("gemini-3-pro-preview", 1735689600),
    }
    found = [of_provider[cell.provider]] if cell.provider in of_provider else []
    if cell.dialect != "chat" and (turned := dialect.to_chat(exchange)) is not None:
        found.append(turned[1])
    return found


async def client_bytes(cell: Cell, parts: list[bytes]) -> bytes:
    """What the client gets of an upstream's stream that comes in these parts and then ends."""
    reply: Reply = ScriptedReply(200, SSE, deque(parts))
    for translation in translations(cell):
        reply = translate_reply(reply, translation)
    dialect, out = DIALECTS[cell.dialect], b""
    relay = StreamRelay(dialect, dialect.reader(b'"smart"', wants_usage=False), None)
    while not relay.ended:
        chunk = await reply.chunk()
        out += relay.feed(chunk) if chunk else relay.close()
        if relay.failure is not None:
            raise relay.failure
    return MADE_HERE.sub(rb"\1", out + relay.tail)


@settings(max_examples=RECHUNKINGS, deadline=None)
@given(
    st.sampled_from(STREAMS),
    st.lists(st.integers(1, 10_000), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
)
async def test_however_a_stream_is_cut_the_client_gets_the_same(
    cell: Cell, cuts: list[int], line_end: bytes
) -> None:
    whole = stream_of(cell)
    expected = await client_bytes(cell, [whole])
    sent = whole.replace(b"\n", line_end)
    edges = sorted({0, len(sent), *(cut % len(sent) for cut in cuts)})
    parts = [sent[a:b] for a, b in pairwise(edges)]
    got = await client_bytes(cell, parts)
    # Bytes that pass through keep the upstream's line ends, where nothing in them changed.
    assert got.replace(b"\r\n", b"\n") == expected


@pytest.mark.parametrize("cell", [c for c in STREAMS if c.feature == "parallel tools"], ids=str)
async def test_wherever_a_stream_ends_too_early_the_client_is_told(cell: Cell) -> None:
    whole = stream_of(cell)
    expected = await client_bytes(cell, [whole])
    for end in range(len(whole)):
        try:
            got = await client_bytes(cell, [whole[:end]])
        except UpstreamError:
            continue
        if cell.provider == "openai" and cell.dialect != "responses":
            # A stream of chunks is whole with its finish reason, whatever else is missing.
            assert b'"finish_reason":"tool_calls"' in whole[:end]
        else:
            assert end >= len(whole) - 2, f"it ends at {end} without a word"
            assert got.rstrip() == expected.rstrip()
