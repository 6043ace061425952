"""Requests of the Responses API as chats: what is honoured, and what is refused by its name."""

import json
from typing import Any

import pytest

from tollkeeper import Refused
from tollkeeper_responses import request
from tollkeeper_responses.models import Kept
from tollkeeper_responses.request import continued, read_request, references, resolved

HI = [{"role": "user", "content": "hi"}]
FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}


def read(keeps: bool = False, **fields: Any) -> tuple[Any, Any]:
    asked = {"model": "alias", "input": "hi", **fields}
    chat, echo = read_request(json.dumps(asked).encode(), keeps=keeps)
    return json.loads(chat), json.loads(b"{" + echo + b"}")


def chat_of(**fields: Any) -> Any:
    return read(**fields)[0]


def refusal_of(keeps: bool = False, **fields: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        read(keeps, **fields)
    assert caught.value.status == 400
    return caught.value


def test_text_is_a_message_of_the_users_and_instructions_come_first() -> None:
    assert chat_of() == {"model": "alias", "messages": HI}
    assert chat_of(instructions="Be brief.")["messages"] == [
        {"role": "system", "content": "Be brief."},
        *HI,
    ]


SAME = {
    "temperature": 0.5,
    "top_p": 0.9,
    "metadata": {"a": "b"},
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "service_tier": "flex",
}


@pytest.mark.parametrize(
    ("field", "becomes"),
    [
        *(({name: value}, {name: value}) for name, value in SAME.items()),
        ({"max_output_tokens": 5}, {"max_completion_tokens": 5}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False}, {}),
        ({"stream_options": {"include_obfuscation": False}}, {}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"summary": "detailed"}}, {}),
        ({"reasoning": {"generate_summary": "auto", "context": None}}, {}),
        ({"reasoning": {}}, {}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
        (
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
        ),
        (
            {
                "text": {
                    "format": {
                        "type": "json_schema",
                        "name": "n",
                        "schema": {"type": "object"},
                        "strict": True,
                    }
                }
            },
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        ({"tools": [FUNCTION]}, {"tools": [TOOL]}),
        ({"tools": [{**FUNCTION, "defer_loading": False}]}, {"tools": [TOOL]}),
        (
            {"tools": [FUNCTION], "parallel_tool_calls": False},
            {"tools": [TOOL], "parallel_tool_calls": False},
        ),
        ({"tools": [], "parallel_tool_calls": True, "tool_choice": "auto"}, {}),
        *(
            ({"tools": [FUNCTION], "tool_choice": choice}, {"tools": [TOOL], "tool_choice": choice})
            for choice in ("auto", "none", "required")
        ),
        (
            {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
            {
                "tools": [TOOL],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
        ),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"top_logprobs": 0}, {}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"include": ["reasoning.encrypted_content"]}, {}),
        ({"truncation": "disabled"}, {}),
        ({"background": False}, {}),
        ({"store": False}, {}),
        (dict.fromkeys(("previous_response_id", "conversation", "prompt", "new", "store")), {}),
    ],
)
def test_a_field_is_honoured(field: dict[str, Any], becomes: dict[str, Any]) -> None:
    assert chat_of(**field) == {"model": "alias", "messages": HI, **becomes}


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"seed": 1}, "seed"),
        ({"store": True}, "store"),
        ({"include": ["reasoning.encrypted_content", "file_search_call.results"]}, "include[1]"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"reasoning": {"summary": "concise"}}, "reasoning.summary"),
        ({"reasoning": {"generate_summary": "concise"}}, "reasoning.generate_summary"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"shape": "round"}}, "text.shape"),
        ({"tools": [FUNCTION, {"type": "web_search"}]}, "tools[1].type"),
        *(
            ({"tools": [{"type": kind, "name": "x"}]}, "tools[0].type")
            for kind in ("file_search", "code_interpreter", "computer", "mcp", "custom")
        ),
        ({"tools": [{**FUNCTION, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].id"),
        ({"input": [*HI, {"id": "x"}]}, "input[1].id"),
        ({"input": [*HI, {"id": "x", "type": None}]}, "input[1].id"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id"),
        ({"input": [*HI, {"type": "web_search_call", "id": "x"}]}, "input[1].type"),
        ({"input": [{"type": "computer_call_output", "output": {}}]}, "input[0].type"),
        ({"temperature": "hot"}, "temperature"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": 5}, "input"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused_by_its_name(
    field: dict[str, Any], param: str
) -> None:
    refusal = refusal_of(**field)
    assert refusal.param == param
    assert param in refusal.message


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"model": "m", "input": "\\ud800"}', b'{"model":1,"model":2}']
)
def test_a_body_that_others_would_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        read_request(body, keeps=False)


def test_a_response_repeats_its_request_and_names_the_defaults() -> None:
    _, echo = read()
    assert echo == {
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
    }
    asked: dict[str, Any] = {
        "instructions": "i",
        "max_output_tokens": 5,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "temperature": 0.5,
        "text": {"verbosity": "low"},
        "tool_choice": "required",
        "tools": [FUNCTION],
        "top_logprobs": 1,
        "top_p": 0.1,
        "user": "u",
    }
    _, told = read(**asked)
    assert told == {
        **echo,
        **asked,
        "reasoning": {"effort": "low", "summary": None},
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "tools": [{**FUNCTION, "strict": None}],
    }


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("asked", [{}, {"store": False}])
def test_a_response_says_whether_it_is_kept(keeps: bool, asked: dict[str, Any]) -> None:
    chat, echo = read(keeps, **asked)
    assert echo["store"] is (keeps and not asked)
    assert "store" not in chat


def test_storing_can_be_asked_for_where_it_is_on() -> None:
    assert read(keeps=True, store=True)[1]["store"] is True


SAID = {"role": "assistant", "content": [{"type": "output_text", "text": "2"}]}


def _user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def kept(response_id: str, previous: str | None, asked: list[Any], output: list[Any]) -> Kept:
    response = {"id": response_id, "status": "completed", "output": output}
    return Kept("o", response_id, previous, json.dumps(asked), json.dumps(response), 1)


def test_a_request_is_continued_by_all_that_was_said_before_it() -> None:
    first = kept("r1", None, [_user("1")], [SAID])
    second = kept("r2", "r1", [_user("3"), _user("4")], [])
    body = b'{"model": "m", "previous_response_id": "r2", "input": "5\\"", "x": [1]}'
    whole, prepended = continued(body, [second, first])
    assert prepended == 4
    assert json.loads(whole) == {
        "model": "m",
        "previous_response_id": None,
        "input": [
            _user("1"),
            SAID,
            _user("3"),
            _user("4"),
            {"type": "message", **_user('5"')},
        ],
        "x": [1],
    }
    empty, _ = continued(b'{"model":"m","previous_response_id":"r1"}', [first])
    assert json.loads(empty)["input"] == [_user("1"), SAID]


REFERENCE = {"type": "item_reference", "id": "a"}


@pytest.mark.parametrize(
    ("items", "found"),
    [
        ([REFERENCE], {0: "a"}),
        ([*HI, {"id": "a"}, REFERENCE, {"id": "b", "type": None}], {1: "a", 2: "a", 3: "b"}),
        ([{"type": "item_reference"}], {0: "None"}),
        ([{}, {"type": None}, {"id": "a", "role": "user"}, {"type": "x", "id": "a"}, "a", 5], {}),
        ("item_reference", {}),
        ({"id": "a"}, {}),
        (None, {}),
    ],
)
def test_an_item_that_is_only_an_id_refers_to_another(items: object, found: object) -> None:
    assert references(items) == found


def test_items_stand_in_the_place_of_their_ids() -> None:
    body = b'{"model": "m",  "input": [{"role": "user", "content": "hi"}, {"id": "a"}], "x": 1}'
    item = '{"id":"a",  "type":"reasoning"}'
    assert resolved(body, {1: "a"}, {"a": item, "b": "{}"}) == (
        b'{"model": "m",  "input": [{"role": "user", "content": "hi"},%b], "x": 1}' % item.encode()
    )


def test_an_id_that_nothing_is_kept_of_is_refused_with_a_way_out() -> None:
    body = json.dumps({"input": [REFERENCE, {"id": "b"}]}).encode()
    with pytest.raises(Refused) as caught:
        resolved(body, {0: "a", 1: "b"}, {"a": "{}"})
    assert (caught.value.status, caught.value.param) == (400, "input[1].id")
    assert "no item 'b' is kept here" in caught.value.message
    assert "`store: false`" in caught.value.message
    for way_out in ("`store = true`", "`store: false`"):
        assert way_out in refusal_of(input=[REFERENCE]).message


def test_ids_do_not_make_a_request_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_CONVERSATION", 9)
    body = json.dumps({"input": [REFERENCE] * 3}).encode()
    resolved(body, {0: "a", 1: "a", 2: "a"}, {"a": "123"})
    with pytest.raises(Refused) as caught:
        resolved(body, {0: "a", 1: "a", 2: "a"}, {"a": "1234"})
    assert (caught.value.status, caught.value.param) == (400, "input")
