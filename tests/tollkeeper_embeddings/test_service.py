"""Base64 as SDKs decode it: little-endian 32-bit floats, and nothing else touched."""

import base64
import json
import struct

import pytest

from tollkeeper_embeddings.service import as_base64, wants_base64


def decoded(text: str) -> list[float]:
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


@pytest.mark.parametrize(
    ("body", "wants"),
    [
        ({"encoding_format": "base64"}, True),
        ({"encoding_format": "float"}, False),
        ({"encoding_format": None}, False),
        ({"input": '"encoding_format":"base64"'}, False),
        ({"input": {"encoding_format": "base64"}}, False),
        ({}, False),
    ],
)
def test_base64_is_wanted_where_the_request_says_so(body: object, wants: bool) -> None:
    assert wants_base64(json.dumps(body).encode()) is wants


def test_every_vector_becomes_base64_and_no_other_byte_changes() -> None:
    reply = b'{ "data":[{"embedding" :\n[1, -0.5,2e-3 ],"index":0},{"embedding":[]}], "x":[1,2] }'
    changed = as_base64(reply)
    first, second = (item["embedding"] for item in json.loads(changed)["data"])
    assert decoded(first) == pytest.approx([1, -0.5, 0.002])
    assert decoded(second) == []
    before, after = f'"{first}"'.encode(), b"[1, -0.5,2e-3 ]"
    assert changed.replace(before, after).replace(b'"embedding":""', b'"embedding":[]') == reply


@pytest.mark.parametrize(
    "reply",
    [
        {"embedding": "AACAPw=="},
        {"embedding": [[1, 2], [3]]},
        {"embedding": [[1, 2]]},
        {"embedding": [1, None]},
        {"embedding": [1, "2"]},
        {"embedding": [{"a": 1}]},
        {"embedding": [1e39]},
        {"embedding": [10**400]},
        {"embedding": None},
        {"note": '"embedding": [1]'},
        {'an "embedding': [1]},
        {"embeddings": [1]},
    ],
)
def test_what_is_no_vector_of_such_floats_stays_as_it_is(reply: object) -> None:
    body = json.dumps(reply).encode()
    assert as_base64(body) == body


def test_a_number_of_no_size_stays_as_it_is() -> None:
    assert as_base64(b'{"embedding":[1e400]}') == b'{"embedding":[1e400]}'
