"""Streams of messages: Anthropic's own as they pass, and chat's as they become such. No I/O.

Source: Anthropic's streaming of messages. Blocks come one after the other, each closed before the
next; every event has its name, and `message_stop` is the last.
"""

import msgspec

from tollkeeper import StreamReader, broken, find_value, quote, replace_value
from tollkeeper.canonical import JsonObject
from tollkeeper_messages.reply import (
    BAD_JSON,
    CallDelta,
    Chunk,
    ChunkChoice,
    Delta,
    Told,
    call_of,
    error_of,
    read_reply,
    start_of_message,
    stop_reason,
    thoughts_of,
    usage_of,
)

_CHAT_DONE = b"[DONE]"
_NULL = msgspec.Raw(b"null")
_DELTA_TAIL = b"}}\n\n"


class _Native(msgspec.Struct):
    type: str = ""
    message: msgspec.Raw = msgspec.Raw(b"")
    usage: dict[str, msgspec.Raw] | None = None


class _Started(msgspec.Struct):
    usage: dict[str, msgspec.Raw] | None = None


_read_native = msgspec.json.Decoder(_Native).decode
_read_started = msgspec.json.Decoder(_Started).decode
_read_chunk = msgspec.json.Decoder(Chunk).decode


class MessagesReader(StreamReader):
    """A stream of Anthropic's as it passes. Without `message_stop` it was cut."""

    noteworthy = (b'"message_start"', b'"message_delta"', b'"message_stop"', b'"error"')

    def __init__(self, alias: bytes | None = None, *, wants_usage: bool = True) -> None:
        super().__init__(alias, wants_usage=wants_usage)
        self._told: dict[str, msgspec.Raw] = {}

    def event(self, data: bytes) -> bytes | None:
        """Note usage and end; show the alias in the message that starts."""
        if not any(mark in data for mark in self.noteworthy):
            return data
        try:
            return self._noteworthy(_read_native(data), data)
        except BAD_JSON:
            return data

    def _noteworthy(self, event: _Native, data: bytes) -> bytes:
        if event.type == "message_stop":
            self.ended = True
        elif event.type == "message_start":
            message = bytes(event.message)
            self._told = _read_started(message).usage or {}
            if self.alias is not None and find_value(message, b"model") is not None:
                named = replace_value(message, b"model", self.alias)
                return replace_value(data, b"message", named)
        elif event.type == "message_delta" and event.usage:
            # Cumulative, and free to leave out what the start has told.
            self._told |= {name: raw for name, raw in event.usage.items() if raw != _NULL}
            self.usage = msgspec.json.encode(self._told)
        return data

    @property
    def whole(self) -> bool:
        """Never: what is whole has ended."""
        return False


class _Call:
    """A tool call on its way; `pieces` are arguments that wait for its turn."""

    def __init__(self, call_id: str | None) -> None:
        self.id = call_id
        self.name = ""
        self.pieces: list[str] = []
        self.opened = False

    def add(self, delta: CallDelta) -> None:
        self.id = self.id or delta.id
        if delta.function is not None:
            self.name = self.name or delta.function.name or ""
            if delta.function.arguments:
                self.pieces.append(delta.function.arguments)


class _Blocks:
    """The blocks of a message, of which one is open at most."""

    def __init__(self) -> None:
        self.kind = ""
        """Of the open one."""
        self.text_head = b""
        """What stands before a piece of text while a block of text is open."""
        self._index = -1

    def open(self, block: JsonObject) -> bytes:
        out = self.close()
        self._index += 1
        self.kind = block["type"]
        if self.kind == "text":
            self.text_head = self._delta_head("text_delta", "text")
        return out + _event("content_block_start", index=self._index, content_block=block)

    def delta(self, kind: str, key: str, piece: str) -> bytes:
        return self._delta_head(kind, key) + quote(piece) + _DELTA_TAIL

    def close(self) -> bytes:
        if not self.kind:
            return b""
        self.kind, self.text_head = "", b""
        return _event("content_block_stop", index=self._index)

    def _delta_head(self, kind: str, key: str) -> bytes:
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":'
        ) % (self._index, kind.encode(), key.encode())


def _event(kind: str, **members: object) -> bytes:
    """An event under its name: SDKs pass over one without."""
    data = msgspec.json.encode({"type": kind, **members})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class MessagesTranslation:
    """One chat reply on its way to being a message."""

    def __init__(self) -> None:
        self._blocks = _Blocks()
        self._started = False
        self._has_reasoned = False
        self._has_refused = False
        self._calls: dict[int, _Call] = {}
        self._last_call: _Call | None = None
        self._waiting: list[_Call] = []
        self._finish = ""
        self._usage: Told | None = None
        self._summed_up = False
        self._done = False

    def body(self, data: bytes) -> bytes:
        """A whole reply."""
        return read_reply(data)

    def event(self, data: bytes) -> bytes:
        """The events that a chunk becomes."""
        if data == _CHAT_DONE:
            return self.end()
        try:
            chunk = _read_chunk(data)
        except BAD_JSON:
            raise broken("an event of the stream is no chunk of a chat") from None
        if chunk.error is not None:
            raise error_of(chunk.error, data)
        if chunk.usage is not None:
            self._usage = chunk.usage
        if self._summed_up:
            return b""
        if chunk.choices:
            return self._begin(chunk) + self._choice(chunk.choices[0])
        return self._sum_up() if self._finish and chunk.usage is not None else b""

    def end(self) -> bytes:
        """What ends the message. Raises `UpstreamError` for a stream that was cut."""
        if self._done:
            return b""
        if not self._finish:
            raise broken("the stream ended without a finish_reason")
        self._done = True
        return self._sum_up() + _event("message_stop")

    def _sum_up(self) -> bytes:
        if self._summed_up:
            return b""
        self._summed_up = True
        calls = self._last_call is not None
        reason = stop_reason(self._finish, calls=calls, refused=self._has_refused)
        delta = {"stop_reason": reason, "stop_sequence": None}
        return self._close_all() + _event("message_delta", delta=delta, usage=usage_of(self._usage))

    def _begin(self, chunk: Chunk) -> bytes:
        if self._started:
            return b""
        self._started = True
        return _event("message_start", message=start_of_message(chunk.id, chunk.model))

    def _choice(self, choice: ChunkChoice) -> bytes:
        out = self._said(choice.delta) if choice.delta is not None else b""
        if choice.finish_reason:
            self._finish = choice.finish_reason
            out += self._close_all()
        return out

    def _said(self, delta: Delta) -> bytes:
        out = b""
        if delta.reasoning_content:
            self._has_reasoned = True
            out = self._think(delta.reasoning_content)
        for block in delta.thinking_blocks or ():
            out += self._thoughts(block)
        if delta.content:
            out += self._text(delta.content)
        if delta.refusal:
            self._has_refused = True
            out += self._text(delta.refusal)
        for call in delta.tool_calls or ():
            out += self._call(call)
        return out

    def _text(self, text: str) -> bytes:
        opening = b"" if self._blocks.text_head else self._open({"type": "text", "text": ""})
        return opening + self._blocks.text_head + quote(text) + _DELTA_TAIL

    def _think(self, text: str) -> bytes:
        opening = b"" if self._blocks.kind == "thinking" else self._open(thoughts_of(""))
        return opening + self._blocks.delta("thinking_delta", "thinking", text)

    def _thoughts(self, block: JsonObject) -> bytes:
        """Thoughts to be given back; their text may have been told before as reasoning."""
        if block.get("type") == "redacted_thinking":
            return self._open(block) + self._blocks.close()
        text, signature = block.get("thinking"), block.get("signature")
        out = b""
        if text and isinstance(text, str) and not self._has_reasoned:
            out = self._think(text)
        if not signature or not isinstance(signature, str):
            return out
        self._has_reasoned = False
        if self._blocks.kind != "thinking":
            out += self._open(thoughts_of(""))
        signed = self._blocks.delta("signature_delta", "signature", signature)
        return out + signed + self._blocks.close()

    def _open(self, block: JsonObject) -> bytes:
        return self._close_calls() + self._blocks.open(block)

    def _call(self, delta: CallDelta) -> bytes:
        """A piece of a call, told at once where it is that call's turn.

        Calls may take turns in chat; here the first is told as it comes and others wait for it.
        """
        call = self._call_of(delta)
        call.add(delta)
        if call not in self._waiting and call.pieces:
            raise broken("a tool call goes on after something else was said")
        return self._advance(call) if self._waiting[:1] == [call] and call.name else b""

    def _call_of(self, delta: CallDelta) -> _Call:
        """The call that a delta belongs to. Some upstreams give no index, or always the same."""
        known = self._last_call if delta.index is None else self._calls.get(delta.index)
        named = delta.function is not None and delta.function.name
        if known is None or (named and delta.id and known.id and delta.id != known.id):
            known = _Call(delta.id)
            self._waiting.append(known)
        if delta.index is not None:
            self._calls[delta.index] = known
        self._last_call = known
        return known

    def _advance(self, call: _Call) -> bytes:
        """Open a call's block and tell what has come of its arguments."""
        out = b""
        if not call.opened:
            call.opened = True
            out = self._blocks.open(call_of(call.id, call.name, {}))
        if call.pieces:
            out += self._blocks.delta("input_json_delta", "partial_json", "".join(call.pieces))
            call.pieces.clear()
        return out

    def _close_calls(self) -> bytes:
        """Tell all calls that have come."""
        out = b""
        for call in self._waiting:
            if not call.name:
                raise broken("a tool call has no name")
            out += self._advance(call) + self._blocks.close()
        self._waiting.clear()
        return out

    def _close_all(self) -> bytes:
        return self._close_calls() + self._blocks.close()
