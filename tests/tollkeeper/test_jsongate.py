"""The strict gate: what one parser takes and the next one chokes on is refused here."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import Refused
from tollkeeper.jsongate import MAX_DEPTH, Once, check_shape, decode_request, read_object

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), values))
def test_an_honest_object_is_read_as_it_is(document: dict[str, object]) -> None:
    assert read_object(json.dumps(document).encode()) == document
    assert read_object(json.dumps(document, ensure_ascii=False).encode()) == document


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b"null",
        b'{"a": 1',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 9223372036854775808}',
        b'{"a": -9223372036854775809}',
        b'{"a": %b}' % (b"9" * 5000),
        b'{"a": "\\ud800"}',
        b'{"a": "\\uDFFF x"}',
        b'{"\\udead": 1}',
        b'{"a": "\xff"}',
        b'{"a": 1, "a": 1}',
        b'{"b": {"a": 1, "\\u0061": 2}}',
        b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_parsers_disagree_on_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read_object(body)
    assert caught.value.status == 400


def test_the_limits_themselves_pass() -> None:
    deep: object = 1
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    body = {"deep": deep, "int": [2**63 - 1, -(2**63)], "pair": "\U0001f600", "text": "\\ud800"}
    assert read_object(json.dumps(body).encode()) == body


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_depth_is_counted_outside_strings(depth: int) -> None:
    strings = b'"' + b"[{" * 500 + b'\\"' + b"[" * 500 + b'"'
    body = b"[" * depth + strings + b"]" * depth
    if depth > MAX_DEPTH:
        with pytest.raises(Refused, match="deep"):
            check_shape(body)
    else:
        check_shape(body)


def test_text_that_is_no_utf8_is_refused_without_parsing() -> None:
    with pytest.raises(Refused, match="UTF-8"):
        check_shape(b'{"a": "\xc3"}')
    check_shape('{"a": "\u00e4"}'.encode())


class Wanted(msgspec.Struct):
    model: str | None = None
    options: dict[str, int] | None = None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model": 3}', "model"),
        (b'{"options": {"a": "x"}}', "options[...]"),
        (b"[]", None),
        (b"{", None),
        (b'{"model": "\xff"}', None),
        (b'{"x": ' + b"[" * 100_000, None),
    ],
)
def test_a_field_of_a_wrong_type_is_named(body: bytes, param: str | None) -> None:
    with pytest.raises(Refused) as caught:
        decode_request(body, msgspec.json.Decoder(Wanted))
    assert caught.value.param == param


@pytest.mark.parametrize("twin", [b'"model": 2', b'"model"  \n: 2', b'"mod\\u0065l": 2'])
def test_a_key_that_stands_twice_is_refused_however_it_is_written(twin: bytes) -> None:
    with pytest.raises(Refused) as caught:
        Once("model").check(b'{"model": 1, %b}' % twin)
    assert caught.value.param == "model"
    Once("model").check(b'{"model": {"model": 1}}')


def test_a_body_of_many_keys_of_which_one_stands_twice_is_refused_in_no_time() -> None:
    keys = ",".join(f'"k{number}":1' for number in range(200_000))
    with pytest.raises(Refused, match="twice"):
        read_object(b'{%b,"k5":2}' % keys.encode())
