"""The client's body on its way upstream: changed where it must be, the same elsewhere."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import Refused
from tollkeeper_openai.service import (
    FOREIGN,
    for_mistral,
    with_max_tokens,
    with_older_name,
    with_usage_option,
    without_foreign,
    without_idle_stream_options,
)

BODY = (
    b'{ "model" : "alias",\n\t"stream":true, '
    b'"messages":[{"role":"user","content":"\\u00e9"}], "odd":1e2 }'
)

flags = st.none() | st.booleans()
options = st.none() | st.dictionaries(
    st.sampled_from(["include_usage", "include_obfuscation", "new"]), flags, max_size=3
)
bodies = st.fixed_dictionaries(
    {"model": st.text(min_size=1), "messages": st.just([{"role": "user", "content": "hi"}])},
    optional={"stream_options": options, "n": st.integers(), "a}b": st.text()},
)


def test_asking_for_usage_adds_one_member_and_changes_no_other_byte() -> None:
    changed = with_usage_option(BODY)
    assert changed.startswith(BODY[:-2] + b",")
    assert json.loads(changed) == {**json.loads(BODY), "stream_options": {"include_usage": True}}


@settings(deadline=None)
@given(bodies, st.sampled_from([None, 1]))
def test_only_the_usage_option_differs_from_what_the_client_sent(
    body: dict[str, Any], indent: int | None
) -> None:
    sent = json.loads(with_usage_option(json.dumps(body, indent=indent).encode()))
    asked = {**(body.get("stream_options") or {}), "include_usage": True}
    assert sent == {**body, "stream_options": asked}


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream_options": {"include_usage": false, "include_usage": false}}',
        b'{"stream_options": {"include_usage": false}, "stream_options": {"include_usage": false}}',
        b'{"stream_options": {"include\\u005fusage": false}}',
        b'{"stream\\u005foptions": {"include_usage": false}}',
        b'{"stream_options": null, "stream_options": null}',
    ],
)
def test_no_spelling_of_the_option_talks_the_upstream_out_of_its_usage(body: bytes) -> None:
    options = json.loads(with_usage_option(body))["stream_options"]
    assert options["include_usage"] is True


CURES: list[tuple[Callable[[bytes], bytes], dict[str, Any], dict[str, Any]]] = [
    (with_max_tokens, {"max_completion_tokens": 5}, {"max_tokens": 5}),
    (with_max_tokens, {"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
    (with_max_tokens, {"max_completion_tokens": None, "max_tokens": 9}, {"max_tokens": 9}),
    (without_idle_stream_options, {"stream_options": {}, "stream": False}, {"stream": False}),
    (without_idle_stream_options, {"stream_options": {"include_usage": True}}, {}),
    (for_mistral, {"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    (for_mistral, {"tool_choice": "required"}, {"tool_choice": "any"}),
    (for_mistral, {"seed": 7}, {"random_seed": 7}),
    (for_mistral, {"seed": None, "n": 1}, {"n": 1}),
]


@pytest.mark.parametrize(("cure", "body", "wanted"), CURES)
def test_a_cure_changes_what_it_is_for(
    cure: Callable[[bytes], bytes], body: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert json.loads(cure(json.dumps({"model": "é", **body}).encode())) == {"model": "é", **wanted}


@pytest.mark.parametrize("cure", [with_max_tokens, without_idle_stream_options, for_mistral])
def test_a_body_that_needs_no_cure_keeps_every_byte(cure: Callable[[bytes], bytes]) -> None:
    assert cure(BODY) is BODY


def test_stream_options_stay_where_a_stream_is_asked_for() -> None:
    body = b'{"stream":true, "stream_options":{"include_usage":true}}'
    assert without_idle_stream_options(body) is body


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({"role": "user", "name": "x"}, {"role": "user"}),
        ({"role": "tool", "name": "f"}, {"role": "tool", "name": "f"}),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text"}]},
            {"role": "user", "content": "a"},
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": None}]},
            {"role": "user", "content": ""},
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
        ),
        ({"role": "user", "content": ["text"]}, {"role": "user", "content": ["text"]}),
        ("name", "name"),
    ],
)
def test_messages_are_as_mistral_takes_them(message: object, wanted: object) -> None:
    body = json.dumps({"messages": [message], "name": 1}).encode()
    assert json.loads(for_mistral(body))["messages"] == [wanted]


@pytest.mark.parametrize("messages", [None, {}, "x", 5])
def test_messages_that_are_no_list_are_for_the_upstream_to_refuse(messages: object) -> None:
    body = {"messages": messages, "name": "x"}
    assert json.loads(for_mistral(json.dumps(body).encode())) == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"seed":1,"user":"\\ud800"}',
        b'{"seed":1,"x":NaN}',
        b'{"seed":1,"seed":2}',
        b'{"seed":99999999999999999999}',
    ],
)
def test_what_cannot_be_written_anew_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        for_mistral(body)


def translated() -> dict[str, Any]:
    """A chat made from another dialect, with every foreign field in its place."""
    call = {"id": "a", "function": {"name": "f"}, "extra_content": {"google": {}}}
    return {
        "model": "m",
        "thinking": {"type": "enabled"},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]},
            {
                "role": "assistant",
                "content": "cache_control",
                "reasoning_content": "hm",
                "thinking_blocks": [{}],
                "tool_calls": [call],
            },
        ],
        "tools": [{"type": "function", "cache_control": {}}],
    }


def test_a_translated_request_loses_what_the_service_does_not_know_and_says_what() -> None:
    body, dropped = without_foreign(json.dumps(translated()).encode(), frozenset())
    assert dropped == sorted(FOREIGN)
    assert json.loads(body) == {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            {
                "role": "assistant",
                "content": "cache_control",
                "tool_calls": [{"id": "a", "function": {"name": "f"}}],
            },
        ],
        "tools": [{"type": "function"}],
    }


@pytest.mark.parametrize("kept", sorted(FOREIGN))
def test_a_translated_request_keeps_what_the_service_knows(kept: str) -> None:
    body, dropped = without_foreign(json.dumps(translated()).encode(), frozenset({kept}))
    assert kept not in dropped
    assert f'"{kept}":'.encode() in body


@pytest.mark.parametrize("body", [BODY, b'{"messages":[{"content":"\\"thinking\\""}] , "x":1}'])
def test_a_translated_request_without_them_keeps_every_byte(body: bytes) -> None:
    assert without_foreign(body, frozenset()) == (body, [])


def test_only_thinking_is_taken_out_too() -> None:
    assert without_foreign(b'{"thinking":{}}', frozenset()) == (b"{}", ["thinking"])


@pytest.mark.parametrize(
    ("body", "renamed"),
    [
        (
            b'{"model":"m", "a": 1,"max_completion_tokens":5}',
            b'{"model":"m", "a": 1,"max_tokens":5}',
        ),
        (b'{"max_tokens":-1,"max_completion_tokens":5}', b'{"max_tokens":5}'),
        (b'{"max_completion_tokens":5,"x":1}', b'{"x":1,"max_tokens":5}'),
    ],
)
def test_a_bound_goes_by_its_older_name_and_all_else_stays(body: bytes, renamed: bytes) -> None:
    assert with_older_name(body) == renamed
