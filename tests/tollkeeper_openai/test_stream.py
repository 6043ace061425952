"""Replies of smaller servers, put in order so that every SDK can read them."""

import json
from typing import Any

import pytest

from tollkeeper.errors import UpstreamError
from tollkeeper_openai.stream import Tidied


def chunk(delta: object, **fields: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None, **fields}]}


def calls(*pieces: object) -> dict[str, Any]:
    return chunk({"tool_calls": list(pieces)})


def tidied(*chunks: object) -> list[dict[str, Any]]:
    """The chunks of one stream, tidied."""
    tidying = Tidied()
    events = [tidying.event(json.dumps(chunk).encode()) for chunk in chunks]
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in events)
    return [json.loads(event[6:]) for event in events]


def deltas(*chunks: object) -> list[dict[str, Any]]:
    return [document["choices"][0]["delta"] for document in tidied(*chunks)]


def pieces(*chunks: object) -> list[dict[str, Any]]:
    """The pieces of tool calls in a stream, in order."""
    return [piece for delta in deltas(*chunks) for piece in delta["tool_calls"]]


def call(number: int | None = None, /, **fields: Any) -> dict[str, Any]:
    """A piece of a tool call; `name` and `arguments` belong to its function."""
    function = {key: fields.pop(key) for key in ("name", "arguments") if key in fields}
    index = {} if number is None else {"index": number}
    return {**index, **fields, "function": function}


def test_an_orderly_chunk_keeps_all_it_says() -> None:
    first = {
        "id": "c",
        "object": "chat.completion.chunk",
        "usage": None,
        "odd": {"x": [1.5]},
        **chunk({"role": "assistant", "content": "é"}, logprobs=None),
    }
    assert tidied(first) == [first]


def test_a_role_is_said_once_by_each_choice_and_by_the_first_chunk() -> None:
    assert deltas(chunk({"role": "assistant", "content": "a"}), chunk({"role": "assistant"})) == [
        {"role": "assistant", "content": "a"},
        {},
    ]
    assert deltas(chunk({"content": "a"}), chunk({"content": "b"})) == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
    ]
    both = {"choices": [{"index": i, "delta": {"role": "assistant"}} for i in (0, 1)]}
    first, second = tidied(both, both)
    assert [c["delta"] for c in first["choices"]] == [{"role": "assistant"}] * 2
    assert [c["delta"] for c in second["choices"]] == [{}] * 2


def test_what_is_missing_is_added() -> None:
    (document,) = tidied({"choices": [{"delta": None}, {"index": None}, {"index": "x"}]})
    assert document["object"] == "chat.completion.chunk"
    assert document["choices"] == [
        {"index": i, "delta": {"role": "assistant"}, "finish_reason": None} for i in range(3)
    ]


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [], "usage": {"total_tokens": 1}},
        {"choices": None},
        {"usage": {}},
        {"error": {"message": "no"}},
    ],
)
def test_a_chunk_without_choices_says_what_it_said(document: dict[str, Any]) -> None:
    (found,) = tidied(document)
    assert {**document, **found} == found
    assert found.keys() - document.keys() <= {"object"}


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (None, None),
        ("", None),
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("function_call", "function_call"),
        ("tool_calls", "tool_calls"),
        ("eos", "stop"),
        ("max_tokens", "length"),
        ("model_length", "length"),
        (["odd"], "stop"),
    ],
)
def test_a_finish_reason_is_one_that_clients_know(told: object, shown: str | None) -> None:
    (document,) = tidied(chunk({}, finish_reason=told))
    assert document["choices"][0]["finish_reason"] == shown
    body = json.dumps({"choices": [{"message": {}, "finish_reason": told}]}).encode()
    assert json.loads(Tidied().body(body))["choices"][0]["finish_reason"] == (shown or "stop")


@pytest.mark.parametrize("told", ["error", "abort", "cancelled"])
def test_a_finish_reason_that_says_it_went_wrong_is_an_error(told: str) -> None:
    with pytest.raises(UpstreamError, match=told) as caught:
        tidied(chunk({}, finish_reason=told))
    assert caught.value.fault == "broken"
    with pytest.raises(UpstreamError):
        Tidied().body(json.dumps({"choices": [{"finish_reason": told}]}).encode())


def test_a_choice_that_called_tools_says_that_it_stopped_for_them() -> None:
    last = chunk({}, finish_reason="stop")
    assert tidied(calls(call(0, id="a", name="f")), last)[-1]["choices"][0]["finish_reason"] == (
        "tool_calls"
    )
    assert tidied(chunk({"content": "a"}), last)[-1]["choices"][0]["finish_reason"] == "stop"


A: dict[str, Any] = {"id": "a", "type": "function", "name": "f"}
B: dict[str, Any] = {"id": "b", "type": "function", "name": "g"}


def heard(found: list[dict[str, Any]]) -> dict[int, list[str]]:
    """What an SDK that joins every string hears of each call."""
    joined: dict[int, list[str]] = {}
    for piece in found:
        said = {**piece, **piece["function"]}
        heard_before = joined.setdefault(piece["index"], [""] * 4)
        for position, name in enumerate(("id", "type", "name", "arguments")):
            heard_before[position] += said.get(name) or ""
    return joined


BOTH = {0: ["a", "function", "f", "12"], 1: ["b", "function", "g", "34"]}


@pytest.mark.parametrize(
    "chunks",
    [
        [  # as it should be
            calls(call(0, **A, arguments="1")),
            calls(call(0, arguments="2")),
            calls(call(1, **B, arguments="3")),
            calls(call(1, arguments="4")),
        ],
        [  # interleaved without an index, ids repeated
            calls(call(**A, arguments="1")),
            calls(call(**B, arguments="3")),
            calls(call(**A, arguments="2")),
            calls(call(**B, arguments="4")),
        ],
        [  # without an index, ids only at first, one after the other
            calls(call(**A, arguments="1")),
            calls(call(arguments="2")),
            calls(call(**B, arguments="3")),
            calls(call(id="", arguments="4")),
        ],
        [  # without an index, both in each event
            calls(call(**A, arguments="1"), call(**B, arguments="3")),
            calls(call(arguments="2"), call(arguments="4")),
        ],
        [  # whole, both under index 0
            calls(call(0, **A, arguments="12"), call(0, **B, arguments="34")),
        ],
        [  # both under index 0, in pieces
            calls(call(0, **A, arguments="1")),
            calls(call(0, arguments="2")),
            calls(call(0, **B, arguments="3")),
            calls(call(0, arguments="4")),
        ],
        [  # another id with each piece
            calls(call(0, **A, arguments="1")),
            calls(call(1, **B, arguments="3")),
            calls(call(0, id="x", type="function", arguments="2")),
            calls(call(1, id="y", type="function", name=None, arguments="4")),
        ],
        [  # all repeated, numbered from 1
            calls(call(1, **A, arguments="1"), call(2, **B, arguments="3")),
            calls(call(1, **A, arguments="2"), call(2, **B, arguments="4")),
        ],
        [  # in an odd order, empty at first
            calls(call(7, id="", name="f", arguments="")),
            calls(call(7, id="a", type="function", arguments="12")),
            calls(call(3, **B, arguments="34")),
        ],
    ],
)
def test_calls_are_numbered_from_0_and_say_everything_once(chunks: list[object]) -> None:
    assert heard(pieces(*chunks)) == BOTH


def test_calls_of_several_choices_are_numbered_apart() -> None:
    both = [{"index": i, "delta": {"tool_calls": [call(**A, arguments="1")]}} for i in (0, 1)]
    for document in tidied({"choices": both}, {"choices": both}):
        numbers = [c["delta"]["tool_calls"][0]["index"] for c in document["choices"]]
        assert numbers == [0, 0]


@pytest.mark.parametrize("identity", [5, ["a"], {"a": 1}, True])
def test_odd_indexes_and_ids_do_not_stop_it(identity: object) -> None:
    found = pieces(calls({"index": str(identity), "id": identity, "function": {"name": "f"}}))
    assert [piece["index"] for piece in found] == [0]


@pytest.mark.parametrize(
    "document",
    [
        [],
        "x",
        {"choices": {}},
        {"choices": ["x"]},
        {"choices": [None]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": []}, {"delta": [1]}]},
        {"choices": [{"delta": {"tool_calls": {}}}]},
        {"choices": [{"delta": {"tool_calls": "x"}}]},
        {"choices": [{"delta": {"tool_calls": [None]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": "f"}]}}]},
    ],
)
def test_a_chunk_of_nonsense_breaks_the_stream(document: object) -> None:
    with pytest.raises(UpstreamError) as caught:
        Tidied().event(json.dumps(document).encode())
    assert caught.value.fault == "broken"


@pytest.mark.parametrize("data", [b"x", b"{", b"\xff", b"[" * 100_000])
def test_what_is_not_json_breaks_the_stream(data: bytes) -> None:
    for read in (Tidied().event, Tidied().body):
        with pytest.raises(UpstreamError, match="not JSON"):
            read(data)


def test_the_end_passes() -> None:
    assert Tidied().event(b"[DONE]") == b"data: [DONE]\n\n"
    assert Tidied().end() == b""


def test_a_whole_reply_is_put_in_order_too() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}
    choices = [{"message": message}, {"message": {"content": "é"}, "finish_reason": ""}]
    document = json.loads(Tidied().body(json.dumps({"choices": choices, "odd": 1}).encode()))
    assert document == {
        "object": "chat.completion",
        "odd": 1,
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls"},
            {"index": 1, "message": {"content": "é"}, "finish_reason": "stop"},
        ],
    }


@pytest.mark.parametrize("choices", [{}, ["x"], [{"message": "x"}], [{"message": [1]}]])
def test_a_whole_reply_of_nonsense_is_broken(choices: object) -> None:
    with pytest.raises(UpstreamError):
        Tidied().body(json.dumps({"choices": choices}).encode())


@pytest.mark.parametrize("document", [{"error": {"message": "no"}}, {"choices": None}])
def test_a_whole_reply_without_choices_is_for_the_core_to_judge(document: object) -> None:
    assert json.loads(Tidied().body(json.dumps(document).encode())) == document
