"""Anthropic's Messages API as the upstream: what must reach it, and what it replies."""

import json
from collections.abc import Iterator

from compatibility.answers import Answer
from compatibility.requests import (
    ASKED,
    FURTHER,
    GOES_ON,
    PHOTO,
    PIXEL,
    RESULTS,
    RULES,
    SAID,
    SCHEMA,
    STOPS,
    Json,
)
from tollkeeper import Usage

SNAPSHOT = "claude-sonnet-4-5-20250929"
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk="
_FINISH = {"stop": "end_turn", "length": "max_tokens", "calls": "tool_use", "refused": "refusal"}
_REDACTED = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4a"}
_TOOL = {"name": "weather", "input_schema": SCHEMA, "strict": True}


def _turn(role: str, *blocks: Json) -> Json:
    return {"role": role, "content": list(blocks)}


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


WANTED: dict[str, Json] = {
    "text": {
        "system": [_text(RULES)],
        "messages": [
            _turn("user", _text(ASKED)),
            _turn("assistant", _text(SAID)),
            _turn("user", _text(GOES_ON)),
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 200,
    },
    "tools": {"tools": [_TOOL], "tool_choice": {"type": "tool", "name": "weather"}},
    "parallel tools": {"tools": [_TOOL]},
    "image inline": {
        "messages": [
            _turn(
                "user",
                {"type": "text"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/gif", "data": PIXEL},
                },
            )
        ]
    },
    "image by address": {
        "messages": [
            _turn(
                "user", {"type": "text"}, {"type": "image", "source": {"type": "url", "url": PHOTO}}
            )
        ]
    },
    "structured output": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "reasoning": {"thinking": {"type": "enabled", "budget_tokens": 8192}, "max_tokens": 20000},
    "stop": {"stop_sequences": STOPS},
    "length": {"max_tokens": 16},
}
"""What a translated body must hold; native ones are compared as bytes."""


def _used(number: int, city: str) -> Json:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": "weather", "input": {"city": city}}


def _result(number: int) -> Json:
    content = [_text(RESULTS[number])]
    return {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": content}


WANTED_AGAIN: dict[str, list[Json]] = {
    "tools": [_turn("assistant", _used(0, "Paris")), _turn("user", _result(0))],
    "parallel tools": [
        _turn("assistant", _text("I look."), _used(0, "Paris"), _used(1, "Rome")),
        _turn("user", _result(0), _result(1)),
    ],
    "reasoning": [
        _turn("assistant", {"type": "thinking", "signature": SIGNATURE}, _REDACTED, _text("42")),
        _turn("user", _text(FURTHER)),
    ],
}
"""How the messages of the second request must end."""


def reply(answer: Answer) -> Json:
    """A whole message."""
    return {
        **_start(answer),
        "content": _blocks(answer),
        **_stop(answer),
        "usage": usage(answer.usage),
    }


def events(answer: Answer) -> list[Json]:
    """A stream of events."""
    return list(_events(answer))


def _events(answer: Answer) -> Iterator[Json]:
    # What the cache did is told at the start; output is told again, and more of it, at the end.
    told = usage(answer.usage)
    first = {**told, "output_tokens": 1}
    first.pop("output_tokens_details")
    yield {"type": "message_start", "message": {**_start(answer), "usage": first}}
    yield {"type": "ping"}
    for index, block in enumerate(_blocks(answer)):
        empty, deltas = _pieces(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    last = {name: told[name] for name in ("output_tokens", "output_tokens_details")}
    yield {"type": "message_delta", "delta": _stop(answer), "usage": last}
    yield {"type": "message_stop"}


def _pieces(block: Json) -> tuple[Json, list[Json]]:
    if block["type"] == "text":
        text = block["text"]
        return {**block, "text": ""}, [
            {"type": "text_delta", "text": piece} for piece in (text[:3], text[3:])
        ]
    if block["type"] == "thinking":
        text = block["thinking"]
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in (text[:3], text[3:])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [*deltas, signed]
    if block["type"] == "tool_use":
        arguments = json.dumps(block["input"])
        pieces = ("", arguments[:5], arguments[5:])
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        return {**block, "input": {}}, deltas
    return block, []


def _start(answer: Answer) -> Json:
    head = {"id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant"}
    return {**head, "model": SNAPSHOT, "content": [], "stop_reason": None, "stop_sequence": None}


def _stop(answer: Answer) -> Json:
    if answer.text == "One, two":
        return {"stop_reason": "stop_sequence", "stop_sequence": STOPS[0]}
    stop: Json = {"stop_reason": _FINISH[answer.finish], "stop_sequence": None}
    if answer.refusal:
        explained = {"category": "general_harms", "explanation": answer.refusal}
        stop["stop_details"] = {"type": "refusal", **explained}
    return stop


def _blocks(answer: Answer) -> list[Json]:
    blocks: list[Json] = []
    if answer.thoughts:
        thoughts = {"type": "thinking", "thinking": answer.thoughts, "signature": SIGNATURE}
        blocks += [thoughts, _REDACTED]
    blocks += [_text(answer.text)] if answer.text else []
    return blocks + [_used(index, city) for index, (_, city) in enumerate(answer.calls)]


def usage(told: Usage | None) -> Json:
    """Tokens in Anthropic's words, where the input leaves out what the cache did."""
    told = told or Usage(0, 0)
    read, written = told.cache_read_tokens, told.cache_write_tokens
    return {
        "input_tokens": told.input_tokens - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": told.output_tokens,
        "output_tokens_details": {"thinking_tokens": told.reasoning_tokens},
        "service_tier": "standard",
    }
