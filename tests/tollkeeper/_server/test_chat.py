"""Reading chat bodies: what is refused, with which param, and which usage is believed."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper._server.chat import CHAT, ChatDialect
from tollkeeper.dialect import MAX_TOKENS, Asked
from tollkeeper.errors import Failed, Refused
from tollkeeper.exchange import Exchange, Usage
from tollkeeper.sse import data_of, split_events

DIALECT = ChatDialect()


def peek(body: bytes) -> Asked:
    return DIALECT.peek(Exchange(CHAT, "", {}, "test", 0.0, body=body))


def refusal_of(body: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        peek(body)
    return caught.value


def test_what_the_gateway_needs_is_read_and_all_else_is_left_alone() -> None:
    body = {
        "temperature": 3,
        "messages": [{"role": "user", "content": [{"odd": None}]}],
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True, "new": [1]},
        "new_field": {"deep": ["model"]},
    }
    assert peek(json.dumps(body, indent=1).encode()) == ("m", True, True, None, 1)


@pytest.mark.parametrize(
    ("fields", "stream", "usage"),
    [
        ({}, False, False),
        ({"stream": None, "stream_options": None}, False, False),
        ({"stream": False}, False, False),
        ({"stream": True}, True, False),
        ({"stream": True, "stream_options": {}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": None}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
    ],
)
def test_a_stream_and_its_usage_come_when_asked_for(
    fields: dict[str, object], stream: bool, usage: bool
) -> None:
    body = json.dumps({"model": "m", "messages": [], **fields}).encode()
    assert peek(body)[:3] == ("m", stream, usage)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"null", None),
        (b"[]", None),
        (b'"model"', None),
        (b'{"model": "m", "messages": []} x', None),
        (b'{"model": "m", "messages": [}', None),
        (b'{"model": "m", "messages": [],}', None),
        (b"{'model': 'm'}", None),
        (b'{"model": "\\ud800", "messages": []}', None),
        (b"\xff\xfe{\x00}\x00", None),
        (b'{"messages": []}', "model"),
        (b'{"model": null, "messages": []}', "model"),
        (b'{"model": "", "messages": []}', "model"),
        (b'{"model": 5, "messages": []}', "model"),
        (b'{"model": ["m"], "messages": []}', "model"),
        (b'{"model": "m"}', "messages"),
        (b'{"model": "m", "messages": null}', "messages"),
        (b'{"model": "m", "messages": "hello"}', "messages"),
        (b'{"model": "m", "messages": {"0": {}}}', "messages"),
        (b'{"model": "m", "messages": [], "stream": "yes"}', "stream"),
        (b'{"model": "m", "messages": [], "stream": 1}', "stream"),
        (b'{"model": "m", "messages": [], "stream_options": true}', "stream_options"),
        (b'{"model": "m", "messages": [], "stream_options": []}', "stream_options"),
    ],
)
def test_a_malformed_body_is_a_400_that_names_the_field_at_fault(
    body: bytes, param: str | None
) -> None:
    refusal = refusal_of(body)
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_request", param)
    assert json.loads(refusal.body())["error"]["message"]


@pytest.mark.parametrize("field", ["messages", "tools"])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_body_nested_too_deeply_is_a_400(field: str, begin: bytes, end: bytes) -> None:
    deep = begin * 100_000 + b"1" + end * 100_000
    body = b'{"model": "m", "messages": [], "%b": %b}' % (field.encode(), deep)
    assert refusal_of(body).status == 400


@pytest.mark.parametrize(
    "members",
    [
        b'"model": "a", "model": "b"',
        b'"model": "a", "mod\\u0065l": "b"',
        b'"\\u006Dodel": "b", "model": "a"',
        b'"model": "a", "stream": true, "stream": false',
        b'"model": "a", "stream_options": {}, "stream_options": {}',
        b'"\\u006dodel": "a", "m\\u006fdel": "b"',
    ],
)
def test_a_key_that_the_gateway_acts_on_may_not_stand_twice(members: bytes) -> None:
    refusal = refusal_of(b'{"messages": [], %b}' % members)
    assert refusal.status == 400
    assert "twice" in refusal.message


@pytest.mark.parametrize(
    "key", [b"\xff", b"\xff\\u0061", b"\\ud83d\\ude00\\u0061", b"\\u005c\\u0022model"]
)
def test_a_key_of_any_characters_is_taken_or_refused(key: bytes) -> None:
    body = b'{"model": "m", "messages": [], "%b": 1}' % key
    with contextlib.suppress(Refused):
        assert peek(body)[:3] == ("m", False, False)


def test_a_key_of_the_same_name_inside_a_value_is_no_double() -> None:
    body = b'{"model": "m", "messages": [{"model": 1, "stream": 2}], "x": "\\"model\\": 3"}'
    assert peek(body)[:3] == ("m", False, False)


@pytest.mark.parametrize(
    ("fields", "bound", "answers"),
    [
        ({"max_tokens": 5}, 5, 1),
        ({"max_completion_tokens": 7}, 7, 1),
        ({"max_completion_tokens": 7, "max_tokens": 9, "n": 3}, 9, 3),
        ({"max_tokens": 0, "n": 0}, None, 1),
        ({"max_tokens": -1, "n": None}, None, 1),
    ],
)
def test_what_a_request_binds_its_output_to_is_read(
    fields: dict[str, object], bound: int | None, answers: int
) -> None:
    body = json.dumps({"model": "m", "messages": [], **fields}).encode()
    assert peek(body)[3:] == (bound, answers)


@settings(deadline=None)
@given(st.text(min_size=1))
def test_a_model_may_have_any_name(name: str) -> None:
    body = json.dumps({"model": name, "messages": []}).encode()
    assert peek(body)[0] == name


@pytest.mark.parametrize("field", ["n", "max_tokens", "max_completion_tokens"])
def test_what_bounds_the_cost_is_typed_and_may_stand_once(field: str) -> None:
    body = b'{"model": "m", "messages": [], "%b": %b}'
    peek(body % (field.encode(), b"3"))
    peek(body % (field.encode(), b"null"))
    assert refusal_of(body % (field.encode(), b'"3"')).param == field
    assert refusal_of(body % (field.encode(), b'3, "%b": 4' % field.encode())).param == field


def test_a_whole_usage_is_believed() -> None:
    data = {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    usage = DIALECT.usage(json.dumps(data).encode())
    assert usage == Usage(10, 4, 3, 2, 1, evidence="provider")


@pytest.mark.parametrize("details", ["null", "{}", '{"cached_tokens": null}'])
def test_details_that_are_not_given_count_nothing(details: str) -> None:
    data = f'{{"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {details}}}'
    assert DIALECT.usage(data.encode()) == Usage(1, 2)


def test_usage_without_completion_is_that_of_an_embedding() -> None:
    assert DIALECT.usage(b'{"prompt_tokens": 8, "total_tokens": 8}') == Usage(8, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"completion_tokens": 1}',
        b'{"prompt_tokens": -1, "completion_tokens": 1}',
        b'{"prompt_tokens": 1, "completion_tokens": -1}',
        b'{"prompt_tokens": "1", "completion_tokens": 1}',
        b'{"prompt_tokens": 1.5, "completion_tokens": 1}',
        b'{"prompt_tokens": true, "completion_tokens": 1}',
        b'{"prompt_tokens": %d, "completion_tokens": 1}' % (MAX_TOKENS + 1),
        b'{"prompt_tokens": 99999999999999999999999999, "completion_tokens": 1}',
        b'{"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": -1}}',
        b'{"prompt_tokens": 1, "completion_tokens_details": {"reasoning_tokens": "x"}}',
        pytest.param(b'{"prompt_tokens": 1, "x": ' + b"[" * 100_000, id="deep"),
    ],
)
def test_usage_that_no_honest_provider_sends_is_not_believed(data: bytes) -> None:
    assert DIALECT.usage(data) is None


def test_an_error_in_a_stream_is_an_event_of_the_usual_shape_and_then_the_end() -> None:
    error = Failed(502, "server_error", "broke\noff")
    events = list(split_events(DIALECT.error_event(error)))
    data, done = map(data_of, events)
    assert json.loads(data or b"")["error"] == {
        "message": "broke\noff",
        "type": "server_error",
        "param": None,
        "code": "server_error",
    }
    assert done == b"[DONE]"


def test_chat_is_a_post_to_the_path_that_sdks_call() -> None:
    assert (CHAT.method, CHAT.path) == ("POST", "/v1/chat/completions")
    assert isinstance(CHAT.dialect, ChatDialect)
