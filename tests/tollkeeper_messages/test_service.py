"""Reading and writing Anthropic's bodies: what is refused, what is believed, how errors go."""

import json
from typing import Any

import pytest

from tollkeeper import ApiError, Asked, Exchange, Failed, Operation, Refused, Usage
from tollkeeper_messages.service import (
    MAX_TOKENS,
    CountDialect,
    MessagesDialect,
    error_type,
)
from tollkeeper_messages.stream import MessagesReader, MessagesTranslation

DIALECT = MessagesDialect()
COUNT = CountDialect()


def exchange_of(body: bytes) -> Exchange:
    return Exchange(Operation("messages", "POST", "/"), "", {}, "test", 0.0, body=body)


def peek(body: bytes, dialect: MessagesDialect = DIALECT) -> Asked:
    return dialect.peek(exchange_of(body))


@pytest.mark.parametrize("dialect", [DIALECT, COUNT])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"model": "m", "messages": []} x', None),
        (b'{"messages": []}', "model"),
        (b'{"model": "", "messages": []}', "model"),
        (b'{"model": 5, "messages": []}', "model"),
        (b'{"model": "m"}', "messages"),
        (b'{"model": "m", "messages": "hi"}', "messages"),
        (b'{"model": "m", "messages": null}', "messages"),
        (b'{"model": "m", "messages": [], "stream": "yes"}', "stream"),
        (b'{"model": "m", "messages": [], "model": "n"}', "model"),
        (b'{"model": "m", "messages": [], "mod\\u0065l": "n"}', "model"),
        (b'{"stream": true, "model": "m", "messages": [], "stream": false}', "stream"),
        (b'{"model": "m", "messages": ' + b"[" * 99 + b"]" * 99 + b"}", None),
        (b'{"model": "m", "messages": [], "x": "\xff"}', None),
    ],
)
def test_a_body_that_no_upstream_could_take_is_a_400(
    dialect: MessagesDialect, body: bytes, param: str | None
) -> None:
    with pytest.raises(Refused) as caught:
        peek(body, dialect)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(("stream", "wanted"), [("true", True), ("false", False), ("null", False)])
def test_a_stream_comes_when_asked_for_and_always_with_its_usage(stream: str, wanted: bool) -> None:
    body = b'{"model": "m", "messages": [], "stream": %b, "new": [1]}' % stream.encode()
    assert peek(body) == Asked("m", wanted, wants_usage=True)
    assert peek(body, COUNT) == Asked("m", stream=False, wants_usage=True)


def test_both_calls_are_of_one_dialect() -> None:
    assert (DIALECT.name, COUNT.name) == ("messages", "messages")


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({"input_tokens": 3, "output_tokens": 2}, Usage(3, 2)),
        ({"input_tokens": 3}, Usage(3, 0)),
        (
            {
                "input_tokens": 3,
                "cache_creation_input_tokens": 10,
                "cache_read_input_tokens": 100,
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 5},
                "cache_creation": {"ephemeral_5m_input_tokens": 10},
                "service_tier": "standard",
            },
            Usage(113, 9, 100, 10, 5, evidence="provider"),
        ),
        (
            {
                "input_tokens": 0,
                "cache_read_input_tokens": 7,
                "cache_creation_input_tokens": None,
                "output_tokens": None,
                "output_tokens_details": None,
            },
            Usage(7, 0, 7),
        ),
        ({"input_tokens": 0, "output_tokens": 4}, Usage(0, 4)),
        ({"input_tokens": 0, "output_tokens": 0}, None),
        ({"output_tokens": 4}, None),
        ({"input_tokens": None, "output_tokens": 4}, None),
        ({"input_tokens": -1, "cache_read_input_tokens": 5}, None),
        ({"input_tokens": 1, "output_tokens": -1}, None),
        ({"input_tokens": "1"}, None),
        ({"input_tokens": True}, None),
        ({"input_tokens": 1.5}, None),
        ({"input_tokens": MAX_TOKENS + 1}, None),
        ({"input_tokens": 1, "output_tokens_details": {"thinking_tokens": -1}}, None),
        ([], None),
    ],
)
def test_usage_is_believed_where_an_honest_provider_could_have_sent_it(
    told: Any, wanted: Usage | None
) -> None:
    assert DIALECT.usage(json.dumps(told).encode()) == wanted


def test_the_model_of_a_whole_message_is_found() -> None:
    body = (
        b'{"id":"msg_1","content":[{"model":"x","usage":{}}], "model":"up",'
        b'"usage":{"input_tokens":1}}'
    )
    assert DIALECT.rename(body, b'"alias"') == body.replace(b'"up"', b'"alias"')


def test_a_count_has_no_model() -> None:
    body = b'{"input_tokens": 2095}'
    assert COUNT.rename(body, b'"alias"') == body


def test_an_error_inside_a_reply_is_found() -> None:
    error = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    assert DIALECT.error_in(error) == error
    assert DIALECT.error_in(b'{"type":"ping"}') is None
    assert DIALECT.error_in(b'{"type":"message","content":[{"error":1}]}') is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Refused(400, "invalid_request", "no"), "invalid_request_error"),
        (Refused(400, "context_length_exceeded", "no"), "invalid_request_error"),
        (Refused(400, "content_filter", "no"), "invalid_request_error"),
        (Refused(401, "auth_error", "no"), "authentication_error"),
        (Refused(403, "auth_error", "no"), "permission_error"),
        (Refused(404, "not_found", "no"), "not_found_error"),
        (Refused(404, "model_not_found", "no"), "not_found_error"),
        (Refused(405, "method_not_allowed", "no"), "invalid_request_error"),
        (Refused(408, "request_timeout", "no"), "timeout_error"),
        (Refused(409, "conflict", "no"), "conflict_error"),
        (Refused(413, "request_too_large", "no"), "request_too_large"),
        (Refused(422, "invalid_request", "no"), "invalid_request_error"),
        (Refused(429, "rate_limit", "no"), "rate_limit_error"),
        (Failed(500, "server_error", "no"), "api_error"),
        (Failed(502, "server_error", "no"), "api_error"),
        (Failed(503, "server_error", "no"), "overloaded_error"),
        (Failed(504, "timeout", "no"), "timeout_error"),
        (Failed(529, "server_error", "no"), "overloaded_error"),
    ],
)
def test_an_error_has_anthropics_shape_and_word(error: ApiError, kind: str) -> None:
    wanted = {"type": "error", "error": {"type": kind, "message": "no"}}
    assert json.loads(DIALECT.error_body(error)) == wanted
    assert json.loads(COUNT.error_body(error)) == wanted


def test_the_finer_code_of_an_error_stands_among_its_details() -> None:
    refusal = Refused(404, "not_found", "no")
    refusal.detail_code = "thread_not_found"
    assert json.loads(DIALECT.error_body(refusal))["error"] == {
        "type": "not_found_error",
        "message": "no",
        "details": {"error_code": "thread_not_found"},
    }


def test_what_a_client_of_anthropics_owes_is_a_billing_error() -> None:
    assert error_type(402) == "billing_error"


def test_an_error_in_a_stream_is_one_named_event_and_nothing_behind_it() -> None:
    event = DIALECT.error_event(Failed(502, "server_error", "broke\noff"))
    head, _, rest = event.partition(b"\n")
    assert head == b"event: error"
    assert rest.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 3
    assert json.loads(rest[6:])["error"] == {"type": "api_error", "message": "broke\noff"}


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (b'{"type":"ping"}', b'event: ping\ndata: {"type":"ping"}\n\n'),
        (
            b'{"x": 1, "type": "content_block_stop"}',
            b'event: content_block_stop\ndata: {"x": 1, "type": "content_block_stop"}\n\n',
        ),
        (b'{"x":1}', b'data: {"x":1}\n\n'),
        (b"nonsense", b"data: nonsense\n\n"),
        (b'{"type":"a\\nid: 1"}', b'data: {"type":"a\\nid: 1"}\n\n'),
        (b'{"type":5}', b'data: {"type":5}\n\n'),
    ],
)
def test_an_event_is_named_by_its_type(data: bytes, event: bytes) -> None:
    assert DIALECT.encode_event(data) == event


def test_streams_are_read_under_the_clients_name() -> None:
    reader = DIALECT.reader(b'"alias"')
    assert isinstance(reader, MessagesReader)
    assert reader.alias == b'"alias"'


def test_a_message_can_be_a_chat_and_a_count_cannot() -> None:
    body = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}'
    turned = DIALECT.to_chat(exchange_of(body))
    assert turned is not None
    assert json.loads(turned[0])["messages"] == [{"role": "user", "content": "hi"}]
    assert isinstance(turned[1], MessagesTranslation)
    assert COUNT.to_chat(exchange_of(body)) is None
