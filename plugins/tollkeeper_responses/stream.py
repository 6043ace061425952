"""A chat's reply as a response, and its chunks as events. Keeps the state of one reply, no I/O.

Source: OpenAI's Responses API and its streaming events. A whole reply goes the way of a stream that
says all at once, so that both say the same.
"""

from tollkeeper import broken, quote
from tollkeeper_responses.models import Call, Logprobs, Said, Token
from tollkeeper_responses.reply import (
    Carried,
    Frame,
    FunctionCall,
    Message,
    Part,
    Thoughts,
    read_reply,
    status_of,
    write_tokens,
)

_DONE = b"[DONE]"
_COMPLETED = b"completed"


class ResponsesTranslation:
    """One chat reply on its way to being the response that `frame` describes."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._output = _Output(frame)
        self._begun = False
        self._finish_reason: str | None = None
        self._completed = False

    def body(self, data: bytes) -> bytes:
        """A whole reply."""
        chat = read_reply(data)
        said = next((choice for choice in chat.choices if choice.index == 0), None)
        if said is None or said.message is None:
            raise broken("the chat completion has no answer")
        self._frame.note(chat)
        finish_reason = said.finish_reason or "stop"
        self._output.add(said.message, said.logprobs)
        self._output.close(status_of(finish_reason))
        return self._frame.response(self._output.items, finish_reason)

    def event(self, data: bytes) -> bytes:
        """The events that a chunk becomes."""
        if data == _DONE:
            return b"" if self._finish_reason is None else self._complete()
        chat = read_reply(data)
        self._frame.note(chat)
        out = b"" if self._begun else self._begin()
        for choice in chat.choices:
            if choice.index == 0 and self._finish_reason is None:
                if choice.delta is not None:
                    out += self._output.add(choice.delta, choice.logprobs)
                if choice.finish_reason:
                    self._finish_reason = choice.finish_reason
                    out += self._output.close(status_of(choice.finish_reason))
        if chat.usage is not None and not chat.choices and self._finish_reason is not None:
            out += self._complete()
        return out

    def end(self) -> bytes:
        """The last event, where nothing else called for it. Raises for a stream that was cut."""
        if self._finish_reason is None:
            raise broken("the stream ended before its finish reason")
        return self._complete()

    def _begin(self) -> bytes:
        self._begun = True
        return self._lifecycle(b"response.created") + self._lifecycle(b"response.in_progress")

    def _complete(self) -> bytes:
        if self._completed or self._finish_reason is None:
            return b""
        self._completed = True
        return self._lifecycle(b"response." + status_of(self._finish_reason))

    def _lifecycle(self, kind: bytes) -> bytes:
        response = self._frame.response(self._output.items, self._finish_reason)
        return self._output.event(kind, b'"response":' + response)


class _Output:
    """The items of one response as they grow, and the events that tell of it."""

    def __init__(self, frame: Frame) -> None:
        self.items: list[bytes] = []
        """Those that are over; what is under way stands in as nothing."""
        self._frame = frame
        self._number = 0
        self._thoughts: Thoughts | None = None
        self._message: Message | None = None
        self._calls: dict[int, FunctionCall] = {}

    def event(self, kind: bytes, members: bytes) -> bytes:
        """The next event."""
        number = self._number
        self._number = number + 1
        return b'event: %b\ndata: {"type":"%b",%b,"sequence_number":%d}\n\n' % (
            kind,
            kind,
            members,
            number,
        )

    def add(self, said: Said, logprobs: Logprobs | None) -> bytes:
        """The events for what is said further."""
        out = b""
        if said.reasoning_content:
            out += self._think(said.reasoning_content)
        if said.thinking_blocks:
            out += self._carry(Carried(thinking_blocks=said.thinking_blocks))
        if said.content:
            out += self._say(said.content, logprobs.content if logprobs is not None else None)
        if said.refusal:
            out += self._say(said.refusal, None, is_refusal=True)
        for call in said.tool_calls or ():
            out += self._call(call)
        return out

    def close(self, status: bytes = _COMPLETED) -> bytes:
        """End what is under way; the last item of it is of this status."""
        calls = [call for call in self._calls.values() if call.open]
        out = self._close_speech(_COMPLETED if calls else status)
        for call in calls:
            out += self._close_call(call, status if call is calls[-1] else _COMPLETED)
        return out

    def _close_speech(self, status: bytes = _COMPLETED) -> bytes:
        return self._close_thoughts() + self._close_message(status)

    def _added(self, item: bytes) -> bytes:
        place = b'"output_index":%d,"item":%b' % (len(self.items), item)
        self.items.append(b"")
        return self.event(b"response.output_item.added", place)

    def _done(self, index: int, item: bytes) -> bytes:
        self.items[index] = item
        place = b'"output_index":%d,"item":%b' % (index, item)
        return self.event(b"response.output_item.done", place)

    def _think(self, text: str) -> bytes:
        out, thoughts = b"", self._thoughts
        if thoughts is None:
            out = self.close()
            thoughts = self._thoughts = self._new_thoughts()
            out += self._added(thoughts.item())
            part = b'%b,"part":%b' % (thoughts.place, thoughts.part)
            out += self.event(b"response.reasoning_summary_part.added", part)
        thoughts.pieces.append(text)
        delta = b'%b,"delta":%b' % (thoughts.place, quote(text))
        return out + self.event(b"response.reasoning_summary_text.delta", delta)

    def _new_thoughts(self) -> Thoughts:
        index = len(self.items)
        return Thoughts(self._frame.item_id("rs", index), index)

    def _carry(self, carried: Carried) -> bytes:
        """What has to come back: with the thoughts under way, else as an item of its own."""
        out, thoughts = b"", self._thoughts
        if thoughts is not None:
            thoughts.carried.thinking_blocks += carried.thinking_blocks
            thoughts.carried.calls |= carried.calls
            return out
        thoughts = self._new_thoughts()
        thoughts.carried = carried
        return self._added(thoughts.item()) + self._done(thoughts.index, thoughts.item())

    def _close_thoughts(self) -> bytes:
        thoughts, self._thoughts = self._thoughts, None
        if thoughts is None:
            return b""
        place = thoughts.place
        text = b'%b,"text":%b' % (place, quote("".join(thoughts.pieces)))
        return (
            self.event(b"response.reasoning_summary_text.done", text)
            + self.event(
                b"response.reasoning_summary_part.done", b'%b,"part":%b' % (place, thoughts.part)
            )
            + self._done(thoughts.index, thoughts.item())
        )

    def _say(self, text: str, tokens: list[Token] | None, *, is_refusal: bool = False) -> bytes:
        out, message = b"", self._message
        part = None if message is None else message.part
        if part is None or part.is_refusal is not is_refusal:
            out, part = self._open_part(is_refusal)
        part.pieces.append(text)
        delta = b'%b,"delta":%b' % (part.place, quote(text))
        if is_refusal:
            return out + self.event(b"response.refusal.delta", delta)
        part.tokens += tokens or ()
        delta += b',"logprobs":' + write_tokens(tokens or [])
        return out + self.event(b"response.output_text.delta", delta)

    def _open_part(self, is_refusal: bool) -> tuple[bytes, Part]:
        out, message = b"", self._message
        if message is None:
            out, index = self.close(), len(self.items)
            message = self._message = Message(self._frame.item_id("msg", index), index)
            out += self._added(message.item(b"in_progress"))
        out += self._close_part(message)
        part = message.open_part(is_refusal)
        added = b'%b,"part":%b' % (part.place, part.written())
        return out + self.event(b"response.content_part.added", added), part

    def _close_part(self, message: Message) -> bytes:
        part, message.part = message.part, None
        if part is None:
            return b""
        text, written = quote("".join(part.pieces)), part.written()
        message.parts.append(written)
        if part.is_refusal:
            out = self.event(b"response.refusal.done", b'%b,"refusal":%b' % (part.place, text))
        else:
            said = b'%b,"text":%b,"logprobs":%b' % (part.place, text, write_tokens(part.tokens))
            out = self.event(b"response.output_text.done", said)
        done = b'%b,"part":%b' % (part.place, written)
        return out + self.event(b"response.content_part.done", done)

    def _close_message(self, status: bytes) -> bytes:
        message, self._message = self._message, None
        if message is None:
            return b""
        return self._close_part(message) + self._done(message.index, message.item(status))

    def _call(self, piece: Call) -> bytes:
        out, index = b"", self._index_of(piece)
        if index not in self._calls:
            out = self._open_call(index, piece)
        call = self._calls[index]
        if not call.open:
            raise broken("a tool call goes on after something else was said")
        arguments = piece.function.arguments if piece.function is not None else None
        if not arguments:
            return out
        call.pieces.append(arguments)
        delta = b'%b,"delta":%b' % (call.place, quote(arguments))
        return out + self.event(b"response.function_call_arguments.delta", delta)

    def _index_of(self, piece: Call) -> int:
        """Which call a piece belongs to; where it does not say, an id begins another one."""
        if piece.index is not None:
            return piece.index
        return len(self._calls) if piece.id or not self._calls else len(self._calls) - 1

    def _open_call(self, index: int, piece: Call) -> bytes:
        name = piece.function.name if piece.function is not None else None
        if not name:
            raise broken("a tool call has no name")
        call_id = piece.id or self._frame.item_id("call", len(self.items))
        out = self._close_message(_COMPLETED)
        if piece.extra_content:
            out += self._carry(Carried(calls={call_id: piece.extra_content}))
        out += self._close_speech()
        place = len(self.items)
        call = FunctionCall(self._frame.item_id("fc", place), place, call_id, name)
        self._calls[index] = call
        return out + self._added(call.item(b"in_progress"))

    def _close_call(self, call: FunctionCall, status: bytes) -> bytes:
        call.open = False
        said = b'%b,"name":%b,"arguments":%b' % (
            call.place,
            quote(call.name),
            quote("".join(call.pieces)),
        )
        done = self.event(b"response.function_call_arguments.done", said)
        return done + self._done(call.index, call.item(status))
