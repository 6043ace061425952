"""OpenAI's Responses API as the upstream: what must reach it, and what it replies."""

import json
from collections.abc import Iterator

from compatibility.answers import Answer
from compatibility.openai_chat import SNAPSHOT
from compatibility.requests import FURTHER, RESULTS, Json
from tollkeeper import Usage

WANTED: dict[str, Json] = {}
"""Bodies pass through, and are compared as bytes."""

SEALED = "gAAAAABo+sealed/by=="

WANTED_AGAIN: dict[str, list[Json]] = {
    "tools": [
        {"type": "function_call", "call_id": "call_0"},
        {"type": "function_call_output", "call_id": "call_0", "output": RESULTS[0]},
    ],
    "parallel tools": [
        {"type": "function_call", "call_id": "call_0"},
        {"type": "function_call", "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_0", "output": RESULTS[0]},
        {"type": "function_call_output", "call_id": "call_1", "output": RESULTS[1]},
    ],
    "reasoning": [
        {"type": "reasoning", "encrypted_content": SEALED},
        {"type": "message"},
        {"role": "user", "content": FURTHER},
    ],
}
"""How the input of the second request must end."""


def reply(answer: Answer) -> Json:
    """A whole response."""
    return _response(answer, _items(answer))


def events(answer: Answer) -> list[Json]:
    """A stream of events, numbered."""
    return [{**event, "sequence_number": n} for n, event in enumerate(_events(answer))]


def _events(answer: Answer) -> Iterator[Json]:
    begun = {**_response(answer, []), "status": "in_progress", "usage": None}
    begun["incomplete_details"] = None
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(_items(answer)):
        empty: Json = {"content": []} if item["type"] == "message" else {}
        empty |= {"arguments": ""} if item["type"] == "function_call" else {}
        empty |= {"summary": []} if item["type"] == "reasoning" else {}
        begun_item = {**item, **empty}
        yield {"type": "response.output_item.added", "output_index": index, "item": begun_item}
        for event in _item_events(item):
            yield {**event, "output_index": index, "item_id": item["id"]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    whole = reply(answer)
    yield {"type": f"response.{whole['status']}", "response": whole}


def _item_events(item: Json) -> Iterator[Json]:
    if item["type"] == "function_call":
        arguments = item["arguments"]
        for piece in (arguments[:5], arguments[5:]):
            yield {"type": "response.function_call_arguments.delta", "delta": piece}
        done = {"name": item["name"], "arguments": arguments}
        yield {"type": "response.function_call_arguments.done", **done}
    elif item["type"] == "reasoning":
        (part,) = item["summary"]
        place = {"summary_index": 0}
        kind = "response.reasoning_summary"
        yield {"type": f"{kind}_part.added", **place, "part": {**part, "text": ""}}
        yield {"type": f"{kind}_text.delta", **place, "delta": part["text"]}
        yield {"type": f"{kind}_text.done", **place, "text": part["text"]}
        yield {"type": f"{kind}_part.done", **place, "part": part}
    else:
        yield from _said(item["content"][0])


def _said(part: Json) -> Iterator[Json]:
    is_text = part["type"] == "output_text"
    key = "text" if is_text else "refusal"
    kind = "response.output_text" if is_text else "response.refusal"
    extra = {"logprobs": part["logprobs"]} if is_text else {}
    begun = {**part, key: ""}
    yield {"type": "response.content_part.added", "content_index": 0, "part": begun}
    pieces = (part[key][:3], part[key][3:])
    for index, piece in enumerate(pieces):
        now = {"logprobs": [] if index else part["logprobs"]} if is_text else {}
        yield {"type": f"{kind}.delta", "content_index": 0, "delta": piece, **now}
    yield {"type": f"{kind}.done", "content_index": 0, key: part[key], **extra}
    yield {"type": "response.content_part.done", "content_index": 0, "part": part}


def _items(answer: Answer) -> list[Json]:
    items: list[Json] = []
    if answer.thoughts:
        summary = [{"type": "summary_text", "text": answer.thoughts}]
        sealed = {"encrypted_content": SEALED}
        items.append({"id": "rs_1", "type": "reasoning", "summary": summary, **sealed})
    if part := _part(answer):
        status = "incomplete" if answer.finish == "length" else "completed"
        head = {"id": "msg_1", "type": "message", "status": status, "role": "assistant"}
        items.append({**head, "content": [part]})
    for index, (name, city) in enumerate(answer.calls):
        head = {"id": f"fc_{index}", "type": "function_call", "status": "completed"}
        arguments = json.dumps({"city": city})
        call = {"call_id": f"call_{index}", "name": name, "arguments": arguments}
        items.append({**head, **call})
    return items


def _part(answer: Answer) -> Json | None:
    if answer.refusal:
        return {"type": "refusal", "refusal": answer.refusal}
    if not answer.text:
        return None
    tokens = [
        {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
        for token, value in answer.logprobs
    ]
    return {"type": "output_text", "annotations": [], "logprobs": tokens, "text": answer.text}


def _response(answer: Answer, output: list[Json]) -> Json:
    is_cut = answer.finish == "length"
    return {
        "id": "resp_67ccd2bed1ec8190",
        "object": "response",
        "created_at": 1741476542,
        "status": "incomplete" if is_cut else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": SNAPSHOT,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage(answer.usage),
        "user": None,
    }


def usage(told: Usage | None) -> Json | None:
    """Tokens in the words of the Responses API."""
    if told is None:
        return None
    return {
        "input_tokens": told.input_tokens,
        "input_tokens_details": {
            "cached_tokens": told.cache_read_tokens,
            "cache_write_tokens": told.cache_write_tokens,
        },
        "output_tokens": told.output_tokens,
        "output_tokens_details": {"reasoning_tokens": told.reasoning_tokens},
        "total_tokens": told.input_tokens + told.output_tokens,
    }
