"""What the demo provider answers: deterministic, and failing where it is asked to. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

CREATED = 1_735_689_600
PACE = 0.02
"""Seconds between two words of a stream."""

_COMMAND = re.compile(r"\s*(status|slow|cut)\s+(\d{1,4})\s*|\s*(context|filter)\s*")


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Request(msgspec.Struct):
    messages: list[_Message]
    model: str = "demo"
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """How the demo answers one request."""

    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the first byte."""
    cut_after: int | None = None
    """Words after which the connection breaks."""
    words: tuple[str, ...] = ()
    prompt_tokens: int = 0
    finish_reason: str = "stop"
    model: str = "demo"
    stream: bool = False


def write_script(body: bytes) -> Script:
    """Decide the answer from the request: its last user message may ask for a failure."""
    try:
        request = msgspec.json.decode(body, type=_Request)
    except (msgspec.MsgspecError, RecursionError) as error:
        return Script(status=400, error=error_body(str(error), "invalid_request_error", None))
    said = [_text(message.content) for message in request.messages]
    users = [t for t, m in zip(said, request.messages, strict=True) if m.role == "user"]
    question = users[-1] if users else ""
    script = Script(
        words=tuple(_answer(question)),
        prompt_tokens=sum(len(text.split()) + 3 for text in said),
        model=request.model,
        stream=bool(request.stream),
    )
    limit = request.max_completion_tokens or request.max_tokens
    if limit is not None and 0 < limit < len(script.words):
        script = replace(script, words=script.words[:limit], finish_reason="length")
    return _as_told(script, question)


def _as_told(script: Script, question: str) -> Script:
    """The script with the failure that the question asks for, if it asks for one."""
    command = _COMMAND.fullmatch(question)
    if command is None:
        return script
    verb, number = command.group(1) or command.group(3), int(command.group(2) or 0)
    if verb == "slow":
        return replace(script, delay=float(number))
    if verb == "cut":
        return replace(script, cut_after=number)
    if verb == "context":
        text = "This model's maximum context length is 8 tokens, and your messages have more."
        error = error_body(text, "invalid_request_error", "context_length_exceeded")
        return replace(script, status=400, error=error)
    if verb == "filter":
        text = "The prompt was refused by the demo's content filter."
        error = error_body(text, "invalid_request_error", "content_filter")
        return replace(script, status=400, error=error)
    text = f"The demo was asked to fail with status {number}."
    status = number if 400 <= number <= 599 else 500
    return replace(script, status=status, error=error_body(text, "demo_error", None))


def _text(content: msgspec.Raw) -> str:
    """The text of a message, whether a string or a list of parts."""
    value = msgspec.json.decode(bytes(content))
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _answer(question: str) -> Iterator[str]:
    yield from f"This is tollkeeper's offline demo provider. You said: {question}".split()


def error_body(message: str, kind: str, code: str | None) -> dict[str, Any]:
    """An error as OpenAI shapes it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def usage_of(script: Script) -> dict[str, int]:
    """One token per word, and three for each message around its words."""
    completion = len(script.words)
    return {
        "prompt_tokens": script.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": script.prompt_tokens + completion,
    }


def completion(script: Script, reply_id: str) -> dict[str, Any]:
    """The whole reply."""
    message = {"role": "assistant", "content": " ".join(script.words), "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": script.finish_reason,
    }
    return {
        "id": reply_id,
        "object": "chat.completion",
        "created": CREATED,
        "model": script.model,
        "choices": [choice],
        "usage": usage_of(script),
    }


def chunks(script: Script, reply_id: str) -> Iterator[bytes]:
    """The events of a stream, in the order OpenAI sends them, with the usage always asked for."""
    yield _chunk(script, reply_id, {"role": "assistant", "content": ""}, None)
    for index, word in enumerate(script.words):
        yield _chunk(script, reply_id, {"content": word if index == 0 else f" {word}"}, None)
    yield _chunk(script, reply_id, {}, script.finish_reason)
    yield _event({**_envelope(script, reply_id), "choices": [], "usage": usage_of(script)})
    yield b"data: [DONE]\n\n"


def _envelope(script: Script, reply_id: str) -> dict[str, Any]:
    return {
        "id": reply_id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": script.model,
    }


def _chunk(script: Script, reply_id: str, delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event({**_envelope(script, reply_id), "choices": [choice]})


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"
