"""Streams as Anthropic sends them, chunk for chunk what a chat client reads."""

import json
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper import UpstreamError, translate_reply
from tollkeeper.testing import ScriptedReply
from tollkeeper_anthropic.stream import ChatTranslation

CREATED = 1_700_000_000


def start(**usage: int) -> dict[str, Any]:
    return {
        "type": "message_start",
        "message": {
            "id": "msg_01Q",
            "type": "message",
            "role": "assistant",
            "model": "claude-opus-4-8",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 25, "output_tokens": 1, **usage},
        },
    }


def block(index: int, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def text(index: int, words: str) -> dict[str, Any]:
    return delta(index, type="text_delta", text=words)


def argue(index: int, piece: str) -> dict[str, Any]:
    return delta(index, type="input_json_delta", partial_json=piece)


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ended(reason: str | None, details: Any = None, **usage: Any) -> dict[str, Any]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None, "stop_details": details},
        "usage": {"output_tokens": 15, **usage},
    }


PING = {"type": "ping"}
STOP = {"type": "message_stop"}

TEXT = [
    start(cache_read_input_tokens=100, cache_creation_input_tokens=7),
    block(0, type="text", text=""),
    PING,
    text(0, "Hello"),
    text(0, ' "wörld" \U0001f30d\n'),
    stop(0),
    ended("end_turn"),
    STOP,
]
TOOLS = [
    start(),
    block(0, type="thinking", thinking="", signature=""),
    delta(0, type="thinking_delta", thinking="Let me "),
    delta(0, type="thinking_delta", thinking="see."),
    delta(0, type="signature_delta", signature="EqQBCgIYAhIM"),
    stop(0),
    block(1, type="redacted_thinking", data="EmwKAhgB"),
    stop(1),
    block(2, type="text", text=""),
    text(2, "Checking."),
    stop(2),
    block(3, type="tool_use", id="toolu_01T", name="get_weather", input={}),
    argue(3, ""),
    argue(3, '{"location":'),
    argue(3, ' "Paris"}'),
    stop(3),
    block(4, type="tool_use", id="toolu_01U", name="now", input={}),
    argue(4, ""),
    stop(4),
    ended("tool_use", output_tokens_details={"thinking_tokens": 9}),
    STOP,
]


def wire(events: list[dict[str, Any]], line_end: str = "\n") -> bytes:
    lines = (
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
        for event in events
    )
    return "".join(lines).replace("\n", line_end).encode()


def translate(events: list[dict[str, Any]]) -> bytes:
    translation = ChatTranslation(CREATED)
    out = b"".join([translation.event(json.dumps(event).encode()) for event in events])
    return out + translation.end()


def chunks_of(out: bytes) -> list[Any]:
    """The chunks of a stream that ends as one should."""
    *events, done, rest = out.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(event[6:]) for event in events if event.startswith(b"data: ")]


def deltas_of(out: bytes) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks_of(out) if chunk["choices"]]


def test_a_stream_of_text_is_role_deltas_finish_usage_and_done() -> None:
    out = translate(TEXT)
    chunks = chunks_of(out)
    for chunk in chunks:
        assert chunk["id"] == "msg_01Q"
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["created"] == CREATED
        assert chunk["model"] == "claude-opus-4-8"
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": piece, "logprobs": None, "finish_reason": reason}]
        for piece, reason in (
            ({"role": "assistant", "content": ""}, None),
            ({"content": "Hello"}, None),
            ({"content": ' "wörld" \U0001f30d\n'}, None),
            ({}, "stop"),
        )
    ] + [[]]
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 132,
        "completion_tokens": 15,
        "total_tokens": 147,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert all("usage" not in chunk for chunk in chunks[:-1])
    assert out.count(b": keepalive\n\n") == 1


def test_thoughts_and_tool_calls_come_as_deltas_numbered_by_tool() -> None:
    out = translate(TOOLS)
    assert deltas_of(out) == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Let me "},
        {"reasoning_content": "see."},
        {
            "thinking_blocks": [
                {"type": "thinking", "thinking": "Let me see.", "signature": "EqQBCgIYAhIM"},
                {"type": "redacted_thinking", "data": "EmwKAhgB"},
            ]
        },
        {"content": "Checking."},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "toolu_01T",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"location":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ' "Paris"}'}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "toolu_01U",
                    "type": "function",
                    "function": {"name": "now", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]
    *_, finish, usage = chunks_of(out)
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    assert usage["usage"]["completion_tokens_details"] == {"reasoning_tokens": 9}


def test_thoughts_that_follow_what_was_said_are_numbered_for_sdks_that_add_them_up() -> None:
    first, second = ({"type": "redacted_thinking", "data": data} for data in ("Zmlyc3Q=", "c2Vj"))
    said = [block(1, type="text", text="So."), stop(1)]
    thought = [block(0, **first), stop(0), *said, block(2, **second), stop(2)]
    out = translate([start(), *thought, ended("end_turn"), STOP])
    assert deltas_of(out)[1:] == [
        {"thinking_blocks": [first]},
        {"content": "So."},
        {"thinking_blocks": [{**second, "index": 1}]},
        {},
    ]


def test_arguments_that_came_whole_at_the_start_are_told() -> None:
    call = block(0, type="tool_use", id="t", name="f", input={"x": 1})
    out = translate([start(), call, stop(0), ended("tool_use"), STOP])
    assert deltas_of(out)[2] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":1}'}}]}


def test_thoughts_that_are_not_shown_still_come_back_to_be_replayed() -> None:
    hidden = block(0, type="thinking", thinking="", signature="")
    signed = delta(0, type="signature_delta", signature="c2ln")
    out = translate([start(), hidden, signed, stop(0), ended("end_turn"), STOP])
    kept = {"type": "thinking", "thinking": "", "signature": "c2ln"}
    assert deltas_of(out)[1] == {"thinking_blocks": [kept]}


def test_text_and_thoughts_that_stand_in_a_blocks_start_are_told() -> None:
    thought = block(0, type="thinking", thinking="hm", signature="s")
    out = translate([start(), thought, stop(0), block(1, type="text", text="so"), STOP])
    assert deltas_of(out)[1:4] == [
        {"reasoning_content": "hm"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
        {"content": "so"},
    ]


def test_a_refusal_is_told_before_the_finish() -> None:
    details = {"type": "refusal", "category": None, "explanation": "I will not."}
    out = translate([start(), ended("refusal", details), STOP])
    assert deltas_of(out)[1:] == [{"refusal": "I will not."}, {}]
    assert chunks_of(out)[-2]["choices"][0]["finish_reason"] == "content_filter"


def test_what_is_not_known_becomes_nothing() -> None:
    server_tool = block(0, type="server_tool_use", id="s", name="web_search", input={})
    events = [
        start(),
        {"type": "something_new", "index": [1]} | {"index": 0},
        server_tool,
        argue(0, '{"query"'),
        stop(0),
        block(1, type="text", text=""),
        delta(1, type="citations_delta", citation={"type": "char_location"}),
        text(1, ""),
        stop(1),
        ended("end_turn"),
        STOP,
    ]
    assert deltas_of(translate(events)) == [{"role": "assistant", "content": ""}, {}]


def test_usage_of_the_end_is_cumulative_and_may_leave_fields_out() -> None:
    events = [start(cache_read_input_tokens=5), ended("end_turn", input_tokens=30), STOP]
    usage = chunks_of(translate(events))[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (35, 15)


def test_a_choice_finishes_once_and_always() -> None:
    twice = translate([start(), ended("max_tokens"), ended("end_turn"), STOP])
    never = translate([start(), STOP])
    for out, reason in ((twice, "length"), (never, "stop")):
        reasons = [c["choices"][0]["finish_reason"] for c in chunks_of(out) if c["choices"]]
        assert [one for one in reasons if one] == [reason]


def test_nothing_comes_after_the_end() -> None:
    assert translate([*TEXT, text(0, "more"), PING, STOP]) == translate(TEXT)


def test_an_error_event_is_an_error_with_the_status_of_its_type() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    for before in ([], [start(), text(0, "a")]):
        with pytest.raises(UpstreamError) as caught:
            translate([*before, error])
        assert (caught.value.fault, caught.value.status) == ("status", 529)
        assert json.loads(caught.value.body)["error"]["message"] == "Overloaded"


@pytest.mark.parametrize(
    "events",
    [
        [],
        [start()],
        [text(0, "a")],
        [ended("end_turn")],
        [STOP],
        [start(), start()],
        [{"type": "message_start"}],
        TEXT[:-1],
        [start(), {"type": "content_block_start", "index": 0}],
        [start(), block(0, type="tool_use", id=5, name="f")],
        [start(), text(0, None)],  # type: ignore[arg-type]  # nonsense on purpose
    ],
)
def test_a_stream_that_is_not_what_the_dialect_promises_is_broken(events: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        translate(events)
    assert caught.value.fault == "broken"


@pytest.mark.parametrize("data", [b"", b"[DONE]", b"null", b"{}", b'{"type":"ping"', b"[" * 99_999])
def test_data_that_is_no_event_is_broken(data: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        ChatTranslation(CREATED).event(data)
    assert caught.value.fault == "broken"


def read(parts: list[bytes]) -> tuple[bytes, UpstreamError | None]:
    """What a chat client gets of a reply that comes in these parts, and the error at its end."""
    reply = translate_reply(ScriptedReply(200, {}, deque(parts)), ChatTranslation(CREATED))
    got: list[bytes] = []

    async def run() -> UpstreamError | None:
        try:
            while chunk := await reply.chunk():
                got.append(chunk)
        except UpstreamError as error:
            return error
        return None

    error = trio.run(run)
    return b"".join(got), error


recordings = st.sampled_from([TEXT, TOOLS])
line_ends = st.sampled_from(["\n", "\r\n"])


def cut_at(whole: bytes, cuts: list[int]) -> list[bytes]:
    bounds = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    return [whole[a:b] for a, b in pairwise(bounds)]


@settings(deadline=None)
@given(recordings, line_ends, st.lists(st.integers(0, 5000), max_size=12))
def test_however_a_stream_is_cut_into_chunks_the_same_bytes_come_out(
    events: Any, line_end: str, cuts: list[int]
) -> None:
    assert read(cut_at(wire(events, line_end), cuts)) == (translate(events), None)


@settings(deadline=None)
@given(recordings, st.integers(0, 5000), st.lists(st.integers(0, 5000), max_size=5))
def test_a_stream_that_ends_early_is_an_error_after_a_prefix_of_the_whole(
    events: Any, end: int, cuts: list[int]
) -> None:
    whole = wire(events)
    end = 1 + end % (len(whole) - 3)  # at least the brace of the last event is missing
    out, error = read(cut_at(whole[:end], cuts))
    assert error is not None
    assert error.fault == "broken"
    assert translate(events).startswith(out)
    assert b"[DONE]" not in out


@pytest.mark.parametrize("missing", [1, 2])
def test_a_stream_may_lack_the_line_ends_behind_its_last_event(missing: int) -> None:
    assert read([wire(TEXT)[:-missing]]) == (translate(TEXT), None)


def test_an_error_status_keeps_its_body() -> None:
    scripted = ScriptedReply(529, {}, deque([b"busy"]))
    assert translate_reply(scripted, ChatTranslation(CREATED)) is scripted
