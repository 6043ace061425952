"""The canonical form: what is read is named where it is wrong, and what is written is complete."""

import json

import msgspec
import pytest

from tollkeeper.canonical import (
    ChatChunk,
    ChatReply,
    Choice,
    ChunkChoice,
    Delta,
    FunctionDelta,
    ReplyMessage,
    ToolCallDelta,
    read_chat,
)
from tollkeeper.errors import Refused


def test_a_request_is_read_with_the_fields_that_chat_does_not_know() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stop": "a",
        "max_tokens": 5,
        "max_completion_tokens": 7,
        "new": 1,
        "other": None,
    }
    request, unknown = read_chat(json.dumps(body).encode())
    assert unknown == ["new", "other"]
    assert request.stops == ["a"]
    assert request.output_bound == 7
    assert request.messages[0].content is not None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [], "temperature": "hot"}, "temperature"),
        ({"messages": [], "tools": [{"function": {}}]}, "tools[0]"),
    ],
)
def test_a_field_of_a_wrong_type_is_named_by_its_place(
    fields: dict[str, object], param: str
) -> None:
    with pytest.raises(Refused) as caught:
        read_chat(json.dumps({"model": "m", **fields}).encode())
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)


def test_a_request_is_written_without_what_is_unset() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    assert msgspec.json.encode(read_chat(body)[0]) == body


def test_a_reply_has_the_nulls_that_the_published_schema_requires() -> None:
    choice = Choice(index=0, message=ReplyMessage(content="hi"), finish_reason="stop")
    reply = ChatReply(id="chatcmpl-1", created=1, model="m", choices=[choice])
    assert json.loads(msgspec.json.encode(reply)) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
    }


def test_a_chunk_says_only_what_it_adds_and_index_zero_too() -> None:
    call = ToolCallDelta(
        index=0, id="c", type="function", function=FunctionDelta(name="f", arguments="")
    )
    chunk = ChatChunk(
        id="1", created=1, model="m", choices=[ChunkChoice(index=0, delta=Delta(tool_calls=[call]))]
    )
    (choice,) = json.loads(msgspec.json.encode(chunk))["choices"]
    assert choice == {
        "index": 0,
        "delta": {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "c",
                    "type": "function",
                    "function": {"name": "f", "arguments": ""},
                }
            ]
        },
        "logprobs": None,
        "finish_reason": None,
    }
