"""Counting what passed, where the provider's own usage never comes: never above the truth."""

import json

import pytest

from tollkeeper.seen import BYTES_PER_TOKEN, LARGE, count_events, count_text
from tollkeeper.testing import chunk, completion


@pytest.mark.parametrize(
    ("events", "count"),
    [
        (b"", 0),
        (chunk("a"), 1),
        (chunk("a") + chunk("b"), 2),
        ((chunk("a") + chunk("b")).replace(b"\n", b"\r\n"), 2),
        (b": ping\n\n" + chunk("a"), 1),
        (b": OPENROUTER PROCESSING\n\n", 0),
        (b"event: delta\ndata: {}\n\n", 1),
        (chunk("\ndata: not one"), 1),
    ],
)
def test_events_count_by_their_data_whatever_stands_beside_it(events: bytes, count: int) -> None:
    assert count_events(events) == count


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (completion("hello " * 10), 60),
        (completion("h\u00e9" * 6), 18),
        ({"output": [{"content": [{"type": "output_text", "text": "abcdef"}]}]}, 6),
        ({"content": [{"type": "text", "text": "abc"}, {"type": "text", "text": "def"}]}, 6),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{1234}"}}]}, 6),
        ({"messages": [{"role": "user", "content": "abcdef"}]}, 6),
        ({"image_url": {"url": "data:" + "x" * 1000}, "id": "x", "content": None, "text": 5}, 0),
        ([], 0),
    ],
)
def test_the_text_of_a_body_is_what_it_says_and_no_frame(value: object, size: int) -> None:
    assert count_text(json.dumps(value).encode()) == size // BYTES_PER_TOKEN


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 5000, b'{"text": 1e999}', b'"' + b"x" * LARGE + b'"']
)
def test_what_cannot_be_counted_is_nothing(body: bytes) -> None:
    assert count_text(body) == 0
