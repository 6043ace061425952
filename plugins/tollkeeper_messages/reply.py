"""A whole chat reply as a message of Anthropic's, and what streams share with it. Pure functions.

Source: OpenAI's API document for chat; Anthropic's Messages API. Chat's `prompt_tokens` counts what
came from or went to a cache; `input_tokens` there leaves it out.
"""

import secrets

import msgspec

from tollkeeper import UpstreamError, broken
from tollkeeper.canonical import JsonObject

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON of the wrong shape raises."""

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class Told(msgspec.Struct):
    """Tokens as chat tells them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class Function(msgspec.Struct, gc=False):
    """A function's name and arguments, or a piece of them."""

    name: str | None = None
    arguments: str | None = None


class CallDelta(msgspec.Struct, gc=False):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct):
    """What a chunk adds."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[JsonObject] | None = None
    tool_calls: list[CallDelta] | None = None


class ChunkChoice(msgspec.Struct):
    """One choice's part of a chunk."""

    delta: Delta | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """What is read of one event of a chat."""

    choices: list[ChunkChoice] | None = None
    id: str | None = None
    model: str | None = None
    usage: Told | None = None
    error: object = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[JsonObject] | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None


class _Reply(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] = []
    usage: Told | None = None
    error: object = None


_read = msgspec.json.Decoder(_Reply).decode


def read_reply(data: bytes) -> bytes:
    """The chat reply in `data` as a message. Raises `UpstreamError` where it is none."""
    try:
        reply = _read(data)
    except BAD_JSON:
        raise broken("the reply is no chat completion") from None
    if reply.error is not None:
        raise error_of(reply.error, data)
    if not reply.choices:
        raise broken("the reply has no choice")
    choice = reply.choices[0]
    said = choice.message
    reason = stop_reason(choice.finish_reason, calls=bool(said.tool_calls), refused=said.refusal)
    message = start_of_message(reply.id, reply.model)
    message["content"] = [*_thoughts(said), *_text(said), *_calls(said, reason)]
    message["stop_reason"] = reason
    message["usage"] = usage_of(reply.usage)
    return msgspec.json.encode(message)


def start_of_message(reply_id: str | None, model: str | None) -> JsonObject:
    """A message in which nothing has been said yet."""
    own = (reply_id or "").removeprefix("chatcmpl-").removeprefix("msg_")
    return {
        "id": f"msg_{own or secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model or "",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_of(None),
    }


def stop_reason(finish: str | None, *, calls: bool, refused: object = None) -> str:
    """Why a message ended; many upstreams say `stop` where tools are to be called."""
    reason = _STOP_REASONS.get(finish or "", "end_turn")
    if reason in ("end_turn", "tool_use"):
        if refused:
            return "refusal"
        return "tool_use" if calls else "end_turn"
    return reason


def usage_of(told: Told | None) -> JsonObject:
    """Tokens as Anthropic counts them; 0 where nothing is told, for the fields are required."""
    told = told or Told()
    into = told.prompt_tokens_details or _PromptDetails()
    read, written = into.cached_tokens or 0, into.cache_write_tokens or 0
    usage: JsonObject = {
        "input_tokens": max(0, (told.prompt_tokens or 0) - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": told.completion_tokens or 0,
    }
    out = told.completion_tokens_details
    if out is not None and out.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": out.reasoning_tokens}
    return usage


def thoughts_of(text: str, signature: str = "") -> JsonObject:
    """A block of thoughts; chat's have no signature, and SDKs want the field."""
    return {"type": "thinking", "thinking": text, "signature": signature}


def call_of(call_id: str | None, name: str, arguments: JsonObject) -> JsonObject:
    """A block that calls a tool."""
    made = call_id or f"toolu_{secrets.token_hex(12)}"
    return {"type": "tool_use", "id": made, "name": name, "input": arguments}


def _thoughts(said: _Said) -> list[JsonObject]:
    if said.thinking_blocks:
        return said.thinking_blocks
    return [thoughts_of(said.reasoning_content)] if said.reasoning_content else []


def _text(said: _Said) -> list[JsonObject]:
    text = (said.content or "") + (said.refusal or "")
    return [{"type": "text", "text": text}] if text else []


def _calls(said: _Said, reason: str) -> list[JsonObject]:
    calls = []
    for call in said.tool_calls or ():
        if not call.function.name:
            raise broken("a tool call has no name")
        arguments = _arguments(call.function.arguments, reason)
        calls.append(call_of(call.id, call.function.name, arguments))
    return calls


def _arguments(text: str | None, reason: str) -> JsonObject:
    """A call's arguments as the object they are here."""
    try:
        return msgspec.json.decode(text.encode(), type=JsonObject) if text else {}
    except BAD_JSON:
        if reason == "max_tokens":
            return {}  # cut off by the bound, as the reason tells
        raise broken("the arguments of a tool call are no JSON object") from None


def error_of(error: object, data: bytes) -> UpstreamError:
    """The error that came with status 200, with the status that it names."""
    found = error.get("code") or error.get("status") if isinstance(error, dict) else None
    status = found if isinstance(found, int) and 400 <= found <= 599 else 200
    return UpstreamError("status", "an error came with status 200", status=status, body=data)
