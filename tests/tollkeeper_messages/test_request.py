"""Fields of a request and what they become in a chat. One row for each."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper import Refused
from tollkeeper.canonical import read_chat
from tollkeeper_messages.models import MessagesRequest
from tollkeeper_messages.request import chat_body

MESSAGES = [{"role": "user", "content": "hi"}]
BODY = {"model": "m", "max_tokens": 9, "messages": MESSAGES}
CACHE = {"type": "ephemeral", "ttl": "1h"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"name": "f", "input_schema": SCHEMA}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}


def chat(**fields: Any) -> Any:
    body = chat_body(json.dumps({**BODY, **fields}).encode())
    _, unknown = read_chat(body)
    assert unknown == []
    return json.loads(body)


def added(**fields: Any) -> dict[str, Any]:
    """What the fields add to the smallest chat."""
    found = chat(**fields)
    for name, value in (("model", "m"), ("messages", MESSAGES), ("max_completion_tokens", 9)):
        assert found.pop(name) == value
    return dict(found)


def said(*turns: tuple[str, Any], **fields: Any) -> Any:
    messages = [{"role": role, "content": content} for role, content in turns]
    return chat(messages=messages, **fields)["messages"]


def refusal(**fields: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        chat(**fields)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    return caught.value


def test_the_smallest_request_is_the_smallest_chat() -> None:
    assert chat() == {"model": "m", "messages": MESSAGES, "max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False}, {}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 40},) * 2,
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"metadata": {"user_id": "u" * 64}}, {"user": "u" * 64}),
        (
            {"metadata": {"user_id": "u" * 65}},
            {"user": hashlib.sha256(b"u" * 65).hexdigest()},
        ),
        ({"metadata": {"user_id": None}}, {}),
        ({"metadata": {}}, {}),
        ({"service_tier": "auto"}, {}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"cache_control": CACHE}, {}),
        ({"thinking": {"type": "disabled"}}, {}),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4095}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 16383}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 16384}}, {"reasoning_effort": "high"}),
        *(
            ({"output_config": {"effort": effort}}, {"reasoning_effort": effort})
            for effort in ("low", "medium", "high", "xhigh", "max")
        ),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            {"reasoning_effort": "max"},
        ),
        (
            {
                "thinking": {"type": "enabled", "budget_tokens": 1024},
                "output_config": {"effort": "high"},
            },
            {"reasoning_effort": "high"},
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "response", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        ({"output_config": {}}, {}),
        ({"tools": []}, {}),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "tool", "name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        (
            {"tool_choice": {"type": "any", "disable_parallel_tool_use": False}},
            {"tool_choice": "required"},
        ),
        ({"container": None, "mcp_servers": [], "context_management": {}}, {}),
    ],
)
def test_a_field_becomes_its_counterpart(fields: Any, wanted: Any) -> None:
    assert added(**fields) == wanted


def test_every_field_that_may_be_absent_may_be_null() -> None:
    names = set(MessagesRequest.__struct_fields__) - {"model", "messages", "max_tokens"}
    assert added(**dict.fromkeys(names)) == {}


@pytest.mark.parametrize(
    ("tool", "wanted"),
    [
        (TOOL, {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}),
        (
            {**TOOL, "type": "custom", "description": "d", "strict": True, "cache_control": CACHE},
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": SCHEMA,
                    "strict": True,
                },
                "cache_control": CACHE,
            },
        ),
        (
            {
                **TOOL,
                "eager_input_streaming": True,
                "defer_loading": False,
                "allowed_callers": ["direct"],
            },
            {"type": "function", "function": {"name": "f", "parameters": SCHEMA}},
        ),
    ],
)
def test_a_tool_of_the_clients_is_a_function(tool: Any, wanted: Any) -> None:
    assert added(tools=[tool]) == {"tools": [wanted]}


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_20250305",
        "web_fetch_20250910",
        "bash_20250124",
        "text_editor_20250728",
        "computer_20250124",
        "code_execution_20250825",
        "memory_20250818",
        "tool_search_tool_regex_20251119",
        "mcp_toolset",
    ],
)
def test_a_tool_of_anthropics_is_refused_by_name(kind: str) -> None:
    refused = refusal(tools=[TOOL, {"type": kind, "name": "x", "max_uses": 5}])
    assert refused.param == "tools[1].type"
    assert f"'{kind}'" in refused.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 9.5}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop_sequences": "a"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
        ({"system": 5}, "system"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"system": [{"type": "text", "text": 1}]}, "system[0].text"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "always"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": "9"}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"task_budget": {}}}, "output_config"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id"),
        ({"metadata": {"team": "a"}}, "metadata"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"name": "f"}]}, "tools[0]"),
        ({"tools": [{**TOOL, "type": 5}]}, "tools[0].type"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**TOOL, "input_examples": [{}]}]}, "tools[0].input_examples"),
        (
            {"tools": [{**TOOL, "allowed_callers": ["code_execution_20250825"]}]},
            "tools[0].allowed_callers[0]",
        ),
        ({"tools": [{**TOOL, "parameters": {}}]}, "tools[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [*MESSAGES, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": "a", "name": "n"}]}, "messages[0]"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"url": "u"}]}, "mcp_servers"),
        ({"context_management": {"edits": [{}]}}, "context_management"),
        ({"betas": ["b"]}, "betas"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"speed": "fast"}, "speed"),
        ({"fallbacks": [{}]}, "fallbacks"),
        ({"n": 2}, "n"),
        ({"something_new": False}, "something_new"),
        ({"something_new": 0}, "something_new"),
    ],
)
def test_what_is_wrong_or_has_no_counterpart_is_a_400_that_names_it(
    fields: Any, param: str
) -> None:
    assert refusal(**fields).param == param


def test_a_refused_thread_says_so_in_the_word_that_sdks_look_for() -> None:
    assert refusal(thread={"id": "t"}).detail_code == "thread_unsupported_request"
    assert refusal(speed="fast").detail_code is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"model": "m"',
        b'{"model": "m", "max_tokens": NaN, "messages": []}',
        b'{"model": "m", "max_tokens": 1, "max_tokens": 2, "messages": []}',
        b'{"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "m", "max_tokens": 1, "messages": ' + b"[" * 99 + b"]" * 99 + b"}",
    ],
)
def test_a_body_that_the_strict_gate_does_not_take_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        chat_body(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ("be brief", "be brief"),
        ([{"type": "text", "text": "be brief"}], "be brief"),
        (
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        ),
        ([{"type": "text", "text": "a", "cache_control": CACHE}],) * 2,
    ],
)
def test_the_system_prompt_is_the_first_message(system: Any, content: Any) -> None:
    assert said(("user", "hi"), system=system) == [
        {"role": "system", "content": content},
        *MESSAGES,
    ]


@pytest.mark.parametrize("system", ["", []])
def test_an_empty_system_prompt_is_none(system: Any) -> None:
    assert said(("user", "hi"), system=system) == MESSAGES


def test_a_system_message_between_others_keeps_its_place() -> None:
    turns = [("user", "a"), ("system", "b"), ("user", [{"type": "text", "text": "c"}])]
    assert said(*turns) == [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "b"},
        {"role": "user", "content": "c"},
    ]


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "text", "text": "a", "cache_control": CACHE},) * 2,
        (
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        ),
        (
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"},
                "cache_control": CACHE,
            },
            {
                "type": "image_url",
                "image_url": {"url": "data:image/png;base64,iVBO"},
                "cache_control": CACHE,
            },
        ),
        (
            {"type": "document", "source": PDF, "title": "a.pdf"},
            {
                "type": "file",
                "file": {
                    "filename": "a.pdf",
                    "file_data": "data:application/pdf;base64,JVBERi0=",
                },
            },
        ),
        (
            {"type": "document", "source": PDF, "citations": {"enabled": False}},
            {
                "type": "file",
                "file": {
                    "filename": "document.pdf",
                    "file_data": "data:application/pdf;base64,JVBERi0=",
                },
            },
        ),
    ],
)
def test_a_block_of_the_users_is_a_part(block: Any, part: Any) -> None:
    first = {"type": "text", "text": "see"}
    assert said(("user", [block])) == [{"role": "user", "content": [part]}]
    assert said(("user", [first, block])) == [{"role": "user", "content": [first, part]}]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"source": {**PDF, "media_type": "text/plain"}}, ".source.media_type"),
        ({"source": PDF, "citations": {"enabled": True}}, ".citations"),
    ],
)
def test_a_document_that_chat_cannot_carry_is_refused(document: Any, field: str) -> None:
    turn = {"role": "user", "content": [{"type": "document", **document}]}
    assert refusal(messages=[turn]).param == f"messages[0].content[0]{field}"


def test_a_user_who_says_nothing_is_heard_saying_nothing() -> None:
    assert said(("user", [])) == [{"role": "user", "content": ""}]


def result(content: Any = None, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t1", "content": content, **fields}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (result("42"), {"content": "42"}),
        (result([{"type": "text", "text": "42"}]), {"content": "42"}),
        (result(), {"content": ""}),
        (result([]), {"content": ""}),
        (result("42", is_error=False), {"content": "42"}),
        (result("no such file", is_error=True), {"content": "Error: no such file"}),
        (result(is_error=True), {"content": "Error:"}),
        (
            result([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], is_error=True),
            {"content": [{"type": "text", "text": "Error: a"}, {"type": "text", "text": "b"}]},
        ),
        (result("42", cache_control=CACHE), {"content": "42", "cache_control": CACHE}),
    ],
)
def test_a_result_of_a_tool_is_a_message_of_its_own(block: Any, message: Any) -> None:
    assert said(("user", [block])) == [{"role": "tool", "tool_call_id": "t1", **message}]


def test_results_come_first_and_then_what_else_the_user_says() -> None:
    blocks = [
        {"type": "text", "text": "and now"},
        result("1"),
        {"type": "text", "text": "this"},
        result("2", tool_use_id="t2"),
    ]
    assert said(("user", blocks)) == [
        {"role": "tool", "tool_call_id": "t1", "content": "1"},
        {"role": "tool", "tool_call_id": "t2", "content": "2"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "and now"}, {"type": "text", "text": "this"}],
        },
    ]


@pytest.mark.parametrize("kind", ["image", "document"])
def test_a_result_that_is_more_than_text_is_refused_by_its_place(kind: str) -> None:
    turn = {"role": "user", "content": [result([{"type": kind, "source": PDF}])]}
    assert refusal(messages=[turn]).param == "messages[0].content[0].content[0].type"


CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "ü", "b": [1.5, None]}}
SENT_CALL = {
    "id": "t1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a":"ü","b":[1.5,null]}'},
}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "EmwK"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hi", {"content": "hi"}),
        ([], {"content": ""}),
        ([CALL], {"tool_calls": [SENT_CALL]}),
        (
            [{"type": "text", "text": "so"}, CALL, {**CALL, "id": "t2", "input": {}}],
            {
                "content": "so",
                "tool_calls": [
                    SENT_CALL,
                    {
                        "id": "t2",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                    },
                ],
            },
        ),
        ([{**CALL, "cache_control": CACHE}], {"tool_calls": [SENT_CALL], "cache_control": CACHE}),
        (
            [SIGNED, REDACTED, {"type": "text", "text": "so"}],
            {"content": "so", "reasoning_content": "hm", "thinking_blocks": [SIGNED, REDACTED]},
        ),
        (
            [{**SIGNED, "signature": ""}, {"type": "thinking", "thinking": "!"}, CALL],
            {"reasoning_content": "hm!", "tool_calls": [SENT_CALL]},
        ),
        ([REDACTED], {"content": "", "thinking_blocks": [REDACTED]}),
    ],
)
def test_what_the_assistant_said_is_one_message(content: Any, message: Any) -> None:
    _, found = said(("user", "hi"), ("assistant", content))
    assert found == {"role": "assistant", **message}


def status_of(**fields: Any) -> int:
    try:
        chat(**fields)
    except Refused as refused:
        return refused.status
    return 200


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from([*MessagesRequest.__struct_fields__, "container", "x"])


@settings(deadline=None)
@given(st.dictionaries(names, values))
def test_any_fields_are_translated_or_refused_with_a_400(fields: dict[str, Any]) -> None:
    assert status_of(**fields) in (200, 400)


blocks = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text", "image", "document", "tool_use", "tool_result", "thinking", "x"]
        )
    },
    optional={
        "text": values,
        "source": values,
        "content": values,
        "tool_use_id": values,
        "input": values,
        "thinking": values,
    },
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"])},
    optional={"content": st.text() | st.lists(blocks | values, max_size=3)},
)


@settings(deadline=None)
@given(st.lists(turns | values, max_size=3))
def test_any_conversation_is_translated_or_refused_with_a_400(messages: list[Any]) -> None:
    assert status_of(messages=messages) in (200, 400)
