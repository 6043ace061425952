"""Spans against a real parser: the same values in the same places, all other bytes left alone."""

import json
import tracemalloc
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.jsonspan import find_value, is_json, members, quote, replace_value

BLANKS = ("", "", "", " ", "\n", "\t \r\n")
TRAPS = ('"model": 1', "}", "]", "{[", "\\", '\\"', ",", ":", "é\u2028", "\x00", "")

texts = st.text(max_size=8) | st.sampled_from(TRAPS)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def write(value: object, random: Random) -> str:
    """`value` as JSON, with blanks and escapes as chance wants them."""
    if isinstance(value, dict):
        items = [f"{write(k, random)}:{write(v, random)}" for k, v in value.items()]
        text = "{" + ",".join(items) + random.choice(BLANKS) + "}"
    elif isinstance(value, list):
        text = f"[{','.join(write(item, random) for item in value)}{random.choice(BLANKS)}]"
    else:
        text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    return random.choice(BLANKS) + text + random.choice(BLANKS)


@st.composite
def objects(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    document = draw(st.dictionaries(texts, values, max_size=5))
    return document, write(document, draw(st.randoms(use_true_random=False))).encode()


@settings(deadline=None)
@given(objects())
def test_members_are_those_that_a_parser_finds(
    given_object: tuple[dict[str, Any], bytes],
) -> None:
    document, data = given_object
    found = [(key, data[start:end]) for key, start, end in members(data)]
    parsed = [(json.loads(b'"' + key + b'"'), json.loads(value)) for key, value in found]
    assert parsed == list(document.items())
    assert all(value == value.strip() for _, value in found)


@settings(deadline=None)
@given(objects(), values)
def test_only_the_bytes_of_a_replaced_value_change(
    given_object: tuple[dict[str, Any], bytes], new: object
) -> None:
    document, data = given_object
    for key, start, end in members(data):
        assert find_value(data, key) == (start, end)
        value = json.dumps(new).encode()
        changed = replace_value(data, key, value)
        assert changed == data[:start] + value + data[end:]
        assert json.loads(changed) == {**document, json.loads(b'"' + key + b'"'): new}


@settings(deadline=None)
@given(objects(), values)
def test_a_key_that_was_missing_is_added_behind_all_others(
    given_object: tuple[dict[str, Any], bytes], new: object
) -> None:
    document, data = given_object
    assert find_value(data, b"added") is None
    changed = replace_value(data, b"added", json.dumps(new).encode())
    assert list(json.loads(changed).items()) == [*document.items(), ("added", new)]
    assert changed.startswith(data[: data.rindex(b"}")].rstrip())


@pytest.mark.parametrize(
    "data", [b'{"a": {"model": 1}}', b'{"a": [{"model": 1}]}', b'{"a": "\\"model\\": 1"}', b"{}"]
)
def test_a_key_inside_a_value_is_not_a_member(data: bytes) -> None:
    assert find_value(data, b"model") is None


def test_a_key_that_stands_twice_is_replaced_twice_so_that_every_reader_finds_the_same() -> None:
    data = b'{"a": 1, "b": {"a": 2}, "a" : 3 }'
    assert replace_value(data, b"a", b"4") == b'{"a": 4, "b": {"a": 2}, "a" : 4 }'


@pytest.mark.parametrize("unit", ["a", "\\n", "abcd\\n"])
def test_a_long_string_takes_no_memory_to_walk_over(unit: str) -> None:
    text = (unit * 2**18).encode()
    data = b'{"%b": 1, "nested": ["%b"], "plain": "%b", "model": 5}' % (text, text, text)
    tracemalloc.start()
    try:
        span = find_value(data, b"model")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert span == (len(data) - 2, len(data) - 1)
    assert peak < 2 * len(data)


@settings(deadline=None)
@given(st.text())
def test_a_quoted_text_is_that_text_as_json(text: str) -> None:
    assert json.loads(quote(text)) == text


@settings(deadline=None)
@given(values, st.integers(0, 3))
def test_a_value_that_was_cut_is_no_json(value: object, cut: int) -> None:
    text = json.dumps([value])
    assert is_json(text.encode())
    assert not is_json(text[: -1 - cut].encode() if cut else text.encode() + b"]")


@pytest.mark.parametrize("data", [b"", b" ", b"[" * 100_000, b"\xff", b"{'a': 1}", b"a"])
def test_what_no_parser_takes_is_no_json(data: bytes) -> None:
    assert not is_json(data)
