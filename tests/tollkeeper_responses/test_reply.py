"""What a chat replies, read; and the pieces of responses, written."""

import base64
import json
from typing import Any

import pytest

from tollkeeper import UpstreamError
from tollkeeper_responses.models import Details, Usage
from tollkeeper_responses.reply import Carried, Frame, read_reply, status_of, write_usage

BLOCK = {"type": "thinking", "thinking": "wörds", "signature": "s"}


def test_what_is_carried_comes_out_as_it_went_in() -> None:
    carried = Carried(thinking_blocks=[BLOCK], calls={"a": {"google": {"thought_signature": "x"}}})
    assert Carried.unseal(carried.seal().decode()) == carried
    assert carried
    assert not Carried()


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b"[]",
        b'{"other": 1}',
        b'{"thinking_blocks": 5}',
        b'{"thinking_blocks": [5]}',
        b'{"calls": {}, "calls": {}}',
        b'{"calls": {"a": "\\ud800"}}',
        b"\xff",
        b'{"calls":' + b"[" * 100 + b"]" * 100 + b"}",
    ],
)
def test_what_others_sealed_is_told_apart(document: bytes) -> None:
    with pytest.raises(ValueError, match="not made here"):
        Carried.unseal(base64.b64encode(document).decode())


@pytest.mark.parametrize("text", ["gAAAAABopaque-_", "é", "a", "====", "e30=\n"])
def test_what_is_no_base64_is_not_ours(text: str) -> None:
    with pytest.raises(ValueError, match="not made here"):
        Carried.unseal(text)


def test_usage_counts_all_tokens_and_none_is_null() -> None:
    assert write_usage(None) == b"null"
    empty = json.loads(write_usage(Usage()))
    assert empty == {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }
    told = Usage(
        prompt_tokens=5,
        completion_tokens=4,
        prompt_tokens_details=Details(cached_tokens=3, cache_write_tokens=2),
        completion_tokens_details=Details(reasoning_tokens=1),
    )
    assert json.loads(write_usage(told)) == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 9,
    }


@pytest.mark.parametrize(
    ("finish", "status"),
    [("stop", b"completed"), ("length", b"incomplete"), ("content_filter", b"incomplete")],
)
def test_a_finish_reason_is_a_status(finish: str, status: bytes) -> None:
    assert status_of(finish) == status


def test_no_two_responses_and_no_two_items_have_an_id_in_common() -> None:
    frames = [Frame(1, "m", b'"x":1') for _ in range(50)]
    ids = {json.loads(frame.response([], None))["id"] for frame in frames}
    ids |= {frame.item_id("msg", index) for frame in frames for index in (0, 1)}
    assert len(ids) == 150


def test_a_frame_shows_what_was_last_said_of_the_model_and_the_usage() -> None:
    frame = Frame(1, "alias", b'"x":1')
    frame.note(read_reply(b'{"model": "", "usage": null}'))
    assert json.loads(frame.response([], None))["model"] == "alias"
    frame.note(
        read_reply(b'{"model": "up", "usage": {"prompt_tokens": 1}, "service_tier": "flex"}')
    )
    frame.note(read_reply(b'{"model": "up"}'))
    response = json.loads(frame.response([b'{"y":2}'], "stop"))
    assert (response["model"], response["service_tier"]) == ("up", "flex")
    assert response["usage"]["total_tokens"] == 1
    assert response["output"] == [{"y": 2}]
    assert response["x"] == 1


@pytest.mark.parametrize("error", [None, {"code": 429}, "boom", 5])
def test_an_error_is_raised_and_a_null_is_none(error: Any) -> None:
    data = json.dumps({"choices": [], "error": error}).encode()
    if error is None:
        assert read_reply(data).choices == []
        return
    with pytest.raises(UpstreamError) as caught:
        read_reply(data)
    assert caught.value.body == data
