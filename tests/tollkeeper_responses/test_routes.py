"""The dialect of the operations: what is read and changed of native bodies and streams."""

import json
from typing import Any

import pytest
from openai.types.responses import ResponseErrorEvent
from openai.types.responses.response_item_list import ResponseItemList

from tollkeeper import Asked, Exchange, Failed, Refused
from tollkeeper.testing import JumpClock
from tollkeeper_responses.models import Kept
from tollkeeper_responses.routes import (
    DELETE,
    RETRIEVE,
    ResponsesReader,
    create_operation,
    deleted,
    input_page,
    response_in,
)
from tollkeeper_responses.stream import ResponsesTranslation

CREATE = create_operation(JumpClock(), keeps=False)
DIALECT = CREATE.dialect
assert DIALECT is not None

USAGE = b'{"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}'
WHOLE = b'{"id": "resp_1", "object": "response", "error": null, "model": "up", "usage": %b}' % USAGE
FAILED = WHOLE.replace(b'"error": null', b'"error": {"code": "server_error", "message": "m"}')


def exchange_of(body: bytes) -> Exchange:
    return Exchange(CREATE, "", {}, "test", 0.0, body=body)


def peek(document: Any) -> Asked:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return DIALECT.peek(exchange_of(body))  # type: ignore[union-attr]


def test_the_operations_are_those_of_the_contract() -> None:
    assert [(o.method, o.path) for o in (CREATE, RETRIEVE, DELETE)] == [
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/{id}"),
        ("DELETE", "/v1/responses/{id}"),
    ]
    assert DIALECT is not None
    assert DIALECT.name == "responses"
    assert RETRIEVE.dialect is DELETE.dialect is None


def test_model_and_stream_are_read_and_usage_is_always_wanted() -> None:
    assert peek({"model": "m", "input": "hi"}) == Asked("m", False, True)
    assert peek({"model": "m", "input": [], "stream": True}) == Asked("m", True, True)


@pytest.mark.parametrize(
    "instead", [{"previous_response_id": "r"}, {"conversation": "c"}, {"prompt": {"id": "p"}}]
)
def test_an_input_may_lack_where_something_stands_in_for_it(instead: dict[str, Any]) -> None:
    assert peek({"model": "m", **instead}).model == "m"


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"input": "hi"}, "model"),
        ({"model": "", "input": "hi"}, "model"),
        ({"model": 5, "input": "hi"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": None}, "input"),
        ({"model": "m", "input": {}}, "input"),
        ({"model": "m", "input": "hi", "stream": "yes"}, "stream"),
        (b'{"model": "m", "input": "hi", "model": "n"}', "model"),
        (b'{"model": "m", "input": "hi", "inp\\u0075t": []}', "input"),
        (b'{"model": "m", "input": "hi", "store": false, "store": true}', "store"),
        (b'{"model": "m", "input": ' + b"[" * 99 + b"]" * 99 + b"}", None),
        (b"[]", None),
    ],
)
def test_what_no_upstream_could_take_is_refused(document: Any, param: str | None) -> None:
    with pytest.raises(Refused) as caught:
        peek(document)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_whole_response_is_renamed_and_its_usage_read() -> None:
    assert DIALECT is not None
    assert DIALECT.rename(WHOLE, b'"alias"') == WHOLE.replace(b'"up"', b'"alias"')
    usage = DIALECT.usage(
        b'{"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens":'
        b' 2}, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 1}}'
    )
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (9, 5)
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (4, 2, 1)


def test_a_response_that_failed_is_a_response() -> None:
    assert DIALECT is not None
    assert DIALECT.error_in(WHOLE) is None
    assert DIALECT.error_in(FAILED) is None
    event = b'{"type": "response.failed", "response": %b}' % FAILED
    assert DIALECT.error_in(event) is None


def test_an_error_is_one_in_an_envelope_and_flat_in_an_event() -> None:
    assert DIALECT is not None
    envelope = b'{"error": {"message": "m"}}'
    assert DIALECT.error_in(envelope) == envelope
    flat = {"type": "error", "code": "c", "message": "m", "param": None, "sequence_number": 4}
    found = DIALECT.error_in(json.dumps(flat).encode())
    assert found is not None
    told = {"message": "m", "type": "c", "param": None, "code": "c"}
    assert json.loads(found) == {"error": told}
    assert DIALECT.error_in(b'{"type": "error", "code": 5}') is not None
    nested = b'{"type": "error", "error": {"message": "m"}}'
    assert DIALECT.error_in(nested) == nested


def test_text_that_speaks_of_errors_is_none() -> None:
    assert DIALECT is not None
    for delta in ("error", '"error"', '{"type": "error"}'):
        event = {"type": "response.output_text.delta", "delta": delta}
        assert DIALECT.error_in(json.dumps(event).encode()) is None


def test_an_event_stands_under_the_name_of_its_type() -> None:
    assert DIALECT is not None
    data = b'{"type": "response.created", "x": 1}'
    assert DIALECT.encode_event(data) == b"event: response.created\ndata: " + data + b"\n\n"
    for odd in (b'{"x": 1}', b'{"type": "a\\nb"}', b'{"type": 5}', b"[DONE]"):
        assert DIALECT.encode_event(odd) == b"data: " + odd + b"\n\n"


def test_an_error_ends_a_stream_as_one_event_flat_and_nested() -> None:
    assert DIALECT is not None
    event = DIALECT.error_event(Failed(502, "server_error", 'It "broke".'))
    head, data, *rest = event.decode().split("\n")
    assert (head, rest) == ("event: error", ["", ""])
    ResponseErrorEvent.model_validate_json(data.removeprefix("data: "), strict=True)
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "code": "server_error",
        "message": 'It "broke".',
        "param": None,
        "sequence_number": 0,
        "error": {
            "type": "server_error",
            "code": "server_error",
            "message": 'It "broke".',
            "param": None,
        },
    }


def test_an_error_before_a_stream_is_in_openais_envelope() -> None:
    assert DIALECT is not None
    error = Refused(404, "not_found", "No.")
    assert DIALECT.error_body(error) == error.body()


def test_a_request_is_turned_into_a_chat_made_now() -> None:
    assert DIALECT is not None
    body = b'{"model": "alias", "input": "hi", "stream": true}'
    exchange = exchange_of(body)
    exchange.model = "alias"
    turned = DIALECT.to_chat(exchange)
    assert turned is not None
    chat, translation = turned
    assert json.loads(chat)["messages"] == [{"role": "user", "content": "hi"}]
    assert isinstance(translation, ResponsesTranslation)
    made = b'{"choices": [{"message": {"content": "x"}}]}'
    response = json.loads(translation.body(made))
    assert (response["created_at"], response["model"]) == (int(JumpClock().time()), "alias")


DELTA = b'{"type":"response.output_text.delta","delta":"\\"response\\" \\"error\\"","logprobs":[]}'


def event(kind: str, response: bytes = WHOLE) -> bytes:
    return b'{"type":"%b","response":%b,"sequence_number":1}' % (kind.encode(), response)


def test_text_goes_by_unseen_up_to_the_first_event_that_holds_a_response() -> None:
    reader = ResponsesReader(b'"alias"')
    quiet = b"event: response.output_text.delta\ndata: " + DELTA + b"\n\n"
    last = b"event: response.completed\ndata: " + event("response.completed") + b"\n\n"
    assert reader.skim(quiet * 3) == len(quiet) * 3
    assert reader.skim(quiet * 3 + last) == len(quiet) * 3


@pytest.mark.parametrize("kind", ["response.created", "response.in_progress", "response.queued"])
def test_the_model_is_renamed_inside_the_response_alone(kind: str) -> None:
    reader = ResponsesReader(b'"alias"')
    data = event(kind)
    assert reader.event(data) == data.replace(b'"up"', b'"alias"')
    assert not reader.ended
    assert reader.usage == b""
    assert ResponsesReader().event(data) is data
    assert reader.event(DELTA) is DELTA
    other = b'{"type":"response.x","model":"up","response":{"id":"r"}}'
    assert reader.event(other) is other


@pytest.mark.parametrize("kind", ["response.completed", "response.failed", "response.incomplete"])
def test_a_stream_ends_with_its_last_response_which_tells_the_usage(kind: str) -> None:
    reader = ResponsesReader()
    assert not reader.whole
    data = event(kind)
    assert reader.event(data) is data
    assert reader.ended
    assert reader.usage == USAGE
    bare = ResponsesReader()
    bare.event(event(kind, b'{"usage": null}'))
    assert (bare.ended, bare.usage) == (True, b"")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"object":"response","id":"r"}', b'{"object":"response","id":"r"}'),
        (b'{"type":"response.completed","response":{"id":"r"}}', b'{"id":"r"}'),
        (b'{"type":"x","delta":"\\"response\\""}', None),
        (b'{"delta":"response"}', None),
        (b'{"response":"x"}', None),
        (b'{"object":"list"}', None),
        (b"", None),
    ],
)
def test_a_response_is_found_alone_and_inside_an_event(data: bytes, found: bytes | None) -> None:
    span = response_in(data)
    assert (None if span is None else data[span[0] : span[1]]) == found


def kept(items: list[Any]) -> Kept:
    return Kept("default", "resp_1", None, json.dumps(items), "{}", 1)


def test_a_deleted_response_is_told_of() -> None:
    assert json.loads(deleted("resp_1").body) == {
        "id": "resp_1",
        "object": "response",
        "deleted": True,
    }


def test_what_a_response_answers_is_one_page_the_newest_first() -> None:
    answer = input_page(
        kept(
            [
                {"role": "user", "content": "hi"},
                {"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]},
                {"role": "assistant", "content": "ho"},
                {"role": "assistant", "content": [{"type": "output_text", "text": "ho"}]},
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "4"},
                {"type": "message", "id": "msg_own", "role": "user", "content": "hi"},
            ]
        )
    )
    ResponseItemList.model_validate_json(answer.body, strict=True)
    page = json.loads(answer.body)
    assert (page["object"], page["has_more"]) == ("list", False)
    ids = [item["id"] for item in page["data"]]
    assert (ids[0], ids[-1]) == (page["first_id"], page["last_id"]) == ("msg_own", "msg_1_0")
    assert len(set(ids)) == 8
    assert page["data"][-1]["content"] == [{"type": "input_text", "text": "hi"}]
    assert page["data"][3] == {"id": "rs_1_4", "type": "reasoning", "summary": []}


def test_a_page_may_be_empty() -> None:
    page = json.loads(input_page(kept([])).body)
    assert (page["data"], page["first_id"], page["last_id"]) == ([], "", "")
