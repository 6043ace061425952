"""Streams of chats as messages, event for event as Anthropic's SDKs want them; and its own."""

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
from tollkeeper_messages.stream import MessagesReader, MessagesTranslation

Events = list[dict[str, Any]]
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 12,
    "total_tokens": 42,
    "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
TOLD = {
    "input_tokens": 6,
    "cache_creation_input_tokens": 4,
    "cache_read_input_tokens": 20,
    "output_tokens": 12,
    "output_tokens_details": {"thinking_tokens": 5},
}
UNTOLD = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-B1x",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": None,
    }


def call(index: int | None, arguments: str | None = None, **named: Any) -> dict[str, Any]:
    """A chunk with a piece of a tool call."""
    function = {"arguments": arguments} if arguments is not None else {}
    delta: dict[str, Any] = {} if index is None else {"index": index}
    if "name" in named:
        function["name"] = named.pop("name")
        delta["type"] = "function"
    return chunk(tool_calls=[{**delta, **named, "function": function}])


LAST = {**chunk(), "choices": [], "usage": USAGE}
ROLE = chunk(role="assistant", content="", refusal=None)

TEXT = [ROLE, chunk(content="Hello"), chunk(content=' "wörld" \U0001f30d\n'), chunk("stop"), LAST]
TOOLS = [
    chunk(role="assistant", content=None),
    call(0, "", id="call_a", name="weather"),
    call(0, '{"city":'),
    call(0, ' "Paris"}'),
    call(1, "", id="call_b", name="now"),
    call(1, "{}"),
    chunk("tool_calls"),
    LAST,
]
SIGNED = {"type": "thinking", "thinking": "Let me see.", "signature": "EqQB"}
REDACTED = {"type": "redacted_thinking", "data": "EmwK"}
THOUGHTS = [
    ROLE,
    chunk(reasoning_content="Let me "),
    chunk(reasoning_content="see."),
    chunk(thinking_blocks=[SIGNED]),
    chunk(thinking_blocks=[REDACTED]),
    chunk(content="So."),
    call(0, '{"a":1}', id="call_a", name="f"),
    chunk("tool_calls"),
    LAST,
]
GEMINI = [
    ROLE,
    chunk(reasoning_content="Hm."),
    chunk(content="It is "),
    chunk(
        content="17.",
        thinking_blocks=[{"type": "thinking", "thinking": "", "signature": "google:c2ln"}],
    ),
    chunk(
        tool_calls=[
            {
                "index": n,
                "id": f"call_gem_{n}",
                "type": "function",
                "function": {"name": "f", "arguments": json.dumps({"n": n})},
                "extra_content": {"google": {"thought_signature": "c2ln"}},
            }
            for n in range(2)
        ]
    ),
    chunk("tool_calls"),
    LAST,
]


def wire(chunks: Events, *, done: bool = True, line_end: str = "\n") -> bytes:
    lines = [f"data: {json.dumps(one, ensure_ascii=False)}\n\n" for one in chunks]
    lines += ["data: [DONE]\n\n"] if done else []
    return "".join(lines).replace("\n", line_end).encode()


def translate(chunks: Events, *, done: bool = True) -> bytes:
    translation = MessagesTranslation()
    out = b"".join([translation.event(json.dumps(one).encode()) for one in chunks])
    return out + (translation.event(b"[DONE]") if done else b"") + translation.end()


def events_of(out: bytes) -> Events:
    """The data of whole events, each of which bears its type as its name."""
    *events, rest = out.split(b"\n\n")
    assert rest == b""
    found = []
    for event in events:
        name, data = event.split(b"\n")
        found.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found


DELTAS = {
    "text": {"text_delta": "text"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "tool_use": {"input_json_delta": "partial_json"},
    "redacted_thinking": {},
}


def message_of(out: bytes) -> dict[str, Any]:
    """The message that a strict client puts together; every event must be where it belongs."""
    start, *between, ending, stop = events_of(out)
    assert start["type"] == "message_start"
    message: dict[str, Any] = start["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    is_open = False
    for event in between:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(message["content"])
            block = event["content_block"]
            message["content"].append({**block, "": ""} if block["type"] == "tool_use" else block)
            is_open = True
            continue
        assert is_open
        assert event["index"] == len(message["content"]) - 1
        block = message["content"][-1]
        if event["type"] == "content_block_stop":
            is_open = False
            if block["type"] == "tool_use":
                block["input"] = json.loads(block.pop("") or "{}")
            continue
        assert event["type"] == "content_block_delta"
        key = DELTAS[block["type"]][event["delta"]["type"]]
        target = "" if key == "partial_json" else key
        assert event["delta"][key]
        assert target != "signature" or not block["signature"]
        block[target] += event["delta"][key]
    assert not is_open
    assert ending["type"] == "message_delta"
    assert stop == {"type": "message_stop"}
    return {**message, **ending["delta"], "usage": ending["usage"]}


def content_of(chunks: Events) -> Any:
    return message_of(translate(chunks))["content"]


def test_a_stream_of_text_is_one_block_event_for_event() -> None:
    message: dict[str, Any] = {
        "id": "msg_B1x",
        "type": "message",
        "role": "assistant",
        "model": "gpt-4o-2024-08-06",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": UNTOLD,
    }
    deltas = [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text},
        }
        for text in ("Hello", ' "wörld" \U0001f30d\n')
    ]
    assert events_of(translate(TEXT)) == [
        {"type": "message_start", "message": message},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": TOLD,
        },
        {"type": "message_stop"},
    ]


@pytest.mark.parametrize(
    ("chunks", "content", "reason"),
    [
        (TEXT, [{"type": "text", "text": 'Hello "wörld" \U0001f30d\n'}], "end_turn"),
        (
            TOOLS,
            [
                {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "call_b", "name": "now", "input": {}},
            ],
            "tool_use",
        ),
        (
            THOUGHTS,
            [
                SIGNED,
                REDACTED,
                {"type": "text", "text": "So."},
                {"type": "tool_use", "id": "call_a", "name": "f", "input": {"a": 1}},
            ],
            "tool_use",
        ),
        (
            GEMINI,
            [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "It is "},
                {"type": "thinking", "thinking": "", "signature": "google:c2ln"},
                {"type": "text", "text": "17."},
                {"type": "tool_use", "id": "call_gem_0", "name": "f", "input": {"n": 0}},
                {"type": "tool_use", "id": "call_gem_1", "name": "f", "input": {"n": 1}},
            ],
            "tool_use",
        ),
        ([ROLE, chunk("stop"), LAST], [], "end_turn"),
    ],
)
def test_a_strict_client_gets_the_whole_message(chunks: Any, content: Any, reason: str) -> None:
    message = message_of(translate(chunks))
    assert message["content"] == content
    assert message["stop_reason"] == reason
    assert message["stop_sequence"] is None
    assert message["usage"] == TOLD


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("something_new", "end_turn"),
    ],
)
def test_why_it_finished_is_why_it_stopped(finish: str, reason: str) -> None:
    out = translate([ROLE, chunk(content="a"), chunk(finish), LAST])
    assert message_of(out)["stop_reason"] == reason


def test_a_call_that_finishes_with_stop_stops_for_the_tool() -> None:
    out = translate([ROLE, call(0, "{}", id="a", name="f"), chunk("stop"), LAST])
    assert message_of(out)["stop_reason"] == "tool_use"


def test_a_refusal_is_text_and_the_reason() -> None:
    message = message_of(
        translate([ROLE, chunk(refusal="I "), chunk(refusal="won't."), chunk("stop")])
    )
    assert message["content"] == [{"type": "text", "text": "I won't."}]
    assert message["stop_reason"] == "refusal"


def test_calls_that_take_turns_are_told_one_after_the_other() -> None:
    chunks = [
        ROLE,
        call(0, "", id="a", name="f"),
        call(1, "", id="b", name="g"),
        call(1, '{"y":'),
        call(0, '{"x":'),
        call(1, "2}"),
        call(0, "1}"),
        chunk("tool_calls"),
        LAST,
    ]
    assert content_of(chunks) == [
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {"y": 2}},
    ]


def test_the_first_call_is_told_as_it_comes() -> None:
    translation = MessagesTranslation()
    for one in TOOLS[:2]:
        translation.event(json.dumps(one).encode())
    (told,) = events_of(translation.event(json.dumps(TOOLS[2]).encode()))
    assert told["delta"] == {"type": "input_json_delta", "partial_json": '{"city":'}


@pytest.mark.parametrize(
    "indexes",
    [
        pytest.param((None, None, None, None), id="none"),
        pytest.param((0, 0, 0, 0), id="the same"),
        pytest.param((7, 7, 3, 3), id="any"),
    ],
)
def test_calls_are_told_apart_however_an_upstream_numbers_them(indexes: Any) -> None:
    first, more, second, rest = indexes
    chunks = [
        ROLE,
        call(first, '{"x":', id="a", name="f"),
        call(more, "1}"),
        call(second, '{"y":', id="b", name="g"),
        call(rest, "2}"),
        chunk("tool_calls"),
    ]
    assert [(block["id"], block["input"]) for block in content_of(chunks)] == [
        ("a", {"x": 1}),
        ("b", {"y": 2}),
    ]


def test_an_id_and_a_name_that_are_repeated_are_told_once() -> None:
    piece = {"id": "a", "name": "f"}
    chunks = [ROLE, call(0, '{"x":', **piece), call(0, "1}", **piece), chunk("tool_calls")]
    assert content_of(chunks) == [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}]


def test_a_new_id_without_a_name_is_no_new_call() -> None:
    chunks = [ROLE, call(0, '{"x":', id="a", name="f"), call(0, "1}", id="z"), chunk("stop")]
    assert content_of(chunks) == [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}]


def test_a_name_may_come_after_the_id_and_the_first_arguments() -> None:
    chunks = [ROLE, call(0, '{"x":', id="a"), call(0, "1}", name="f"), chunk("tool_calls")]
    assert content_of(chunks) == [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}]


def test_a_call_without_an_id_gets_one() -> None:
    (block,) = content_of([ROLE, call(0, "{}", name="f"), chunk("tool_calls")])
    assert block["id"].startswith("toolu_")


def test_text_after_calls_comes_in_a_block_of_its_own_behind_them() -> None:
    chunks = [
        ROLE,
        chunk(content="a"),
        call(0, "{}", id="a", name="f"),
        call(1, "{}", id="b", name="g"),
        chunk(content="b"),
        chunk("tool_calls"),
    ]
    assert [block["type"] for block in content_of(chunks)] == [
        "text",
        "tool_use",
        "tool_use",
        "text",
    ]


@pytest.mark.parametrize(
    "thoughts",
    [
        pytest.param([chunk(thinking_blocks=[SIGNED])], id="whole"),
        pytest.param(
            [
                chunk(thinking_blocks=[{**SIGNED, "thinking": "Let me ", "signature": None}]),
                chunk(thinking_blocks=[{**SIGNED, "thinking": "see.", "signature": ""}]),
                chunk(thinking_blocks=[{**SIGNED, "thinking": ""}]),
            ],
            id="in pieces",
        ),
        pytest.param(
            [
                chunk(
                    reasoning_content=text,
                    thinking_blocks=[{"type": "thinking", "thinking": text}],
                )
                for text in ("Let me ", "see.")
            ]
            + [chunk(thinking_blocks=[{**SIGNED, "thinking": ""}])],
            id="twice",
        ),
    ],
)
def test_thoughts_are_told_once_and_signed(thoughts: Any) -> None:
    chunks = [ROLE, *thoughts, chunk(content="a"), chunk("stop")]
    assert content_of(chunks) == [SIGNED, {"type": "text", "text": "a"}]


def test_thoughts_behind_a_signature_are_another_block() -> None:
    more = {"type": "thinking", "thinking": "More.", "signature": "c2ln"}
    chunks = [*THOUGHTS[:4], chunk(thinking_blocks=[more]), chunk("stop")]
    assert content_of(chunks) == [SIGNED, more]


def test_a_block_of_thoughts_of_an_unknown_kind_adds_nothing() -> None:
    chunks = [ROLE, chunk(thinking_blocks=[{"type": "new"}, {}]), chunk("stop")]
    assert content_of(chunks) == []


def test_a_first_chunk_without_choices_is_passed_over() -> None:
    azure = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{}]}
    assert translate([azure, *TEXT]) == translate(TEXT)


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([*TEXT[:-2], {**TEXT[-2], "usage": USAGE}], id="with the finish"),
        pytest.param([{**one, "usage": USAGE} for one in TEXT], id="with every chunk"),
        pytest.param([*TEXT, LAST], id="twice"),
    ],
)
def test_usage_is_told_once_wherever_it_comes(chunks: Any) -> None:
    assert translate(chunks) == translate(TEXT)


def test_usage_that_never_comes_is_told_as_nothing() -> None:
    assert message_of(translate(TEXT[:-1]))["usage"] == UNTOLD


@pytest.mark.parametrize("done", [True, False])
def test_the_message_stops_with_the_chat_or_with_the_upstream(done: bool) -> None:
    assert translate(TEXT, done=done) == translate(TEXT)
    assert translate(TEXT[:-1], done=done) == translate(TEXT[:-1])


def test_the_usage_is_told_before_the_chat_is_done() -> None:
    translation = MessagesTranslation()
    outs = [translation.event(json.dumps(one).encode()) for one in TEXT]
    assert events_of(outs[-1])[-1]["type"] == "message_delta"
    assert events_of(translation.event(b"[DONE]")) == [{"type": "message_stop"}]
    assert translation.end() == b""


def test_nothing_comes_behind_the_end() -> None:
    translation = MessagesTranslation()
    for one in TEXT:
        translation.event(json.dumps(one).encode())
    translation.event(b"[DONE]")
    assert translation.event(json.dumps(chunk(content="more")).encode()) == b""
    assert translation.event(b"[DONE]") == b""


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(
    "chunks",
    [
        [],
        TEXT[:-2],
        [LAST],
        [*TEXT[:-2], LAST],
        [*TEXT[:-2], chunk("")],
        [ROLE, call(0, "{}", id="a"), chunk("tool_calls")],
        [ROLE, call(0, "{", id="a", name="f"), chunk(content="a"), call(0, "}"), chunk("stop")],
        [{"choices": [{"delta": {"content": 5}}]}],
        [{"choices": "none"}],
    ],
)
def test_a_stream_that_is_not_what_chat_promises_is_broken(chunks: Any, done: bool) -> None:
    with pytest.raises(UpstreamError) as caught:
        translate(chunks, done=done)
    assert caught.value.fault == "broken"


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'{"choices":[', b"\xff", b"[" * 99_999])
def test_data_that_is_no_chunk_is_broken(data: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        MessagesTranslation().event(data)
    assert caught.value.fault == "broken"


@pytest.mark.parametrize("before", [[], TEXT[:2]])
def test_an_error_in_the_stream_is_raised_with_its_body(before: Any) -> None:
    error = {"error": {"message": "busy", "type": "server_error", "code": 503}}
    with pytest.raises(UpstreamError) as caught:
        translate([*before, error])
    assert (caught.value.fault, caught.value.status) == ("status", 503)
    assert json.loads(caught.value.body) == error


def test_a_whole_reply_becomes_a_whole_message() -> None:
    said = {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    reply = {"id": "chatcmpl-1", "model": "m", "choices": [said]}
    out = json.loads(MessagesTranslation().body(json.dumps(reply).encode()))
    assert out["content"] == [{"type": "text", "text": "hi"}]


def read(parts: list[bytes]) -> tuple[bytes, UpstreamError | None]:
    """What a client gets of a reply that comes in these parts, and the error at its end."""
    reply = translate_reply(ScriptedReply(200, {}, deque(parts)), MessagesTranslation())
    got: list[bytes] = []

    async def run() -> UpstreamError | None:
        try:
            while part := await reply.chunk():
                got.append(part)
        except UpstreamError as error:
            return error
        return None

    error = trio.run(run)
    return b"".join(got), error


recordings = st.sampled_from([TEXT, TOOLS, THOUGHTS, GEMINI])


def cut_at(whole: bytes, cuts: list[int]) -> list[bytes]:
    bounds = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    return [whole[a:b] for a, b in pairwise(bounds)]


@settings(deadline=None)
@given(
    recordings,
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.integers(0, 5000), max_size=12),
)
def test_however_a_stream_is_cut_into_chunks_the_same_bytes_come_out(
    chunks: Any, done: bool, line_end: str, cuts: list[int]
) -> None:
    whole = wire(chunks, done=done, line_end=line_end)
    assert read(cut_at(whole, cuts)) == (translate(chunks), None)


@pytest.mark.parametrize("chunks", [TEXT, TOOLS, THOUGHTS, GEMINI])
def test_a_stream_that_ends_early_never_looks_whole(chunks: Any) -> None:
    whole, translated = wire(chunks), translate(chunks)
    finish = whole.index(b"}", whole.index(b'"finish_reason": "', len(whole) // 2))
    for end in range(len(whole)):
        out, error = read([whole[:end]])
        if error is None:
            # Only the usage or [DONE] is missing, which many upstreams never send.
            assert end > finish
            assert {**message_of(out), "usage": TOLD} == message_of(translated)
        else:
            assert error.fault == "broken"
            assert translated.startswith(out)
            assert b"message_stop" not in out


pieces = st.one_of(
    st.builds(lambda text: chunk(content=text), st.text(max_size=3)),
    st.builds(lambda text: chunk(reasoning_content=text), st.text(max_size=3)),
    st.sampled_from(
        [
            chunk(thinking_blocks=[SIGNED]),
            chunk(thinking_blocks=[REDACTED]),
            chunk(refusal="no"),
            ROLE,
        ]
    ),
    st.builds(lambda index: call(index, "", id=f"id{index}", name="f"), st.integers(0, 2)),
)


@settings(deadline=None)
@given(st.lists(pieces, max_size=12))
def test_whatever_a_chat_says_the_order_of_events_is_strict(said: Events) -> None:
    message = message_of(translate([ROLE, *said, chunk("stop"), LAST]))
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in said)
    refusals = sum(one["choices"][0]["delta"].get("refusal") == "no" for one in said)
    told = "".join(block["text"] for block in message["content"] if block["type"] == "text")
    assert len(told) == len(text) + 2 * refusals


def native(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps(event).encode() for event in events]


START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "model": "claude-opus-4-8",
        "content": [],
        "usage": {"input_tokens": 25, "cache_read_input_tokens": 7, "output_tokens": 1},
    },
}
DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn"},
    "usage": {"output_tokens": 15, "input_tokens": None},
}
SAID = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "text_delta", "text": 'say "message_stop" or "error"'},
}
STOP = {"type": "message_stop"}


def test_a_stream_of_anthropics_passes_and_its_usage_is_merged() -> None:
    reader = MessagesReader()
    for data in native(START, {"type": "ping"}, SAID, DELTA):
        assert reader.event(data) is data
        assert not reader.ended
    assert json.loads(reader.usage) == {
        "input_tokens": 25,
        "cache_read_input_tokens": 7,
        "output_tokens": 15,
    }
    (stop,) = native(STOP)
    assert reader.event(stop) is stop
    assert reader.ended


def test_the_last_usage_stands_for_it_is_cumulative() -> None:
    reader = MessagesReader()
    for data in native(START, DELTA, {**DELTA, "usage": {"output_tokens": 20, "input_tokens": 30}}):
        reader.event(data)
    assert json.loads(reader.usage) == {
        "input_tokens": 30,
        "cache_read_input_tokens": 7,
        "output_tokens": 20,
    }


def test_usage_is_not_whole_before_the_end_has_told_it() -> None:
    reader = MessagesReader()
    for data in native(START, SAID):
        reader.event(data)
    assert reader.usage == b""


def test_an_alias_is_shown_in_the_message_that_starts_and_nowhere_else() -> None:
    reader = MessagesReader(b'"alias"')
    start, said, delta = native(START, SAID, DELTA)
    assert reader.event(start) == start.replace(b'"claude-opus-4-8"', b'"alias"')
    assert reader.event(said) is said
    assert reader.event(delta) is delta


def test_without_its_last_event_a_stream_was_cut() -> None:
    reader = MessagesReader()
    for data in native(START, SAID, DELTA):
        reader.event(data)
    assert not reader.whole


def test_only_events_that_matter_are_looked_at() -> None:
    reader = MessagesReader()
    dull = native(SAID, {"type": "ping"}, {"type": "content_block_stop", "index": 0})
    quiet = b"".join([b"event: x\ndata: " + data + b"\n\n" for data in dull])
    assert reader.skim(quiet) == len(quiet)
    for event in (START, DELTA, STOP, {"type": "error", "error": {}}):
        noted = b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n"
        assert reader.skim(quiet + noted + quiet) == len(quiet)


@pytest.mark.parametrize(
    "data",
    [
        b'"message_stop"',
        b'{"type": "other", "name": "message_stop"}',
        b'{"type": "message_start"}',
        b'{"type": "message_start", "message": {"usage": []}}',
        b'{"type": "message_delta"}',
        b'{"type": "message_delta", "usage": 5}',
        b'["message_stop"',
    ],
)
def test_what_is_no_event_of_anthropics_passes_unchanged(data: bytes) -> None:
    reader = MessagesReader(b'"alias"')
    assert reader.event(data) == data
    assert not reader.ended
    assert reader.usage == b""
