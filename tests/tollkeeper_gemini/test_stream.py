"""Gemini's events as chat chunks, however the bytes are cut."""

import json
import re
from collections import deque
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper import UpstreamError, translate_reply
from tollkeeper.testing import ScriptedReply
from tollkeeper_gemini.stream import GeminiTranslation

CREATED = 1700000000
MODEL = "gemini-2.5-flash"


def usage(prompt: int, answer: int, thoughts: int) -> dict[str, Any]:
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": answer,
        "totalTokenCount": prompt + answer + thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        "thoughtsTokenCount": thoughts,
    }


def candidate(*parts: Any, reason: str = "", index: int = 0, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": index}
    return {**found, **more, **({"finishReason": reason} if reason else {})}


def event(*candidates: dict[str, Any], count: tuple[int, int, int] = (11, 1, 3)) -> dict[str, Any]:
    return {
        "candidates": list(candidates),
        "usageMetadata": usage(*count),
        "modelVersion": MODEL,
        "responseId": "kPzHaM6nKf-b1PIPxKW3gQ4",
    }


CALL = {"functionCall": {"name": "get_weather", "args": {"city": "Zürich"}}}
SIGNED_CALL = {**CALL, "thoughtSignature": "CvcQAdHtim8="}

RECORDED = [
    event(candidate({"text": "**Considering**", "thought": True}), count=(11, 0, 20)),
    event(candidate({"text": "Let me "}), count=(11, 2, 31)),
    event(candidate({"text": "see: ☀ \u2028\n"}), count=(11, 5, 31)),
    event(candidate(SIGNED_CALL, CALL), count=(11, 30, 31)),
    event(candidate({"text": ""}, reason="STOP"), count=(11, 31, 31)),
]


def wire(events: list[Any], end: str = "\r\n\r\n") -> bytes:
    """Events as Google writes them."""
    return "".join(f"data: {json.dumps(e, ensure_ascii=False)}{end}" for e in events).encode()


def translated(*chunks: bytes) -> tuple[bytes, str]:
    """What comes out, and the fault that ended it, if one did."""

    async def read() -> tuple[bytes, str]:
        reply = ScriptedReply(200, {"content-type": "text/event-stream"}, deque(chunks))
        seen = translate_reply(reply, GeminiTranslation("named", CREATED))
        out = b""
        try:
            while chunk := await seen.chunk():
                out += chunk
        except UpstreamError as error:
            return out, error.fault
        return out, ""

    return trio.run(read)


def chunks_of(events: list[Any]) -> list[Any]:
    """The chunks that events become; the last one is the end mark."""
    out, fault = translated(wire(events))
    assert fault == ""
    lines = out.decode().split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines]


def deltas_of(events: list[Any], index: int = 0) -> list[Any]:
    """What is said of one choice."""
    choices = [choice for chunk in chunks_of(events) for choice in chunk["choices"]]
    return [choice["delta"] for choice in choices if choice["index"] == index]


def error_of(*events: Any) -> UpstreamError:
    """What the last of the events raises."""
    translation = GeminiTranslation("named", CREATED)
    *before, last = (json.dumps(one).encode() for one in events)
    for data in before:
        translation.event(data)
    with pytest.raises(UpstreamError) as caught:
        translation.event(last)
    return caught.value


def test_a_recorded_stream_is_a_stream_of_chunks() -> None:
    chunks = chunks_of(RECORDED)
    for chunk in chunks:
        assert chunk["id"] == "chatcmpl-kPzHaM6nKf-b1PIPxKW3gQ4"
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["created"], chunk["model"]) == (CREATED, MODEL)
    *said, last = chunks
    assert all("usage" not in chunk for chunk in said)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 11,
        "completion_tokens": 62,
        "total_tokens": 73,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 31},
    }
    choices = [choice for chunk in said for choice in chunk["choices"]]
    assert [choice["finish_reason"] for choice in choices] == [None] * 5 + ["tool_calls"]
    assert all(choice["logprobs"] is None for choice in choices)
    role, thought, first, second, calls, end = (choice["delta"] for choice in choices)
    assert role == {"role": "assistant", "content": ""}
    assert thought == {"reasoning_content": "**Considering**"}
    assert (first, second) == ({"content": "Let me "}, {"content": "see: ☀ \u2028\n"})
    assert end == {}
    one, two = calls["tool_calls"]
    assert (one["index"], one["type"], two["index"]) == (0, "function", 1)
    assert one["function"]["name"] == "get_weather"
    assert json.loads(one["function"]["arguments"]) == {"city": "Zürich"}
    assert one["extra_content"] == {"google": {"thought_signature": "CvcQAdHtim8="}}
    assert "extra_content" not in two
    assert one["id"] != two["id"]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_line_ends_make_no_difference(end: str) -> None:
    assert translated(wire(RECORDED, end)) == translated(wire(RECORDED))


def test_the_model_is_the_one_named_where_gemini_names_none() -> None:
    (first, *_) = chunks_of([{"candidates": [candidate({"text": "a"}, reason="STOP")]}])
    assert first["model"] == "named"
    assert first["id"].startswith("chatcmpl-")


def test_a_stream_without_usage_has_no_usage_chunk() -> None:
    *_, last = chunks_of([{"candidates": [candidate({"text": "a"}, reason="STOP")]}])
    assert last["choices"][0]["finish_reason"] == "stop"


def test_calls_of_several_events_are_numbered_through_and_have_ids_of_their_own() -> None:
    events = [event(candidate(CALL)), event(candidate(CALL)), event(candidate(CALL, reason="STOP"))]
    calls = [call for delta in deltas_of(events) for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in calls] == [0, 1, 2]
    assert len({call["id"] for call in calls}) == 3


def test_calls_are_numbered_for_each_choice() -> None:
    events = [event(candidate(CALL, reason="STOP"), candidate(CALL, index=1, reason="STOP"))]
    for index in (0, 1):
        (call,) = deltas_of(events, index)[1]["tool_calls"]
        assert call["index"] == 0


def test_the_first_choice_comes_first_even_where_another_speaks_first() -> None:
    events = [
        event(candidate({"text": "b"}, index=1)),
        event(candidate({"text": "a"})),
        event(candidate(reason="MAX_TOKENS", index=1)),
        event(candidate(reason="STOP")),
    ]
    choices = [choice for chunk in chunks_of(events) for choice in chunk["choices"]]
    assert [(c["index"], c["delta"].get("content"), c["finish_reason"]) for c in choices] == [
        (0, "", None),
        (1, "", None),
        (1, "b", None),
        (0, "a", None),
        (0, None, "stop"),
        (1, None, "length"),
    ]


def test_a_reason_that_comes_with_every_event_ends_a_choice_once() -> None:
    events = [event(candidate({"text": text}, reason="STOP")) for text in ("a", "b", "c")]
    deltas = deltas_of(events)
    assert "".join(delta.get("content", "") for delta in deltas) == "abc"
    assert deltas.count({}) == 1


def test_a_signature_of_text_is_kept() -> None:
    signed = {"text": "", "thoughtSignature": "c2ln"}
    deltas = deltas_of([event(candidate({"text": "a"})), event(candidate(signed, reason="STOP"))])
    block = {"type": "thinking", "thinking": "", "signature": "google:c2ln"}
    assert deltas[2:] == [{"thinking_blocks": [block]}, {}]


def test_several_parts_of_one_event_are_one_chunk() -> None:
    parts = [{"text": "hm", "thought": True}, {"text": "a"}, {"text": "b"}]
    deltas = deltas_of([event(candidate(*parts, reason="STOP"))])
    assert deltas[1] == {"content": "ab", "reasoning_content": "hm"}


def test_log_probabilities_come_with_their_text() -> None:
    result = {"chosenCandidates": [{"token": "a", "logProbability": -0.5}]}
    events = [event(candidate({"text": "a"}, reason="STOP", logprobsResult=result))]
    choice = chunks_of(events)[1]["choices"][0]
    assert choice["delta"] == {"content": "a"}
    assert choice["logprobs"]["content"][0]["logprob"] == -0.5


def test_an_event_without_a_candidate_says_nothing_and_counts() -> None:
    chunks = chunks_of(
        [
            {"usageMetadata": usage(11, 0, 0)},
            event(candidate({"text": "a"}, reason="STOP")),
            {"usageMetadata": usage(11, 40, 0)},
        ]
    )
    assert len(chunks) == 4
    assert chunks[-1]["usage"]["completion_tokens"] == 40


def test_an_error_or_a_blocked_prompt_is_raised() -> None:
    report = {"error": {"code": 503, "message": "The model is overloaded.", "status": "X"}}
    assert error_of(RECORDED[1], report).status == 503
    assert error_of([report]).status == 503
    blocked = error_of({"promptFeedback": {"blockReason": "SAFETY"}})
    assert blocked.status == 400
    assert json.loads(blocked.body)["error"]["code"] == "content_filter"
    assert error_of(event(candidate(reason="MALFORMED_FUNCTION_CALL"))).status == 502


@pytest.mark.parametrize("index", [-1, 128, 10**9])
def test_a_candidate_of_no_sensible_index_is_broken(index: int) -> None:
    assert error_of(event(candidate({"text": "a"}, index=index))).fault == "broken"


@pytest.mark.parametrize(
    "events",
    [
        [],
        [{"usageMetadata": usage(1, 0, 0)}],
        RECORDED[:-1],
        [event(candidate({"text": "a"}, reason="STOP"), candidate({"text": "b"}, index=1))],
        [event(candidate({"text": "b"}, index=1, reason="STOP"))],
    ],
)
def test_a_stream_in_which_a_choice_did_not_end_was_cut(events: list[Any]) -> None:
    out, fault = translated(wire(events))
    assert fault == "broken"
    assert b"[DONE]" not in out


def test_a_whole_body_is_a_chat_completion() -> None:
    body = event(candidate({"text": "a"}, reason="STOP"))
    found = json.loads(GeminiTranslation("named", CREATED).body(json.dumps(body).encode()))
    assert found["object"] == "chat.completion"
    assert found["created"] == CREATED


STREAM = wire(RECORDED)
WHOLE = translated(STREAM)[0]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=20).map(sorted))
def test_however_a_stream_is_cut_into_chunks_the_same_comes_out(cuts: list[int]) -> None:
    ends = [*cuts, len(STREAM)]
    chunks = [STREAM[a:b] for a, b in zip([0, *cuts], ends, strict=True) if a < b]
    assert translated(*chunks) == (WHOLE, "")


def test_a_stream_that_is_cut_short_ends_in_an_error_or_has_said_it_all() -> None:
    last = len(wire(RECORDED[:-1]))
    for end in range(len(STREAM)):
        out, fault = translated(STREAM[:end])
        if fault:
            assert fault == "broken"
            assert WHOLE.startswith(out)
        else:
            assert end > last
            assert out == WHOLE


GEMINI_KEYS = set(re.findall(r'"(\w+)":', json.dumps(RECORDED))) | {
    "error",
    "details",
    "code",
    "promptFeedback",
    "blockReason",
    "logprobsResult",
    "chosenCandidates",
    "inlineData",
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(sorted(GEMINI_KEYS)),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(values, max_size=3))
def test_whatever_comes_is_translated_or_an_error_of_the_upstream(events: list[Any]) -> None:
    translated(wire([{"candidates": [candidate({"text": "a"}, reason="STOP")]}, *events]))


@pytest.mark.parametrize("args", [b'{"a": "\xff"}', b"5", b'"x"', b"[1]"])
def test_arguments_that_are_no_object_are_a_broken_reply(args: bytes) -> None:
    data = json.dumps(event(candidate({"functionCall": {"name": "f", "args": "?"}}))).encode()
    translation = GeminiTranslation("named", CREATED)
    with pytest.raises(UpstreamError) as caught:
        translation.event(data.replace(b'"?"', args))
    assert caught.value.fault == "broken"
