"""The events of Anthropic's stream as chunks of a chat. Keeps the state of one reply, no I/O.

Source: Anthropic's streaming of messages. The order of chunks is OpenAI's: role, deltas, one
finish, usage, `[DONE]`.
"""

from dataclasses import dataclass, field

import msgspec

from tollkeeper import broken, quote
from tollkeeper.canonical import Delta, FinishReason, FunctionDelta, JsonObject, ToolCallDelta
from tollkeeper_anthropic.reply import (
    BAD_JSON,
    THOUGHTS,
    Block,
    StopDetails,
    Usage,
    chat_usage,
    error_of,
    explanation,
    finish,
    read_reply,
)

_DONE = b"data: [DONE]\n\n"
_KEEPALIVE = b": keepalive\n\n"
_TAIL = b'},"logprobs":null,"finish_reason":null}]}\n\n'


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class _Start(msgspec.Struct):
    id: str
    model: str
    usage: Usage | None = None


class _Event(msgspec.Struct):
    type: str
    delta: _Delta | None = None
    index: int = 0
    content_block: JsonObject | None = None
    message: _Start | None = None
    usage: Usage | None = None


_read = msgspec.json.Decoder(_Event).decode


@dataclass(slots=True)
class _Thoughts:
    """A block of thoughts on its way, to be given back whole and unchanged."""

    block: JsonObject
    pieces: list[str] = field(default_factory=list)

    def whole(self) -> JsonObject:
        if not self.pieces:
            return self.block
        return {**self.block, "thinking": "".join(self.pieces)}


@dataclass(slots=True)
class _Call:
    """A tool call on its way; `arguments` is what it has if no delta comes."""

    number: int
    arguments: str
    begun: bool = False


class ChatTranslation:
    """One reply of Anthropic's on its way to being a chat's, made at `created` (Unix seconds)."""

    def __init__(self, created: int) -> None:
        self._created = created
        self._head = b""
        self._text_head = b""
        self._thoughts: dict[int, _Thoughts] = {}
        self._to_give: list[JsonObject] = []
        self._given = 0
        self._calls: dict[int, _Call] = {}
        self._call_count = 0
        self._usage: Usage | None = None
        self._finished = False
        self._done = False

    def body(self, data: bytes) -> bytes:
        """A whole reply."""
        return read_reply(data, self._created)

    def event(self, data: bytes) -> bytes:
        """The chunks that an event becomes; what is not known becomes nothing."""
        try:
            event = _read(data)
            delta = event.delta
            if delta is not None and delta.type == "text_delta" and self._text_head:
                return self._text_head + quote(delta.text) + _TAIL if delta.text else b""
            return b"" if self._done else self._rare(event, data)
        except BAD_JSON:
            raise broken("an event of the stream is none of Anthropic's") from None

    def end(self) -> bytes:
        """Nothing: the stream has said that it is over, or it was cut."""
        if not self._done:
            raise broken("the stream ended before its message")
        return b""

    def _rare(self, event: _Event, data: bytes) -> bytes:
        """All but text."""
        if event.type == "ping":
            return _KEEPALIVE
        if event.type == "error":
            raise error_of(data)
        if event.type == "message_start":
            return self._start(event)
        if not self._head:
            raise broken("the stream does not begin with its message")
        match event.type:
            case "content_block_start":
                return self._start_block(event)
            case "content_block_delta":
                return self._delta(event)
            case "content_block_stop":
                return self._stop_block(event.index)
            case _:
                return self._end_message(event)

    def _start(self, event: _Event) -> bytes:
        message = event.message
        if message is None or self._head:
            raise broken("the stream does not begin with one message")
        self._usage = message.usage
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,' % (
            quote(message.id),
            self._created,
            quote(message.model),
        )
        self._text_head = self._head + b'"choices":[{"index":0,"delta":{"content":'
        return self._chunk(Delta(role="assistant", content=""))

    def _chunk(self, delta: Delta, reason: FinishReason | None = None) -> bytes:
        return b'%b"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]}\n\n' % (
            self._head,
            msgspec.json.encode(delta),
            msgspec.json.encode(reason),
        )

    def _start_block(self, event: _Event) -> bytes:
        found = event.content_block or {}
        block = msgspec.convert(found, Block)
        if block.type in THOUGHTS:
            self._thoughts[event.index] = _Thoughts(found)
            return self._think(event.index, block.thinking)
        out = self._give_thoughts()
        if block.type == "tool_use":
            return out + self._start_call(event.index, block, found.get("input"))
        return out + self._chunk(Delta(content=block.text)) if block.text else out

    def _give_thoughts(self) -> bytes:
        """Whole blocks of thoughts, as many as there are at once.

        SDKs add a list to one that has come before only by an index in each of its items.
        """
        blocks, self._to_give = self._to_give, []
        if not blocks:
            return b""
        if self._given:
            blocks = [{**block, "index": self._given + i} for i, block in enumerate(blocks)]
        self._given += len(blocks)
        return self._chunk(Delta(thinking_blocks=blocks))

    def _start_call(self, index: int, block: Block, arguments: object) -> bytes:
        call = _Call(self._call_count, msgspec.json.encode(arguments or {}).decode())
        self._calls[index] = call
        self._call_count += 1
        function = FunctionDelta(name=block.name, arguments="")
        first = ToolCallDelta(index=call.number, id=block.id, type="function", function=function)
        return self._chunk(Delta(tool_calls=[first]))

    def _delta(self, event: _Event) -> bytes:
        delta = event.delta or _Delta()
        if delta.type == "input_json_delta":
            return self._argue(event.index, delta.partial_json)
        if delta.type == "thinking_delta":
            return self._think(event.index, delta.thinking)
        if delta.type == "signature_delta" and event.index in self._thoughts:
            self._thoughts[event.index].block["signature"] = delta.signature
        return b""

    def _argue(self, index: int, arguments: str) -> bytes:
        """A piece of a call's arguments; nothing for a call that is no tool of the client's."""
        call = self._calls.get(index)
        if call is None or not arguments:
            return b""
        call.begun = True
        piece = ToolCallDelta(index=call.number, function=FunctionDelta(arguments=arguments))
        return self._chunk(Delta(tool_calls=[piece]))

    def _think(self, index: int, text: str) -> bytes:
        if index not in self._thoughts or not text:
            return b""
        self._thoughts[index].pieces.append(text)
        return self._chunk(Delta(reasoning_content=text))

    def _stop_block(self, index: int) -> bytes:
        if (thoughts := self._thoughts.pop(index, None)) is not None:
            self._to_give.append(thoughts.whole())
            return b""
        call = self._calls.get(index)
        out = b"" if call is None or call.begun else self._argue(index, call.arguments)
        self._calls.pop(index, None)
        return out

    def _end_message(self, event: _Event) -> bytes:
        if event.type == "message_delta":
            return self._message_delta(event)
        if event.type != "message_stop":
            return b""
        self._done = True
        self._text_head = b""
        return self._finish(None) + self._usage_chunk() + _DONE

    def _message_delta(self, event: _Event) -> bytes:
        if event.usage is not None:
            self._usage = (self._usage or Usage()).updated(event.usage)
        reason = event.delta.stop_reason if event.delta is not None else None
        if event.delta is None or reason is None:
            return b""
        why = explanation(event.delta.stop_details) if reason == "refusal" else None
        refusal = self._chunk(Delta(refusal=why)) if why else b""
        return refusal + self._finish(reason)

    def _finish(self, reason: str | None) -> bytes:
        """The one chunk that ends the choice."""
        if self._finished:
            return b""
        self._finished = True
        return self._give_thoughts() + self._chunk(Delta(), finish(reason))

    def _usage_chunk(self) -> bytes:
        if self._usage is None:
            return b""
        usage = msgspec.json.encode(chat_usage(self._usage))
        return b'%b"choices":[],"usage":%b}\n\n' % (self._head, usage)
