"""What a client gets, judged by the types of the real SDKs in strict mode, read as an answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from compatibility.answers import Answer
from compatibility.requests import ALIAS, Json
from tollkeeper import Usage
from tollkeeper.testing import Answered

_ResponseEvent: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_MessageEvent: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


@dataclass(slots=True)
class Got:
    """An answer as a client got it, and what it would send back of it."""

    answer: Answer
    turn: list[Json] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)


def _city(name: str, arguments: str) -> tuple[str, str]:
    (city,) = json.loads(arguments).values()
    return name, city


def _named_events(body: bytes) -> list[tuple[str, bytes]]:
    """The events of a stream, each under its name: a comment or a line too many is a fault."""
    found = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        found.append((name[7:], data[6:].encode()))
    return found


def chat_plain(got: Answered) -> Got:
    """A chat completion."""
    return _completion(ChatCompletion.model_validate_json(got.body, strict=True))


def chat_stream(got: Answered) -> Got:
    """Chunks, accumulated as the SDK does it."""
    *events, done = got.events()
    assert done == "[DONE]"
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for event in events:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(event, strict=True))
    snapshot = state.current_completion_snapshot
    return _completion(ChatCompletion.model_validate(snapshot.model_dump()))


def _completion(whole: ChatCompletion) -> Got:
    assert whole.model == ALIAS
    first, *others = whole.choices
    said = first.message
    turn = said.model_dump(mode="json", exclude_none=True)
    calls = [call for call in said.tool_calls or () if call.type == "function"]
    for call in turn.get("tool_calls", ()):
        call.pop("index", None)
        call["function"].pop("parsed_arguments", None)
    turn.pop("parsed", None)
    finish = {"tool_calls": "calls", "content_filter": "refused"}.get(first.finish_reason)
    tokens = first.logprobs.content or [] if first.logprobs else []
    answer = Answer(
        text=said.content or "",
        calls=tuple(_city(c.function.name, c.function.arguments) for c in calls),
        thoughts=str(turn.get("reasoning_content", "")),
        refusal=said.refusal or "",
        finish="refused" if said.refusal else finish or first.finish_reason,
        usage=_chat_usage(whole.usage.model_dump()) if whole.usage else None,
        logprobs=tuple((token.token, token.logprob) for token in tokens),
        others=tuple(choice.message.content or "" for choice in others),
    )
    return Got(answer, [turn], [call.id for call in calls])


def _chat_usage(told: Json) -> Usage:
    into, out = told["prompt_tokens_details"], told["completion_tokens_details"]
    assert told["total_tokens"] == told["prompt_tokens"] + told["completion_tokens"]
    return Usage(
        told["prompt_tokens"],
        told["completion_tokens"],
        into["cached_tokens"],
        into["cache_write_tokens"] or 0,
        out["reasoning_tokens"],
    )


def responses_plain(got: Answered) -> Got:
    """A response."""
    return _response(Response.model_validate_json(got.body, strict=True))


def responses_stream(got: Answered) -> Got:
    """Events: numbered, of one response, and the deltas the same as what stands at the end."""
    events = []
    for name, data in _named_events(got.body):
        event = _ResponseEvent.validate_json(data, strict=True)
        assert event.type == name
        events.append(event)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    whole: Response = events[-1].response
    assert {e.response.id for e in events if hasattr(e, "response")} == {whole.id}
    assert events[-1].type == f"response.{whole.status}"
    done = [e.item for e in events if e.type == "response.output_item.done"]
    assert [item.to_dict() for item in done] == [item.to_dict() for item in whole.output]
    read = _response(whole)
    assert _deltas(events, "response.output_text.delta") == read.answer.text
    assert _deltas(events, "response.refusal.delta") == read.answer.refusal
    assert _deltas(events, "response.reasoning_summary_text.delta") == read.answer.thoughts
    arguments = [i.arguments for i in whole.output if i.type == "function_call"]
    assert _deltas(events, "response.function_call_arguments.delta") == "".join(arguments)
    return read


def _deltas(events: list[Any], kind: str) -> str:
    return "".join(event.delta for event in events if event.type == kind)


def _response(whole: Response) -> Got:
    assert whole.model == ALIAS
    turn: list[Json] = [item.model_dump(mode="json", exclude_none=True) for item in whole.output]
    parts = [part for item in turn if item["type"] == "message" for part in item["content"]]
    calls = [item for item in turn if item["type"] == "function_call"]
    thoughts = [part for item in turn if item["type"] == "reasoning" for part in item["summary"]]
    refusal = "".join(part.get("refusal", "") for part in parts)
    tokens = [token for part in parts for token in part.get("logprobs", ())]
    answer = Answer(
        text="".join(part.get("text", "") for part in parts),
        calls=tuple(_city(call["name"], call["arguments"]) for call in calls),
        thoughts="".join(part["text"] for part in thoughts),
        refusal=refusal,
        finish=_finish_of(whole, refusal, calls),
        usage=_response_usage(whole),
        logprobs=tuple((token["token"], token["logprob"]) for token in tokens),
    )
    return Got(answer, turn, [call["call_id"] for call in calls])


def _finish_of(whole: Response, refusal: str, calls: list[Json]) -> str:
    reasons = {None: "stop", "max_output_tokens": "length", "content_filter": "refused"}
    reason = whole.incomplete_details.reason if whole.incomplete_details else None
    assert whole.status == ("completed" if reason is None else "incomplete")
    if refusal:
        return "refused"
    return "calls" if calls else reasons[reason]


def _response_usage(whole: Response) -> Usage:
    told = whole.usage
    assert told is not None
    assert told.total_tokens == told.input_tokens + told.output_tokens
    into = told.input_tokens_details
    return Usage(
        told.input_tokens,
        told.output_tokens,
        into.cached_tokens,
        into.cache_write_tokens,
        told.output_tokens_details.reasoning_tokens,
    )


def messages_plain(got: Answered) -> Got:
    """A message."""
    return _message(Message.model_validate_json(got.body, strict=True))


def messages_stream(got: Answered) -> Got:
    """Events: each block opened, added to and closed in its turn, then how it ended."""
    events = []
    for name, data in _named_events(got.body):
        if name != "ping":
            event = _MessageEvent.validate_json(data, strict=True)
            assert event.type == name
            events.append(event)
    start, *blocks, end, stop = events
    assert (start.type, end.type, stop.type) == ("message_start", "message_delta", "message_stop")
    message: Json = start.message.model_dump(mode="json")
    message["content"] = _accumulated(blocks)
    message |= end.delta.model_dump(mode="json", exclude_none=True)
    message["usage"] |= end.usage.model_dump(mode="json", exclude_none=True)
    return _message(Message.model_validate_json(json.dumps(message), strict=True))


def _accumulated(events: list[Any]) -> list[Json]:
    blocks: list[Json] = []
    arguments, is_open = "", False
    for event in events:
        if event.type == "content_block_start":
            assert (event.index, is_open) == (len(blocks), False)
            blocks.append(event.content_block.model_dump(mode="json", exclude_none=True))
            arguments, is_open = "", True
        elif event.type == "content_block_stop":
            assert (event.index, is_open) == (len(blocks) - 1, True)
            is_open = False
            if blocks[-1]["type"] == "tool_use":
                blocks[-1]["input"] = json.loads(arguments or "{}")
        else:
            assert (event.index, is_open) == (len(blocks) - 1, True)
            delta = event.delta.model_dump(mode="json")
            arguments += delta.pop("partial_json", "")
            for key in delta.keys() - {"type"}:
                blocks[-1][key] += delta[key]
    assert not is_open
    return blocks


def _message(whole: Message) -> Got:
    assert whole.model == ALIAS
    finishes = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
    finishes |= {"tool_use": "calls", "refusal": "refused"}
    finish = finishes[whole.stop_reason or ""]
    blocks: list[Json] = [b.model_dump(mode="json", exclude_none=True) for b in whole.content]
    text = "".join(block.get("text", "") for block in blocks)
    refusal = ""
    if finish == "refused":
        # Chat's refusal is text here; Anthropic's own stands beside the message.
        details = whole.stop_details
        refusal, text = text or (details.explanation if details else None) or "", ""
    calls = [block for block in blocks if block["type"] == "tool_use"]
    told = whole.usage
    read, written = told.cache_read_input_tokens or 0, told.cache_creation_input_tokens or 0
    details_out = told.output_tokens_details
    answer = Answer(
        text=text,
        calls=tuple((call["name"], call["input"]["city"]) for call in calls),
        thoughts="".join(block.get("thinking", "") for block in blocks),
        refusal=refusal,
        finish=finish,
        usage=Usage(
            told.input_tokens + read + written,
            told.output_tokens,
            read,
            written,
            details_out.thinking_tokens if details_out else 0,
        ),
    )
    turn = [{"role": "assistant", "content": blocks}]
    return Got(answer, turn, [call["id"] for call in calls])


READERS: dict[tuple[str, bool], Callable[[Answered], Got]] = {
    ("chat", False): chat_plain,
    ("chat", True): chat_stream,
    ("responses", False): responses_plain,
    ("responses", True): responses_stream,
    ("messages", False): messages_plain,
    ("messages", True): messages_stream,
}
"""By dialect, and whether it streams."""
