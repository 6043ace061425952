"""What Gemini sends, read: errors and blocked prompts are raised wherever they stand."""

import json
from typing import Any

import pytest

from tollkeeper import UpstreamError
from tollkeeper_gemini.models import read_response

BAD_KEY = {
    "code": 400,
    "message": "API key not valid. Please pass a valid API key.",
    "status": "INVALID_ARGUMENT",
    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
}

NO_MESSAGE = "Gemini reported an error."


def error_of(document: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read_response(json.dumps(document).encode())
    return caught.value


def told(error: UpstreamError) -> Any:
    return json.loads(error.body)["error"]


@pytest.mark.parametrize("wrap", [lambda e: {"error": e}, lambda e: [{"error": e}]])
@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        ({"code": 429, "message": "slow", "status": "R"}, 429, "R", "slow"),
        ({"code": 503, "message": "busy", "status": "U"}, 503, "U", "busy"),
        ({"code": "503", "message": "busy"}, 502, "server_error", "busy"),
        ({"code": 200, "message": "odd"}, 502, "server_error", "odd"),
        ({}, 502, "server_error", NO_MESSAGE),
        ({"details": 5, "status": [], "message": None}, 502, "server_error", NO_MESSAGE),
        ({"details": [5]}, 502, "server_error", NO_MESSAGE),
        ("boom", 502, "server_error", "boom"),
        (BAD_KEY, 401, "INVALID_ARGUMENT", BAD_KEY["message"]),
    ],
)
def test_an_error_is_raised_with_its_status_alone_or_in_an_array(
    wrap: Any, error: Any, status: int, code: str, message: str
) -> None:
    raised = error_of(wrap(error))
    assert (raised.fault, raised.status) == ("status", status)
    assert told(raised) == {"message": message, "type": code, "param": None, "code": code}


@pytest.mark.parametrize(
    "reason",
    [
        "SAFETY",
        "OTHER",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "IMAGE_SAFETY",
        "MODEL_ARMOR",
        "JAILBREAK",
    ],
)
def test_a_blocked_prompt_is_a_400_that_names_the_reason(reason: str) -> None:
    feedback = {"blockReason": reason, "blockReasonMessage": "Not this."}
    raised = error_of({"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 4}})
    assert (raised.fault, raised.status) == ("status", 400)
    assert told(raised)["code"] == "content_filter"
    assert told(raised)["message"] == f"Gemini blocked the prompt: {reason}. Not this."


def test_feedback_beside_an_answer_or_without_a_reason_blocks_nothing() -> None:
    answer = {"candidates": [{"index": 0}], "promptFeedback": {"blockReason": "OTHER"}}
    assert read_response(json.dumps(answer).encode()).candidates
    assert not read_response(b'{"promptFeedback": {"safetyRatings": []}}').candidates
    assert read_response(b'{"error": null}').error is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"[1]",
        b"<html>",
        b'{"candidates": 1}',
        b'{"candidates": [{"index": "0"}]}',
        b'[{"candidates": []}]',
        b'{"responseId": "\xff"}',
        pytest.param(b'{"x": ' + b"[" * 100_000, id="deep"),
    ],
)
def test_nonsense_is_a_broken_reply(data: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        read_response(data)
    assert caught.value.fault == "broken"
