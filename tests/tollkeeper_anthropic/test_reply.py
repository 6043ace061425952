"""Whole messages of Anthropic's as chat replies, and what is believed to be one."""

import json
from typing import Any

import pytest

from tollkeeper import UpstreamError
from tollkeeper_anthropic.reply import Usage, chat_usage, error_of, read_reply

MESSAGE = {
    "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 12,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 6,
        "service_tier": "standard",
    },
}
ERROR = b'{"type":"error","error":{"type":"%b","message":"Overloaded"},"request_id":"req_1"}'


def reply_to(**fields: Any) -> Any:
    return json.loads(read_reply(json.dumps({**MESSAGE, **fields}).encode(), 1_700_000_000))


def choice_of(content: list[dict[str, Any]], stop_reason: str, **fields: Any) -> Any:
    (choice,) = reply_to(content=content, stop_reason=stop_reason, **fields)["choices"]
    return choice


def test_a_message_is_a_chat_reply() -> None:
    assert reply_to() == {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "claude-sonnet-4-5-20250929",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 142,
            "completion_tokens": 6,
            "total_tokens": 148,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 30},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
        (None, "stop"),
    ],
)
def test_why_a_message_stopped_is_told(stop_reason: Any, finish_reason: str) -> None:
    assert choice_of([], stop_reason)["finish_reason"] == finish_reason


def test_tool_calls_keep_the_bytes_of_their_arguments() -> None:
    body = json.dumps({**MESSAGE, "content": [], "stop_reason": "tool_use"}).encode()
    arguments = '{"x": 1.0, "y":12345678901234567890123}'
    call = '{"type":"tool_use","id":"toolu_1","name":"f","input":' + arguments + "}"
    reply = json.loads(read_reply(body.replace(b"[]", f"[{call}]".encode()), 1))
    assert reply["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {
                "id": "toolu_1",
                "type": "function",
                "function": {"name": "f", "arguments": arguments},
            }
        ],
    }


def test_text_before_tool_calls_is_kept_and_blocks_of_text_are_one() -> None:
    text: list[dict[str, Any]] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = {"type": "tool_use", "id": "t", "name": "f"}
    message = choice_of([*text, call], "tool_use")["message"]
    assert message["content"] == "ab"
    assert message["tool_calls"][0]["function"]["arguments"] == "{}"


def test_thoughts_are_told_as_text_and_kept_as_blocks_unchanged() -> None:
    thoughts: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln", "new": [1]},
        {"type": "redacted_thinking", "data": "eA=="},
    ]
    unknown = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    message = choice_of([*thoughts, unknown, {"type": "text", "text": "4"}], "end_turn")["message"]
    assert message["reasoning_content"] == "hm"
    assert message["thinking_blocks"] == thoughts
    assert message["content"] == "4"
    assert "tool_calls" not in message


def test_a_refusal_says_why() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "I will not."}
    choice = choice_of([], "refusal", stop_details=details)
    assert choice["finish_reason"] == "content_filter"
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": "I will not."}
    assert choice_of([], "refusal")["message"]["refusal"] is None
    assert choice_of([], "end_turn")["message"]["content"] == ""


def test_usage_that_is_not_told_is_not_made_up() -> None:
    assert "usage" not in reply_to(usage=None)


def test_tokens_of_thought_are_told_where_they_are_known() -> None:
    usage = {"input_tokens": 1, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 7}}
    assert reply_to(usage=usage)["usage"]["completion_tokens_details"] == {"reasoning_tokens": 7}


def test_later_usage_replaces_and_never_adds() -> None:
    first = Usage(input_tokens=10, cache_read_input_tokens=5, output_tokens=1)
    merged = chat_usage(first.updated(Usage(output_tokens=7, cache_read_input_tokens=0)))
    assert (merged.prompt_tokens, merged.completion_tokens, merged.total_tokens) == (10, 7, 17)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid_request_error", 400),
        ("authentication_error", 401),
        ("billing_error", 402),
        ("permission_error", 403),
        ("not_found_error", 404),
        ("conflict_error", 409),
        ("request_too_large", 413),
        ("rate_limit_error", 429),
        ("api_error", 500),
        ("timeout_error", 504),
        ("overloaded_error", 529),
        ("something_new", 500),
    ],
)
def test_an_error_with_status_200_gets_the_status_it_should_have_had(
    kind: str, status: int
) -> None:
    body = ERROR % kind.encode()
    with pytest.raises(UpstreamError) as caught:
        read_reply(body, 1)
    error = caught.value
    assert (error.fault, error.status, error.body) == ("status", status, body)


def test_an_error_that_says_nothing_is_the_servers() -> None:
    assert error_of(b'{"type":"error"}').status == 500


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
        b'{"id":"x","model":"m"}',
        b'{"id":"x","model":"m","content":"text"}',
        b'{"id":"x","model":"m","content":[1]}',
        b'{"id":"x","model":"m","content":[{"type":"text","text":null}]}',
        b'{"id":"x","model":"m","content":[{"type":"text","text":"\xff"}]}',
        b'{"id":"x","model":"m","content":[],"usage":{"input_tokens":"1"}}',
        pytest.param(b'{"id":"x","model":"m","content":' + b"[" * 100_000, id="deep"),
    ],
)
def test_a_body_that_is_no_message_is_broken(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        read_reply(body, 1)
    assert caught.value.fault == "broken"
