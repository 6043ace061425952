"""OpenAI's chat completions as the upstream: what must reach it, and what it replies."""

import json

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

SNAPSHOT = "gpt-5.1-2025-11-13"
_FINISH = {"calls": "tool_calls", "refused": "stop"}
_FUNCTION = {
    "type": "function",
    "function": {"name": "weather", "parameters": SCHEMA, "strict": True},
}

WANTED: dict[str, Json] = {
    "text": {
        "messages": [
            {"role": "system", "content": RULES},
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": SAID},
            {"role": "user", "content": GOES_ON},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 200,
    },
    "tools": {
        "tools": [_FUNCTION],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    },
    "parallel tools": {"tools": [_FUNCTION]},
    "image inline": {
        "messages": [
            {
                "content": [
                    {"type": "text"},
                    {
                        "type": "image_url",
                        "image_url": {"url": f"data:image/gif;base64,{PIXEL}"},
                    },
                ]
            }
        ]
    },
    "image by address": {
        "messages": [
            {"content": [{"type": "text"}, {"type": "image_url", "image_url": {"url": PHOTO}}]}
        ]
    },
    "structured output": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"schema": SCHEMA, "strict": True},
        }
    },
    "reasoning": {"reasoning_effort": "high", "max_completion_tokens": 20000},
    "stop": {"stop": STOPS},
    "length": {"max_completion_tokens": 16},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "choices": {"n": 2},
}
"""What the body must hold."""


def _sent_back(number: int) -> Json:
    return {"id": f"call_{number}", "type": "function", "function": {"name": "weather"}}


WANTED_AGAIN: dict[str, list[Json]] = {
    "tools": [
        {"role": "assistant", "tool_calls": [_sent_back(0)]},
        {"role": "tool", "tool_call_id": "call_0", "content": RESULTS[0]},
    ],
    "parallel tools": [
        {"role": "assistant", "content": "I look.", "tool_calls": [_sent_back(0), _sent_back(1)]},
        {"role": "tool", "tool_call_id": "call_0", "content": RESULTS[0]},
        {"role": "tool", "tool_call_id": "call_1", "content": RESULTS[1]},
    ],
    "reasoning": [{"role": "assistant", "content": "42"}, {"role": "user", "content": FURTHER}],
}
"""How the messages of the second request must end."""


def reply(answer: Answer) -> Json:
    """A whole completion."""
    message: Json = {"role": "assistant", "content": answer.text or None, "annotations": []}
    message["refusal"] = answer.refusal or None
    if answer.calls:
        message["tool_calls"] = [_call(i, *call) for i, call in enumerate(answer.calls)]
    choices = [_choice(0, answer, message=message)]
    for index, text in enumerate(answer.others, 1):
        choices.append(_choice(index, answer, message={**message, "content": text}))
    return {**_head("chat.completion"), "choices": choices, "usage": usage(answer.usage)}


def events(answer: Answer) -> list[Json]:
    """A stream of chunks, usage asked for."""
    out = [_delta(0, {"role": "assistant", "content": "", "refusal": None})]
    for piece, told in ((answer.text[:3], answer), (answer.text[3:], None)):
        out += [_delta(0, {"content": piece}, told)] if piece else []
    out += [_delta(0, {"refusal": answer.refusal})] if answer.refusal else []
    for index, call in enumerate(answer.calls):
        whole = _call(index, *call)
        arguments = whole["function"]["arguments"]
        whole["function"]["arguments"] = ""
        out.append(_delta(0, {"tool_calls": [{"index": index, **whole}]}))
        for piece in (arguments[:5], arguments[5:]):
            out.append(
                _delta(0, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            )
    for index, text in enumerate(answer.others, 1):
        out += [
            _delta(index, {"role": "assistant", "content": ""}),
            _delta(index, {"content": text}),
        ]
    out += [_end(index, answer) for index in range(1 + len(answer.others))]
    head = _head("chat.completion.chunk")
    return [*out, {**head, "choices": [], "usage": usage(answer.usage), "obfuscation": "x"}]


def _head(kind: str) -> Json:
    head = {"id": "chatcmpl-B9MBs8", "object": kind, "created": 1741569952, "model": SNAPSHOT}
    return {**head, "service_tier": "default", "system_fingerprint": "fp_44709d6fcb"}


def _choice(index: int, answer: Answer, **said: Json) -> Json:
    finish = _FINISH.get(answer.finish, answer.finish)
    return {"index": index, **said, "logprobs": _logprobs(answer), "finish_reason": finish}


def _delta(index: int, delta: Json, answer: Answer | None = None) -> Json:
    logprobs = _logprobs(answer) if answer is not None else None
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
    head = _head("chat.completion.chunk")
    return {**head, "choices": [choice], "usage": None, "obfuscation": "aB3"}


def _end(index: int, answer: Answer) -> Json:
    chunk = _delta(index, {})
    chunk["choices"][0]["finish_reason"] = _FINISH.get(answer.finish, answer.finish)
    return chunk


def _logprobs(answer: Answer) -> Json | None:
    if not answer.logprobs:
        return None
    tokens = [
        {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
        for token, value in answer.logprobs
    ]
    return {"content": tokens, "refusal": None}


def _call(index: int, name: str, city: str) -> Json:
    function = {"name": name, "arguments": json.dumps({"city": city})}
    return {"id": f"call_{index}", "type": "function", "function": function}


def usage(told: Usage | None) -> Json | None:
    """Tokens in the words of chat."""
    if told is None:
        return None
    return {
        "prompt_tokens": told.input_tokens,
        "completion_tokens": told.output_tokens,
        "total_tokens": told.input_tokens + told.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": told.cache_read_tokens,
            "cache_write_tokens": told.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": told.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
