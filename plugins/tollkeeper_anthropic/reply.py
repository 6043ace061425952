"""A whole message of Anthropic as a chat reply, and what streams share with it. Pure functions.

Source: Anthropic's Messages API. `input_tokens` there leaves out what came from or went to a
cache; chat's `prompt_tokens` counts it.
"""

import msgspec

from tollkeeper import UpstreamError, broken
from tollkeeper.canonical import (
    ChatReply,
    ChatUsage,
    Choice,
    CompletionDetails,
    FinishReason,
    FunctionCall,
    JsonObject,
    PromptDetails,
    ReplyMessage,
    ToolCall,
)

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON of the wrong shape raises."""

THOUGHTS = frozenset({"thinking", "redacted_thinking"})
"""Types of the blocks that a tool loop has to send back unchanged."""

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens as Anthropic tells them; in a stream in two parts, the later one cumulative."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None

    def updated(self, newer: "Usage") -> "Usage":
        """What is told by now: `newer` where it says something, else what was told before."""
        told = {name: getattr(newer, name) for name in self.__struct_fields__}
        told = {name: value for name, value in told.items() if value is not None}
        return msgspec.structs.replace(self, **told)


class StopDetails(msgspec.Struct):
    """Why a message was stopped."""

    explanation: str | None = None


class Block(msgspec.Struct):
    """What is read of a block of content."""

    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""


class _WholeBlock(Block):
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Message(msgspec.Struct):
    id: str
    model: str
    content: list[msgspec.Raw]
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: Usage | None = None


class _Kind(msgspec.Struct):
    type: str = ""


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""


class _ErrorReply(msgspec.Struct):
    error: _Error


_read_kind = msgspec.json.Decoder(_Kind).decode
_read_message = msgspec.json.Decoder(_Message).decode
_read_block = msgspec.json.Decoder(_WholeBlock).decode
_read_thoughts = msgspec.json.Decoder(JsonObject).decode
_read_error = msgspec.json.Decoder(_ErrorReply).decode


def read_reply(data: bytes, created: int) -> bytes:
    """The message in `data` as a chat reply made at `created`. Raises `UpstreamError`."""
    try:
        if _read_kind(data).type == "error":
            raise error_of(data)
        message = _read_message(data)
        choice = Choice(index=0, message=_said(message), finish_reason=finish(message.stop_reason))
    except BAD_JSON:
        raise broken("the reply is no message of Anthropic's") from None
    reply = ChatReply(id=message.id, created=created, model=message.model, choices=[choice])
    if message.usage is not None:
        reply.usage = chat_usage(message.usage)
    return msgspec.json.encode(reply)


def _said(message: _Message) -> ReplyMessage:
    blocks = [_read_block(raw) for raw in message.content]
    text = "".join([block.text for block in blocks if block.type == "text"])
    said = ReplyMessage(content=text or None)
    calls = [_call(block) for block in blocks if block.type == "tool_use"]
    thoughts = [
        _read_thoughts(raw)
        for raw, block in zip(message.content, blocks, strict=True)
        if block.type in THOUGHTS
    ]
    if calls:
        said.tool_calls = calls
    if thoughts:
        said.thinking_blocks = thoughts
    if reasoning := "".join([block.thinking for block in blocks if block.type == "thinking"]):
        said.reasoning_content = reasoning
    if message.stop_reason == "refusal":
        said.refusal = explanation(message.stop_details)
    elif not calls:
        said.content = text
    return said


def _call(block: _WholeBlock) -> ToolCall:
    arguments = bytes(block.input).decode()
    return ToolCall(id=block.id, function=FunctionCall(name=block.name, arguments=arguments))


def finish(stop_reason: str | None) -> FinishReason:
    """Why a choice ended; a reason that is not known is a plain stop."""
    return _FINISH.get(stop_reason or "", "stop")


def explanation(details: StopDetails | None) -> str | None:
    """What the model's refusal says, if it says anything."""
    return details.explanation if details is not None else None


def chat_usage(usage: Usage) -> ChatUsage:
    """Tokens as chat counts them."""
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    prompt = (usage.input_tokens or 0) + read + written
    completion = usage.output_tokens or 0
    details = usage.output_tokens_details or _OutputDetails()
    return ChatUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=read, cache_write_tokens=written),
        completion_tokens_details=CompletionDetails(reasoning_tokens=details.thinking_tokens or 0),
    )


def error_of(data: bytes) -> UpstreamError:
    """The error that came with status 200, with the status that it should have had."""
    try:
        error = _read_error(data).error
    except BAD_JSON:
        error = _Error()
    status = _STATUSES.get(error.type, 500)
    message = f"{error.type or 'an error'} came with status 200"
    return UpstreamError("status", message, status=status, body=data)
