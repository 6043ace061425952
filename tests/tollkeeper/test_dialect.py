"""What every dialect has unless it says otherwise."""

import json

import pytest

from tollkeeper.dialect import Dialect, StreamReader, checked_usage, read_usage
from tollkeeper.errors import Refused
from tollkeeper.exchange import Exchange, Operation, Usage

DIALECT = Dialect()


def exchange(body: bytes) -> Exchange:
    return Exchange(
        Operation("x", "POST", "/v1/x", dialect=DIALECT), "", {}, "test", 0.0, body=body
    )


def test_model_and_stream_are_read_and_nothing_else() -> None:
    assert DIALECT.peek(exchange(b'{"model": "m", "x": [1]}')) == ("m", False, True, None, 1)
    assert DIALECT.peek(exchange(b'{"stream": true, "model": "m"}')) == ("m", True, True, None, 1)


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"model": ""}', b'{"model": 1}', b'{"model": "a", "model": "b"}', b"[", b"\xff"],
)
def test_a_body_without_one_model_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        DIALECT.peek(exchange(body))


@pytest.mark.parametrize(
    ("data", "usage"),
    [
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0)),
        ({"input_tokens": 3, "output_tokens": 4}, Usage(3, 4)),
        (
            {
                "input_tokens": 9,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
                "output_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(9, 4, 2, 1, 3),
        ),
        ({}, None),
        ({"input_tokens": -1}, None),
        ({"input_tokens": 10**13}, None),
        ({"input_tokens": 1.5}, None),
        ([], None),
    ],
)
def test_usage_is_read_under_its_older_and_its_newer_names(
    data: object, usage: Usage | None
) -> None:
    assert read_usage(json.dumps(data).encode()) == usage


def test_a_usage_that_counts_nothing_honest_is_none() -> None:
    assert checked_usage(1, 2) == Usage(1, 2)
    assert checked_usage(None, 2) is None
    assert checked_usage(1, -2) is None


def test_a_reader_is_shown_what_is_noteworthy_from_the_start_of_its_event() -> None:
    reader = StreamReader()
    events = b'data: {"a": 1}\n\ndata: {"error": 1}\n\n'
    assert reader.skim(events) == len(b'data: {"a": 1}\n\n')
    assert reader.skim(events[:16]) == 16
    assert reader.skim(b'data: {"a": 1}\r\n\r\ndata: {"error": 1}\r\n\r\n') == 0
    assert reader.event(b"x") == b"x"
    assert reader.whole


def test_a_whole_reply_is_renamed_only_where_it_has_a_model() -> None:
    assert DIALECT.rename(b'{"model":"a"}', b'"b"') == b'{"model":"b"}'
    assert DIALECT.rename(b'{"data":[]}', b'"b"') == b'{"data":[]}'
