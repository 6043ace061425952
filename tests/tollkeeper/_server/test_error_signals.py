"""No sign is dead: without it, an error of `tests/golden/errors` would be told otherwise."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tollkeeper._server import error_signals, mapping
from tollkeeper._server.mapping import map_upstream_error
from tollkeeper.errors import UpstreamError

FOLDER = Path(__file__).parent.parent.parent / "golden" / "errors"
CASES: list[dict[str, Any]] = [
    case for path in sorted(FOLDER.glob("*.json")) for case in json.loads(path.read_text())
]


def failure(case: dict[str, Any]) -> UpstreamError:
    body = case["body"]
    is_text = isinstance(body, dict) and set(body) == {"text"}
    data = (body["text"] if is_text else json.dumps(body)).encode()
    headers = case["headers"]
    return UpstreamError("status", "no", status=case["status"], headers=headers, body=data)


def answers() -> list[tuple[int, str, dict[str, str]]]:
    told = [map_upstream_error(error) for error in FAILURES]
    return [(answer.status, answer.code, answer.headers) for answer in told]


FAILURES = [failure(case) for case in CASES]
TOLD = answers()
LISTS = ["CODES", "IN_REFUSALS", "AT_A_LIMIT", "IN_FAILURES", "STATUS_OF"]
TUPLES = ["MODEL_AT_404", "NOT_CONTEXT"]


def signs() -> Iterator[tuple[str, Any, str]]:
    for table in LISTS:
        for key, row in getattr(error_signals, table).items():
            yield from ((table, key, sign) for sign in row)
    for table in TUPLES:
        yield from ((table, None, sign) for sign in getattr(error_signals, table))


@pytest.mark.parametrize(("table", "key", "sign"), list(signs()))
def test_every_sign_decides_an_error_that_providers_send(
    monkeypatch: pytest.MonkeyPatch, table: str, key: Any, sign: str
) -> None:
    rows = getattr(error_signals, table)
    without = tuple(other for other in (rows if key is None else rows[key]) if other != sign)
    if key is None:
        monkeypatch.setattr(mapping, table, without)
    else:
        monkeypatch.setitem(rows, key, without)
    assert answers() != TOLD


@pytest.mark.parametrize("status", list(error_signals.KIND_OF))
def test_every_status_with_a_meaning_decides_an_error_that_providers_send(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.delitem(error_signals.KIND_OF, status)
    assert answers() != TOLD


def test_every_sign_is_in_lower_case_and_stands_once_in_its_table() -> None:
    places = list(signs())
    assert all(sign == sign.lower() for _, _, sign in places)
    found = [(table, sign) for table, _, sign in places]
    assert len(found) == len(set(found))
