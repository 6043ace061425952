"""Whole chat replies and the messages they become."""

import json
from typing import Any

import pytest

from tollkeeper import UpstreamError
from tollkeeper_messages.reply import error_of, read_reply, stop_reason

USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
UNTOLD = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}


def reply(finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-B1x",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None, "refusal": None, **message},
                "logprobs": None,
                "finish_reason": finish,
            }
        ],
        "usage": USAGE,
        "system_fingerprint": "fp",
    }


def translated(document: Any) -> Any:
    return json.loads(read_reply(json.dumps(document).encode()))


def call(call_id: str | None = "call_1", name: str = "f", arguments: str | None = "{}") -> Any:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_reply_of_text_is_a_message_of_text() -> None:
    assert translated(reply(content="Hello", annotations=[])) == {
        "id": "msg_B1x",
        "type": "message",
        "role": "assistant",
        "model": "gpt-4o-2024-08-06",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {**UNTOLD, "input_tokens": 30, "output_tokens": 12},
    }


SIGNED = {"type": "thinking", "thinking": "hm", "signature": "google:c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "EmwK"}


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": ""}, []),
        ({}, []),
        (
            {"content": "so", "reasoning_content": "hm"},
            [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "so"},
            ],
        ),
        (
            {"content": "so", "reasoning_content": "hm", "thinking_blocks": [SIGNED, REDACTED]},
            [SIGNED, REDACTED, {"type": "text", "text": "so"}],
        ),
        (
            {"content": "a", "tool_calls": [call(arguments='{"x": [1]}'), call("call_2", "g", "")]},
            [
                {"type": "text", "text": "a"},
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": [1]}},
                {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
            ],
        ),
        (
            {"tool_calls": [call("functions.f:0", arguments=None)]},
            [{"type": "tool_use", "id": "functions.f:0", "name": "f", "input": {}}],
        ),
        ({"refusal": "I will not."}, [{"type": "text", "text": "I will not."}]),
        ({"content": "a", "tool_calls": None}, [{"type": "text", "text": "a"}]),
    ],
)
def test_what_was_said_becomes_blocks_thoughts_first_and_calls_last(
    message: Any, content: Any
) -> None:
    assert translated(reply(**message))["content"] == content


@pytest.mark.parametrize(
    ("finish", "message", "reason"),
    [
        ("stop", {"content": "a"}, "end_turn"),
        ("length", {"content": "a"}, "max_tokens"),
        ("tool_calls", {"tool_calls": [call()]}, "tool_use"),
        ("content_filter", {"content": "a"}, "refusal"),
        ("stop", {"tool_calls": [call()]}, "tool_use"),
        ("tool_calls", {"content": "a"}, "end_turn"),
        ("length", {"tool_calls": [call()]}, "max_tokens"),
        ("stop", {"refusal": "no"}, "refusal"),
        (None, {"content": "a"}, "end_turn"),
        ("", {"content": "a"}, "end_turn"),
        ("something_new", {"content": "a"}, "end_turn"),
    ],
)
def test_why_it_finished_is_why_it_stopped(finish: Any, message: Any, reason: str) -> None:
    assert translated(reply(finish, **message))["stop_reason"] == reason


def test_a_filter_or_a_bound_says_more_than_a_refusal_or_a_call() -> None:
    assert stop_reason("length", calls=True, refused=True) == "max_tokens"
    assert stop_reason("content_filter", calls=True) == "refusal"


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (None, UNTOLD),
        ({}, UNTOLD),
        (USAGE, {**UNTOLD, "input_tokens": 30, "output_tokens": 12}),
        (
            {
                **USAGE,
                "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 7},
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            {
                "input_tokens": 3,
                "cache_creation_input_tokens": 7,
                "cache_read_input_tokens": 20,
                "output_tokens": 12,
                "output_tokens_details": {"thinking_tokens": 5},
            },
        ),
        (
            {**USAGE, "prompt_tokens_details": None, "completion_tokens_details": {}},
            {**UNTOLD, "input_tokens": 30, "output_tokens": 12},
        ),
        (
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}},
            {**UNTOLD, "cache_read_input_tokens": 9},
        ),
    ],
)
def test_input_is_told_without_what_a_cache_holds(usage: Any, wanted: Any) -> None:
    assert translated({**reply(content="a"), "usage": usage})["usage"] == wanted


@pytest.mark.parametrize(
    ("reply_id", "wanted"), [("msg_1", "msg_1"), ("chatcmpl-1", "msg_1"), ("gen-1", "msg_gen-1")]
)
def test_ids_are_kept_behind_anthropics_prefix(reply_id: str, wanted: str) -> None:
    assert translated({**reply(content="a"), "id": reply_id})["id"] == wanted


@pytest.mark.parametrize("absent", [{"id": None}, {"id": ""}])
def test_a_reply_and_a_call_without_an_id_get_one_each(absent: Any) -> None:
    first, second = (
        translated({**reply(tool_calls=[call(absent["id"])]), **absent}) for _ in range(2)
    )
    assert first["id"].startswith("msg_")
    assert first["content"][0]["id"].startswith("toolu_")
    assert first["id"] != second["id"]
    assert first["content"][0]["id"] != second["content"][0]["id"]


def test_arguments_that_the_bound_cut_off_are_empty() -> None:
    document = translated(reply("length", tool_calls=[call(arguments='{"a": "b')]))
    assert document["content"][0]["input"] == {}


@pytest.mark.parametrize(
    "document",
    [
        [],
        None,
        {"choices": []},
        {},
        {"choices": [{}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"tool_calls": [{"id": "a"}]}}]},
        {"choices": [{"message": {"tool_calls": [call(arguments="{")]}}]},
        {"choices": [{"message": {"tool_calls": [call(arguments="[1]")]}}]},
    ],
)
def test_a_reply_that_is_none_is_broken(document: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        translated(document)
    assert caught.value.fault == "broken"


@pytest.mark.parametrize("data", [b"", b"<html>", b"\xff", b"[" * 99_999])
def test_data_that_is_no_json_is_broken(data: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        read_reply(data)
    assert caught.value.fault == "broken"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "busy", "code": 429}, 429),
        ({"message": "busy", "status": 503}, 503),
        ({"message": "busy", "code": "rate_limit_exceeded"}, 200),
        ({"message": "busy", "code": 7}, 200),
        ("busy", 200),
    ],
)
def test_an_error_with_status_200_is_raised_with_the_status_it_names(
    error: Any, status: int
) -> None:
    data = json.dumps({"error": error}).encode()
    with pytest.raises(UpstreamError) as caught:
        read_reply(data)
    assert (caught.value.fault, caught.value.status, caught.value.body) == ("status", status, data)
    assert error_of(error, data).status == status


def test_an_error_that_is_null_is_none() -> None:
    assert translated({**reply(content="a"), "error": None})["stop_reason"] == "end_turn"
