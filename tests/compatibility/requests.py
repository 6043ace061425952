"""What clients ask: one request for each feature and dialect, and the one that goes on from it."""

import json
from typing import Any

from compatibility.cells import Cell

Json = dict[str, Any]

ALIAS = "smart"
PIXEL = "R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="
PHOTO = "https://images.example/circle.png"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ASKED = "How is the weather in Paris and Rome? 雨?"
SAID = "In which unit?"
GOES_ON = 'In Celsius, and say "ok" 🌧'
RULES = "Be brief. Ünïcode matters: 雨"
RESULTS = ('{"celsius":18}', "25 degrees")
FURTHER = "And twice that?"
STOPS = ["END", "\n\nHuman:"]


def chat(feature: str) -> Json:
    """A request of OpenAI's chat."""
    tool = {"name": "weather", "description": "The weather.", "parameters": SCHEMA, "strict": True}
    tools = [{"type": "function", "function": tool}]
    look = [{"type": "text", "text": "What is this?"}]
    inline = {"type": "image_url", "image_url": {"url": f"data:image/gif;base64,{PIXEL}"}}
    talk = [("system", RULES), ("user", ASKED), ("assistant", SAID), ("user", GOES_ON)]
    named = {"type": "function", "function": {"name": "weather"}}
    form = {"name": "place", "schema": SCHEMA, "strict": True}
    own: dict[str, Json] = {
        "text": {
            "messages": [{"role": role, "content": text} for role, text in talk],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_completion_tokens": 200,
        },
        "tools": {"tools": tools, "tool_choice": named},
        "parallel tools": {"tools": tools, "parallel_tool_calls": True},
        "image inline": {"messages": [_user([*look, inline])]},
        "image by address": {
            "messages": [_user([*look, {"type": "image_url", "image_url": {"url": PHOTO}}])]
        },
        "structured output": {"response_format": {"type": "json_schema", "json_schema": form}},
        "reasoning": {"reasoning_effort": "high", "max_completion_tokens": 20000},
        "stop": {"stop": STOPS},
        "length": {"max_completion_tokens": 16},
        "usage": {"prompt_cache_key": "k1"},
        "logprobs": {"logprobs": True, "top_logprobs": 2},
        "choices": {"n": 2},
    }
    return {"messages": [_user(ASKED)], **own.get(feature, {})}


def responses(feature: str) -> Json:
    """A request of OpenAI's Responses API, from a client that keeps its own conversation."""
    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}]
    look = [{"type": "input_text", "text": "What is this?"}]
    inline = {
        "type": "input_image",
        "image_url": f"data:image/gif;base64,{PIXEL}",
        "detail": "auto",
    }
    photo = {"type": "input_image", "image_url": PHOTO, "detail": "auto"}
    said = {"type": "output_text", "text": SAID, "annotations": []}
    form = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
    own: dict[str, Json] = {
        "text": {
            "instructions": RULES,
            "input": [
                _user([{"type": "input_text", "text": ASKED}]),
                {"type": "message", "role": "assistant", "id": "msg_1", "content": [said]},
                _user(GOES_ON),
            ],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_output_tokens": 200,
        },
        "tools": {"tools": tools, "tool_choice": {"type": "function", "name": "weather"}},
        "parallel tools": {"tools": tools, "parallel_tool_calls": True},
        "image inline": {"input": [_user([*look, inline])]},
        "image by address": {"input": [_user([*look, photo])]},
        "structured output": {"text": {"format": form}},
        "reasoning": {
            "reasoning": {"effort": "high", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "max_output_tokens": 20000,
        },
        "stop": {"stop": STOPS},
        "length": {"max_output_tokens": 16},
        "usage": {"prompt_cache_key": "k1"},
        "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        "choices": {"n": 2},
    }
    return {"input": [_user(ASKED)], "store": False, **own.get(feature, {})}


def messages(feature: str) -> Json:
    """A request of Anthropic's Messages API."""
    tools = [
        {"name": "weather", "description": "The weather.", "input_schema": SCHEMA, "strict": True}
    ]
    look = [{"type": "text", "text": "What is this?"}]
    inline = {"type": "base64", "media_type": "image/gif", "data": PIXEL}
    photo = {"type": "url", "url": PHOTO}
    talk = [("user", ASKED), ("assistant", SAID), ("user", GOES_ON)]
    cached = {"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}
    own: dict[str, Json] = {
        "text": {
            "system": RULES,
            "messages": [{"role": role, "content": text} for role, text in talk],
            "temperature": 0.5,
            "top_p": 0.9,
        },
        "tools": {"tools": tools, "tool_choice": {"type": "tool", "name": "weather"}},
        "parallel tools": {"tools": tools, "tool_choice": {"type": "auto"}},
        "image inline": {"messages": [_user([*look, {"type": "image", "source": inline}])]},
        "image by address": {"messages": [_user([*look, {"type": "image", "source": photo}])]},
        "structured output": {
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}
        },
        "reasoning": {
            "thinking": {"type": "enabled", "budget_tokens": 16384},
            "max_tokens": 20000,
        },
        "stop": {"stop_sequences": STOPS},
        "length": {"max_tokens": 16},
        "usage": {"system": [cached]},
        "logprobs": {"logprobs": True},
        "choices": {"n": 2},
    }
    return {"messages": [_user(ASKED)], "max_tokens": 200, **own.get(feature, {})}


def _user(content: object) -> Json:
    return {"role": "user", "content": content}


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


REQUESTS = {"chat": chat, "responses": responses, "messages": messages}
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


def request(cell: Cell) -> Json:
    """What the cell's client asks."""
    document = {"model": ALIAS, **REQUESTS[cell.dialect](cell.feature)}
    if cell.streamed:
        document["stream"] = True
    if cell.streamed and cell.dialect == "chat" and cell.feature == "usage":
        document["stream_options"] = {"include_usage": True}
    return document


def going_on(cell: Cell, asked: Json, turn: list[Json], call_ids: list[str]) -> Json:
    """The next request: what the client got goes back as it came, with results or a question."""
    key = "input" if cell.dialect == "responses" else "messages"
    question = [_text(FURTHER)] if cell.dialect == "messages" else FURTHER
    further = _results(cell.dialect, call_ids) if call_ids else [_user(question)]
    changed: Json = {key: [*asked[key], *turn, *further]}
    if cell.feature == "tools":
        changed["tool_choice"] = {"type": "auto"} if cell.dialect == "messages" else "auto"
    return {**asked, **changed}


def _results(dialect: str, call_ids: list[str]) -> list[Json]:
    pairs = list(zip(call_ids, RESULTS, strict=False))
    if dialect == "chat":
        return [{"role": "tool", "tool_call_id": i, "content": text} for i, text in pairs]
    if dialect == "responses":
        kind = "function_call_output"
        return [{"type": kind, "call_id": i, "output": text} for i, text in pairs]
    kind = "tool_result"
    blocks = [{"type": kind, "tool_use_id": i, "content": [_text(text)]} for i, text in pairs]
    return [_user(blocks)]


UNKNOWN = ' , "x_unknown" : {"kept" : [1.50e+1, "\\u00e9\\/", true]}'


def odd(document: object) -> bytes:
    """The same JSON as no encoder here would write it: spaces, escapes, an unknown member."""
    text = json.dumps(document, separators=(" , ", " : "))
    return f"{{  {text[1:-1]}{UNKNOWN}}}".encode()
