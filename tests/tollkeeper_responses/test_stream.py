"""Chat streams and replies as responses: each event as OpenAI's SDK reads it, in OpenAI's order."""

import json
from collections import deque
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tollkeeper import UpstreamError, translate_reply
from tollkeeper.testing import ScriptedReply
from tollkeeper_responses.reply import Carried, Frame
from tollkeeper_responses.request import read_request
from tollkeeper_responses.stream import ResponsesTranslation

CREATED = 1_700_000_000
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
LIFECYCLE = ["response.created", "response.in_progress"]
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
DONE = "[DONE]"


def frame(**fields: Any) -> Frame:
    request = {"model": "alias", "input": "hi", **fields}
    _, echo = read_request(json.dumps(request).encode(), keeps=False)
    return Frame(CREATED, "alias", echo)


def chunk(finish: str | None = None, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "upstream", "choices": [choice]}


def call(index: int | None, arguments: str = "", **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments}
    if name := fields.pop("name", None):
        function["name"] = name
    place = {} if index is None else {"index": index}
    return chunk(tool_calls=[{**place, "function": function, **fields}])


ROLE = chunk(role="assistant", content="")
LAST = {"id": "c", "model": "upstream", "choices": [], "usage": USAGE}
TEXT = [ROLE, chunk(content="Hello"), chunk(content=' "wörld" \U0001f30d\n'), chunk("stop"), LAST]
BLOCK = {"type": "thinking", "thinking": "Let me see.", "signature": "EqQB"}
TOOLS = [
    ROLE,
    chunk(reasoning_content="Let me "),
    chunk(reasoning_content="see."),
    chunk(thinking_blocks=[BLOCK]),
    chunk(content="Checking."),
    call(0, id="a", name="get_weather"),
    call(0, '{"city":'),
    call(1, id="b", name="now"),
    call(0, '"Paris"}'),
    call(1, "{}"),
    chunk("tool_calls"),
    LAST,
]


def translate(*chunks: Any, **fields: Any) -> list[dict[str, Any]]:
    """The events that chunks become, each checked as OpenAI's SDK would."""
    translation = ResponsesTranslation(frame(**fields))
    datas = [c if isinstance(c, str) else json.dumps(c) for c in chunks]
    out = b"".join([translation.event(data.encode()) for data in datas]) + translation.end()
    return events_of(out)


def events_of(out: bytes) -> list[dict[str, Any]]:
    *blocks, rest = out.decode().split("\n\n")
    assert rest == ""
    found = []
    for number, block in enumerate(blocks):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        EVENT.validate_json(data.removeprefix("data: "), strict=True)
        found.append(event)
    check_consistency(found)
    return found


def check_consistency(events: list[dict[str, Any]]) -> None:
    """Ids stay, indexes grow, what is added is done, and the last event holds all that was done."""
    assert {e["response"]["id"] for e in events if "response" in e} == {events[0]["response"]["id"]}
    added = [e for e in events if e["type"] == "response.output_item.added"]
    done = {e["output_index"]: e["item"] for e in events if e["type"].endswith("item.done")}
    assert [e["output_index"] for e in added] == list(range(len(added))) == sorted(done)
    assert [e["item"]["id"] for e in added] == [done[i]["id"] for i in range(len(added))]
    ids = [item["id"] for item in done.values()]
    assert len(set(ids)) == len(ids)
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == done[event["output_index"]]["id"]
    if events[-1]["type"] in ("response.completed", "response.incomplete"):
        assert events[-1]["response"]["output"] == [done[i] for i in range(len(done))]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def whole(message: dict[str, Any], finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    """A whole chat reply as a response, checked as OpenAI's SDK would."""
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    choice["logprobs"] = fields.pop("logprobs", None)
    reply = {"id": "c", "model": "upstream", "choices": [choice], "usage": USAGE, **fields}
    data = ResponsesTranslation(frame()).body(json.dumps(reply).encode())
    Response.model_validate_json(data, strict=True)
    document = json.loads(data)
    assert isinstance(document, dict)
    return document


def test_text_comes_in_the_order_of_the_contract() -> None:
    events = translate(*TEXT, DONE)
    assert kinds(events) == [
        *LIFECYCLE,
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    said = 'Hello "wörld" \U0001f30d\n'
    assert events[4]["delta"] + events[5]["delta"] == events[6]["text"] == said
    assert events[4]["logprobs"] == events[6]["logprobs"] == []
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    assert events[7]["part"] == part
    item = {"id": events[8]["item"]["id"], "type": "message", "role": "assistant"}
    assert events[8]["item"] == {**item, "status": "completed", "content": [part]}
    assert events[2]["item"] == {**item, "status": "in_progress", "content": []}


def test_the_first_events_hold_an_empty_response_and_the_last_the_whole_one() -> None:
    created, in_progress, *_, completed = translate(*TEXT)
    assert created["response"] == in_progress["response"]
    assert created["response"]["status"] == "in_progress"
    assert created["response"]["output"] == []
    assert created["response"]["usage"] is None
    assert completed["response"] == {
        **created["response"],
        "status": "completed",
        "output": completed["response"]["output"],
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 1},
            "total_tokens": 12,
        },
    }
    assert completed["response"]["model"] == "upstream"
    assert completed["response"]["created_at"] == CREATED


def test_thoughts_text_and_interleaved_calls_are_items_that_close_each_other() -> None:
    events = translate(*TOOLS)
    assert kinds(events) == [
        *LIFECYCLE,
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    reasoning, message, first, second = events[-1]["response"]["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Let me see."}]
    assert Carried.unseal(reasoning["encrypted_content"]).thinking_blocks == [BLOCK]
    assert message["content"][0]["text"] == "Checking."
    assert [first["call_id"], first["name"], first["arguments"]] == [
        "a",
        "get_weather",
        '{"city":"Paris"}',
    ]
    assert [second["call_id"], second["name"], second["arguments"]] == ["b", "now", "{}"]
    assert [item["id"].split("_")[0] for item in events[-1]["response"]["output"]] == [
        "rs",
        "msg",
        "fc",
        "fc",
    ]


def test_a_refusal_is_a_part_of_its_own_behind_the_text() -> None:
    events = translate(ROLE, chunk(content="Well,"), chunk(refusal="I can't."), chunk("stop"))
    assert kinds(events)[5:11] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
    ]
    (message,) = events[-1]["response"]["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
    assert message["content"][1] == {"type": "refusal", "refusal": "I can't."}
    assert events[7]["content_index"] == 1


def test_text_between_thoughts_begins_items_of_their_own() -> None:
    events = translate(
        chunk(reasoning_content="A"),
        chunk(content="B"),
        chunk(reasoning_content="C"),
        chunk(content="D"),
        chunk("stop"),
    )
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message"] * 2


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("function_call", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_how_a_chat_ended_is_the_status_of_the_response_and_of_its_last_item(
    finish: str, status: str, reason: str | None
) -> None:
    events = translate(chunk(content="Hi"), call(0, "{", id="a", name="f"), chunk(finish), LAST)
    assert events[-1]["type"] == f"response.{status}"
    for response in (
        events[-1]["response"],
        whole({"content": "Hi", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}, finish),
    ):
        assert response["status"] == status
        assert response["incomplete_details"] == (reason and {"reason": reason})
        assert [item["status"] for item in response["output"]] == ["completed", status]


def test_a_lone_message_that_was_cut_off_is_incomplete() -> None:
    assert whole({"content": "Hi"}, "length")["output"][0]["status"] == "incomplete"


def test_the_response_is_completed_by_the_usage_by_done_or_by_the_end() -> None:
    translation = ResponsesTranslation(frame())
    for each in TEXT[:-1]:
        assert b"response.completed" not in translation.event(json.dumps(each).encode())
    assert b"response.completed" in translation.event(json.dumps(LAST).encode())
    assert translation.event(b"[DONE]") == translation.end() == b""
    for ending in ([], [DONE]):
        events = translate(*TEXT[:-1], *ending)
        assert events[-1]["type"] == "response.completed"
        assert events[-1]["response"]["usage"] is None


def test_usage_beside_the_finish_reason_is_told_once_the_stream_is_over() -> None:
    last = {**chunk("stop"), "usage": USAGE}
    events = translate(chunk(content="Hi"), last, DONE)
    assert events[-1]["response"]["usage"]["total_tokens"] == 12


def test_what_comes_behind_the_finish_reason_adds_nothing() -> None:
    events = translate(*TEXT, chunk(content="more"), LAST, DONE, chunk("stop"))
    assert kinds(events).count("response.completed") == 1
    assert events[-1]["type"] == "response.completed"


def test_a_stream_may_begin_without_choices_and_without_a_model() -> None:
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": []}
    events = translate(first, *TEXT)
    assert events[0]["response"]["model"] == "alias"
    assert events[-1]["response"]["model"] == "upstream"


def test_other_choices_and_empty_pieces_are_left_out() -> None:
    other = chunk(content="other")
    other["choices"][0]["index"] = 1
    events = translate(other, chunk(content=None, refusal=None, tool_calls=None), *TEXT)
    assert len(events) == len(translate(*TEXT))


def test_calls_without_an_index_or_an_id_are_told_apart() -> None:
    events = translate(
        call(None, "{", id="a", name="f"),
        call(None, "}"),
        call(None, "{}", id="b", name="g"),
        chunk("tool_calls"),
    )
    output = events[-1]["response"]["output"]
    assert [(i["name"], i["arguments"]) for i in output] == [("f", "{}"), ("g", "{}")]
    (lone,) = translate(call(0, "{}", name="f"), chunk("stop"))[-1]["response"]["output"]
    assert lone["call_id"].startswith("call_")


LOGPROBS = {
    "content": [
        {
            "token": "Hi",
            "logprob": -0.5,
            "bytes": None,
            "top_logprobs": [{"token": "Ho", "logprob": -2.0, "bytes": [72, 111]}],
        }
    ]
}


def test_logprobs_stand_with_the_text_they_belong_to() -> None:
    told = [
        {
            "token": "Hi",
            "logprob": -0.5,
            "bytes": [72, 105],
            "top_logprobs": [{"token": "Ho", "logprob": -2.0, "bytes": [72, 111]}],
        }
    ]
    events = translate(chunk(content="Hi", logprobs=LOGPROBS), chunk("stop"))
    assert events[4]["logprobs"] == events[5]["logprobs"] == told
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == told
    assert (
        whole({"content": "Hi"}, logprobs=LOGPROBS)["output"][0]["content"][0]["logprobs"] == told
    )


GOOGLE = {"google": {"thought_signature": "sig"}}


@pytest.mark.parametrize("thinks", [True, False])
def test_a_signature_of_googles_comes_back_with_its_call(thinks: bool) -> None:
    thoughts = [chunk(reasoning_content="Hm.")] if thinks else [chunk(content="Text.")]
    events = translate(
        *thoughts,
        call(0, "{}", id="a", name="f", extra_content=GOOGLE),
        call(1, "{}", id="b", name="g"),
        chunk("tool_calls"),
    )
    output = events[-1]["response"]["output"]
    place = ["reasoning"] if thinks else ["message", "reasoning"]
    assert [item["type"] for item in output] == [*place, "function_call", "function_call"]
    request = {"model": "m", "input": output}
    chat = json.loads(read_request(json.dumps(request).encode(), keeps=False)[0])
    (message,) = chat["messages"]
    first, second = message["tool_calls"]
    assert first == {
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": GOOGLE,
    }
    assert "extra_content" not in second


@pytest.mark.parametrize("streams", [True, False])
def test_blocks_of_thoughts_come_back_unchanged(streams: bool) -> None:
    blocks = [BLOCK, {"type": "redacted_thinking", "data": "Emw"}]
    said: dict[str, Any] = {"reasoning_content": "Let me see.", "content": "Done."}
    said["thinking_blocks"] = blocks
    if streams:
        output = translate(chunk(**said), chunk("stop"))[-1]["response"]["output"]
    else:
        output = whole(said)["output"]
    request = {"model": "m", "input": [*output, {"role": "user", "content": "Go on."}]}
    chat = json.loads(read_request(json.dumps(request).encode(), keeps=False)[0])
    assert chat["messages"] == [
        {"role": "assistant", **said},
        {"role": "user", "content": "Go on."},
    ]


def test_signatures_that_come_behind_the_text_are_an_item_that_closes_nothing() -> None:
    late = {"type": "thinking", "thinking": "", "signature": "s"}
    events = translate(
        chunk(content="A"), chunk(thinking_blocks=[late]), chunk(content="B"), chunk("stop")
    )
    message, reasoning = events[-1]["response"]["output"]
    assert message["content"][0]["text"] == "AB"
    assert Carried.unseal(reasoning["encrypted_content"]).thinking_blocks == [late]


def test_a_whole_reply_says_the_same_as_its_stream() -> None:
    said = {
        "content": "Checking.",
        "refusal": None,
        "reasoning_content": "Let me see.",
        "thinking_blocks": [BLOCK],
        "tool_calls": [
            {"id": "a", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}},
            {"id": "b", "function": {"name": "now", "arguments": "{}"}},
        ],
    }
    one, other = whole(said, "tool_calls"), translate(*TOOLS)[-1]["response"]
    for response in (one, other):
        response["id"] = ""
        for item in response["output"]:
            item["id"] = ""
    assert one == other


def test_a_whole_reply_that_says_nothing_has_no_output() -> None:
    response = whole({"content": "", "refusal": None}, None)
    assert (response["output"], response["status"]) == ([], "completed")
    assert whole({"content": None}, service_tier="flex")["service_tier"] == "flex"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "slow", "code": 429}, 429),
        ({"message": "busy", "status": 503, "code": "x"}, 503),
        ({"message": "odd", "code": "rate"}, 200),
        ({"message": "odd", "code": 42}, 200),
        ("boom", 200),
    ],
)
def test_an_error_in_place_of_a_reply_is_raised_with_its_body(error: Any, status: int) -> None:
    data = json.dumps({"error": error}).encode()
    for read in (ResponsesTranslation(frame()).body, ResponsesTranslation(frame()).event):
        with pytest.raises(UpstreamError) as caught:
            read(data)
        assert (caught.value.fault, caught.value.status) == ("status", status)
        assert caught.value.body == data


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"<html>", b'{"choices": 1}', b'{"choices": [{"delta": 5}]}', b"\xff"],
)
def test_nonsense_is_a_broken_reply(data: bytes) -> None:
    for read in (ResponsesTranslation(frame()).body, ResponsesTranslation(frame()).event):
        with pytest.raises(UpstreamError) as caught:
            read(data)
        assert caught.value.fault == "broken"


@pytest.mark.parametrize(
    "chunks",
    [
        [call(0, "{}", id="a")],
        [call(0, "{", id="a", name="f"), chunk(content="!"), call(0, "}")],
        [chunk(content="Hi"), DONE],
        [chunk("", content="Hi")],
        [],
    ],
)
def test_a_stream_that_makes_no_sense_or_was_cut_is_broken(chunks: list[Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        translate(*chunks)
    assert caught.value.fault == "broken"


def test_a_whole_reply_without_an_answer_is_broken() -> None:
    for choices in ([], [{"index": 1, "message": {"content": "x"}}], [{"index": 0}]):
        with pytest.raises(UpstreamError) as caught:
            ResponsesTranslation(frame()).body(json.dumps({"choices": choices}).encode())
        assert caught.value.fault == "broken"


def wire(chunks: list[Any]) -> bytes:
    datas = [c if isinstance(c, str) else json.dumps(c, ensure_ascii=False) for c in chunks]
    return "".join(f"data: {data}\n\n" for data in datas).encode()


async def relay(parts: list[bytes]) -> bytes:
    """What becomes of an upstream's bytes, in parts, on their way through a translation."""
    headers = {"content-type": "text/event-stream"}
    reply = ScriptedReply(200, headers, deque(parts))
    translated = translate_reply(reply, ResponsesTranslation(frame()))
    out = b""
    while part := await translated.chunk():
        out += part
    return out


def without_ids(events: list[dict[str, Any]]) -> str:
    response_id = events[0]["response"]["id"].removeprefix("resp_")
    return json.dumps(events).replace(response_id, "")


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, len(wire(TOOLS))), max_size=30))
def test_a_stream_is_the_same_wherever_its_bytes_are_cut(cuts: list[int]) -> None:
    data = wire([*TOOLS, DONE])
    ends = sorted({*cuts, len(data)})
    parts = [data[a:b] for a, b in zip([0, *ends], ends, strict=False) if a < b]
    events = events_of(trio.run(relay, parts))
    assert without_ids(events) == without_ids(translate(*TOOLS))


def test_a_stream_cut_at_any_byte_ends_whole_or_as_broken_and_never_silently() -> None:
    data = wire([*TEXT, DONE])
    finished = data.index(b'"finish_reason": "stop"')

    async def outcome(length: int) -> str:
        try:
            out = await relay([data[:length]])
        except UpstreamError as error:
            return error.fault
        return events_of(out)[-1]["type"]  # type: ignore[no-any-return]

    outcomes = [trio.run(outcome, length) for length in range(len(data) + 1)]
    assert set(outcomes[: finished + 1]) == {"broken"}
    assert set(outcomes) == {"broken", "response.completed"}
    assert outcomes[-1] == "response.completed"
