"""A whole reply of Gemini as a chat completion."""

import json
from typing import Any

import pytest

from tollkeeper import UpstreamError
from tollkeeper_gemini.reply import write_reply, write_usage
from tollkeeper_gemini.service import ID_PREFIX

REPLY = {
    "candidates": [
        {
            "content": {"parts": [{"text": "Hello"}, {"text": " there"}], "role": "model"},
            "finishReason": "STOP",
            "index": 0,
            "safetyRatings": [],
        }
    ],
    "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 2, "totalTokenCount": 6},
    "modelVersion": "gemini-2.5-flash-001",
    "responseId": "r-1",
}


def written(document: Any) -> Any:
    return json.loads(write_reply(json.dumps(document).encode(), "named", 1700000000))


def candidate(*parts: Any, reason: str = "STOP", **more: Any) -> dict[str, Any]:
    content = {"parts": list(parts), "role": "model"}
    return {"content": content, "finishReason": reason, "index": 0, **more}


def choice_of(*parts: Any, **more: Any) -> Any:
    (choice,) = written({"candidates": [candidate(*parts, **more)], "responseId": "r-1"})["choices"]
    return choice


def message_of(*parts: Any) -> Any:
    return choice_of(*parts)["message"]


def error_of(document: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        written(document)
    return caught.value


def test_a_reply_is_a_whole_chat_completion() -> None:
    assert written(REPLY) == {
        "id": "chatcmpl-r-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gemini-2.5-flash-001",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 2,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_what_gemini_does_not_tell_is_made_up_or_left_out() -> None:
    bare = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}
    first, second = written(bare), written(bare)
    assert first["model"] == "named"
    assert first["id"].startswith("chatcmpl-")
    assert first["id"] != second["id"]
    assert "usage" not in first


def test_candidates_are_choices_in_their_order() -> None:
    candidates = [candidate({"text": "b"}, index=1), candidate({"text": "a"})]
    choices = written({"candidates": candidates})["choices"]
    assert [(c["index"], c["message"]["content"]) for c in choices] == [(0, "a"), (1, "b")]


def test_thoughts_stand_apart_from_the_answer() -> None:
    parts = [{"text": "hm ", "thought": True}, {"text": "so", "thought": True}, {"text": "42"}]
    assert message_of(*parts) == {
        "role": "assistant",
        "content": "42",
        "refusal": None,
        "reasoning_content": "hm so",
    }


def test_a_signature_of_text_is_kept_beside_the_thoughts() -> None:
    message = message_of(
        {"text": "hm", "thought": True},
        {"text": "4", "thoughtSignature": "c2ln"},
        {"text": "2", "thoughtSignature": "Mg=="},
    )
    assert message["content"] == "42"
    assert message["thinking_blocks"] == [
        {"type": "thinking", "thinking": "hm", "signature": "google:c2ln"},
        {"type": "thinking", "thinking": "", "signature": "google:Mg=="},
    ]


def test_calls_have_ids_arguments_as_text_and_their_signatures() -> None:
    message = message_of(
        {
            "functionCall": {"name": "f", "args": {"city": "Zürich"}, "id": "fc-1"},
            "thoughtSignature": "c2ln",
        },
        {"functionCall": {"name": "g"}},
        {"functionCall": {"name": "g", "args": None}},
    )
    assert message["content"] is None
    first, second, third = message["tool_calls"]
    assert first["id"] == "fc-1"
    assert first["type"] == "function"
    assert first["function"]["name"] == "f"
    assert json.loads(first["function"]["arguments"]) == {"city": "Zürich"}
    assert first["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert second["function"] == {"name": "g", "arguments": "{}"}
    assert third["function"] == {"name": "g", "arguments": "{}"}
    assert "extra_content" not in second
    assert second["id"].startswith(ID_PREFIX)
    assert second["id"] != third["id"]


def test_a_made_id_is_the_same_for_the_same_call_and_short_enough_for_every_provider() -> None:
    call = {"functionCall": {"name": "g"}}
    (first,), (second,) = (message_of(call)["tool_calls"] for _ in range(2))
    assert first["id"] == second["id"]
    assert len(first["id"]) <= 40


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("FINISH_REASON_UNSPECIFIED", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("OTHER", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
        ("NO_IMAGE", "content_filter"),
        ("ESCALATION", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("PUP_LIMITED_DISABLED", "content_filter"),
    ],
)
def test_a_reason_to_end_is_one_that_clients_know(reason: str, finish: str) -> None:
    assert choice_of({"text": "a"}, reason=reason)["finish_reason"] == finish


def test_a_stop_after_a_call_is_a_call() -> None:
    call = {"functionCall": {"name": "f"}}
    assert choice_of({"text": "a"}, call)["finish_reason"] == "tool_calls"
    assert choice_of(call, reason="MAX_TOKENS")["finish_reason"] == "length"


@pytest.mark.parametrize(
    "reason",
    [
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
    ],
)
def test_an_answer_that_failed_is_an_error_that_says_how(reason: str) -> None:
    failed = candidate(reason=reason, finishMessage="Malformed: print(")
    error = error_of({"candidates": [failed]})
    assert (error.fault, error.status) == ("status", 502)
    assert reason in json.loads(error.body)["error"]["message"]
    assert "print(" in json.loads(error.body)["error"]["message"]


@pytest.mark.parametrize("content", [None, {"role": "model"}, {"parts": []}])
def test_an_answer_without_a_word_is_an_empty_one(content: Any) -> None:
    found = written({"candidates": [{"content": content, "finishReason": "SAFETY"}]})
    assert found["choices"][0]["message"]["content"] == ""


def test_a_picture_is_an_error_for_chat_cannot_carry_it() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}
    assert error_of({"candidates": [candidate(picture)]}).status == 502


@pytest.mark.parametrize(
    "document",
    [{}, {"candidates": []}, {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}],
)
def test_a_reply_without_an_answer_that_ended_is_broken(document: Any) -> None:
    assert error_of(document).fault == "broken"


def test_an_error_within_a_200_is_an_error() -> None:
    assert error_of([{"error": {"code": 429, "message": "slow"}}]).status == 429


@pytest.mark.parametrize(
    ("metadata", "usage"),
    [
        # (prompt, cached, completion, reasoning)
        ({"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12}, (9, 0, 3, 0)),
        (
            {
                "promptTokenCount": 9,
                "cachedContentTokenCount": 8,
                "candidatesTokenCount": 3,
                "thoughtsTokenCount": 5,
                "totalTokenCount": 17,
            },
            (9, 8, 8, 5),
        ),
        (
            {
                "promptTokenCount": 9,
                "candidatesTokenCount": 8,
                "thoughtsTokenCount": 5,
                "totalTokenCount": 17,
            },
            (9, 0, 8, 5),
        ),
        (
            {
                "promptTokenCount": 9,
                "toolUsePromptTokenCount": 4,
                "candidatesTokenCount": 3,
                "thoughtsTokenCount": 5,
                "totalTokenCount": 21,
            },
            (13, 0, 8, 5),
        ),
        (
            {
                "promptTokenCount": 9,
                "toolUsePromptTokenCount": 4,
                "candidatesTokenCount": 8,
                "thoughtsTokenCount": 5,
                "totalTokenCount": 21,
            },
            (13, 0, 8, 5),
        ),
        (
            {"promptTokenCount": 9, "thoughtsTokenCount": 5, "totalTokenCount": 14},
            (9, 0, 5, 5),
        ),
        ({"promptTokenCount": 9}, (9, 0, 0, 0)),
    ],
)
def test_thoughts_are_counted_once(
    metadata: dict[str, int], usage: tuple[int, int, int, int]
) -> None:
    found = write_usage(json.dumps(metadata).encode())
    assert found.total_tokens == found.prompt_tokens + found.completion_tokens
    assert usage == (
        found.prompt_tokens,
        found.prompt_tokens_details.cached_tokens,
        found.completion_tokens,
        found.completion_tokens_details.reasoning_tokens,
    )


@pytest.mark.parametrize("data", [b"[]", b'{"promptTokenCount": "9"}', b"null"])
def test_usage_that_is_none_is_a_broken_reply(data: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        write_usage(data)
    assert caught.value.fault == "broken"


def test_log_probabilities_are_those_of_the_tokens_with_their_bytes() -> None:
    result = {
        "chosenCandidates": [
            {"token": "é", "tokenId": 7, "logProbability": -0.5},
            {"token": "b", "logProbability": -1},
        ],
        "topCandidates": [{"candidates": [{"token": "é", "logProbability": -0.5}]}],
    }
    choice = choice_of({"text": "éb"}, logprobsResult=result)
    first = {"token": "é", "logprob": -0.5, "bytes": [195, 169]}
    assert choice["logprobs"] == {
        "content": [
            {**first, "top_logprobs": [first]},
            {"token": "b", "logprob": -1.0, "bytes": [98], "top_logprobs": []},
        ],
        "refusal": None,
    }
