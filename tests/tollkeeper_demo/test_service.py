"""The demo's answers: the same for the same question, and failing where asked to."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.sse import data_of, split_events
from tollkeeper_demo.service import Script, chunks, completion, usage_of, write_script


def script(message: object, **fields: object) -> Script:
    body = {"model": "demo", "messages": [{"role": "user", "content": message}], **fields}
    return write_script(json.dumps(body).encode())


def stream_of(written: Script) -> list[Any]:
    """The documents of the stream, which ends as streams end."""
    events = list(split_events(b"".join(chunks(written, "id"))))
    assert events.pop() == b"data: [DONE]\n\n"
    return [json.loads(data_of(event) or b"") for event in events]


def text_of(documents: list[Any]) -> str:
    deltas = [choice["delta"] for document in documents for choice in document["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)


def test_the_answer_quotes_the_last_thing_that_the_user_said() -> None:
    body = {
        "messages": [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "status 500"},
            {"role": "user", "content": "second words"},
            {"role": "system", "content": "context"},
        ]
    }
    written = write_script(json.dumps(body).encode())
    assert written.status == 200
    assert " ".join(written.words).endswith("You said: second words")


@settings(deadline=None)
@given(st.text())
def test_the_same_question_has_the_same_answer_whole_and_streamed(question: str) -> None:
    first, second = script(question), script(question, stream=True)
    assert completion(first, "id") == completion(script(question), "id")
    if first.status == 200:
        whole = completion(first, "id")["choices"][0]["message"]["content"]
        assert text_of(stream_of(second)) == whole
        assert len(whole.split()) == usage_of(first)["completion_tokens"]


@pytest.mark.parametrize(
    "content",
    [
        "hello there",
        [{"type": "text", "text": "hello"}, {"type": "text", "text": "there"}],
        [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "hello there"}],
    ],
)
def test_a_message_may_be_text_or_parts(content: object) -> None:
    assert " ".join(script(content).words).endswith("You said: hello there")


@pytest.mark.parametrize("content", [None, [], [5], 5, {}])
def test_a_message_without_text_is_answered_too(content: object) -> None:
    written = script(content)
    assert (written.status, written.words[-2:]) == (200, ("You", "said:"))


@pytest.mark.parametrize(
    ("question", "status", "code"),
    [
        ("status 429", 429, None),
        ("  status 503 ", 503, None),
        ("status 400", 400, None),
        ("status 200", 500, None),
        ("status 999", 500, None),
        ("context", 400, "context_length_exceeded"),
        ("filter", 400, "content_filter"),
    ],
)
def test_a_question_may_ask_for_an_error(question: str, status: int, code: str | None) -> None:
    written = script(question)
    assert written.status == status
    assert written.error["error"]["code"] == code
    assert set(written.error["error"]) == {"message", "type", "param", "code"}


def test_a_question_may_ask_for_a_delay_or_a_cut() -> None:
    assert (script("slow 5").delay, script("slow 5").status) == (5.0, 200)
    assert (script("cut 3").cut_after, script("cut 3").status) == (3, 200)


@pytest.mark.parametrize(
    "question",
    [
        "status",
        "status x",
        "status -1",
        "what is the status 429",
        "contextual",
        "cut",
        "STATUS 429",
    ],
)
def test_a_question_that_only_sounds_like_that_is_answered(question: str) -> None:
    written = script(question)
    assert (written.status, written.delay, written.cut_after) == (200, 0.0, None)


def test_a_whole_reply_has_all_that_the_published_schema_wants() -> None:
    reply = completion(script("hello", model="m"), "chatcmpl-1")
    assert reply.keys() == {"id", "object", "created", "model", "choices", "usage"}
    assert (reply["id"], reply["object"], reply["model"]) == ("chatcmpl-1", "chat.completion", "m")
    (choice,) = reply["choices"]
    assert choice.keys() == {"index", "message", "logprobs", "finish_reason"}
    assert choice["message"].keys() == {"role", "content", "refusal"}
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] == 1 + 3


def test_a_stream_comes_in_the_order_that_clients_rely_on() -> None:
    documents = stream_of(script("hello", stream=True, model="m"))
    first, *middle, last = [document["choices"][0] for document in documents[:-1]]
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert all(choice["delta"].keys() == {"content"} for choice in middle)
    assert (last["delta"], last["finish_reason"]) == ({}, "stop")
    assert all(choice["finish_reason"] is None for choice in [first, *middle])
    assert {(d["id"], d["object"], d["created"], d["model"]) for d in documents} == {
        ("id", "chat.completion.chunk", documents[0]["created"], "m")
    }


def test_the_usage_of_a_stream_comes_last_and_always() -> None:
    written = script("hello", stream=True)
    *rest, last = stream_of(written)
    assert all("usage" not in document for document in rest)
    assert (last["choices"], last["usage"]) == ([], usage_of(written))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_on_tokens_cuts_the_answer_and_says_so(name: str) -> None:
    written = script("hello", **{name: 3})
    assert len(written.words) == usage_of(written)["completion_tokens"] == 3
    assert completion(written, "id")["choices"][0]["finish_reason"] == "length"
    assert completion(script("hello", **{name: 300}), "id")["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"messages": 5}', b'{"messages": [], "max_tokens": "x"}']
)
def test_a_body_that_no_provider_would_take_is_a_400(body: bytes) -> None:
    assert write_script(body).status == 400


def test_a_message_nested_beyond_all_measure_is_a_400() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    body = b'{"messages": [{"role": "user", "content": %b}]}' % deep
    assert write_script(body).status == 400
