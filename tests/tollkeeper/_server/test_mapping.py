"""The table of the issue: what clients are told of each thing that goes wrong upstream."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper._server.mapping import MAX_MESSAGE, map_upstream_error, read_error
from tollkeeper.errors import ApiError, Failed, Refused, UpstreamError

SECRET = "sk-live-hunter2"
GOLDEN = Path(__file__).parent.parent.parent / "golden" / "errors"
"""What providers send, and what becomes of it; `source` says where a body is from."""


def mapped(
    status: int, error: object = None, *, headers: dict[str, str] | None = None, secret: str = ""
) -> ApiError:
    """The answer to an upstream's error with this status and `error` object."""
    body = b"" if error is None else json.dumps({"error": error}).encode()
    return mapped_body(status, body, headers=headers, secret=secret)


def mapped_body(
    status: int, body: bytes, *, headers: dict[str, str] | None = None, secret: str = ""
) -> ApiError:
    failure = UpstreamError("status", "no", status=status, headers=headers, body=body)
    answer = map_upstream_error(failure, secret)
    assert isinstance(answer, Refused if answer.status < 500 else Failed)
    return answer


def said(
    message: str, code: object = None, kind: str = "invalid_request_error"
) -> dict[str, object]:
    return {"message": message, "type": kind, "param": None, "code": code}


# What the upstream sends: status, error; then what the client gets: status, code.
TABLE = [
    (408, said("slow"), 504, "timeout"),
    (504, said("slow"), 504, "timeout"),
    (401, said("Incorrect API key provided", "invalid_api_key"), 502, "server_error"),
    (402, said("Insufficient Balance"), 502, "server_error"),
    (403, said("Your account is not active"), 502, "server_error"),
    (500, said("oops", kind="server_error"), 502, "server_error"),
    (502, None, 502, "server_error"),
    (503, said("no"), 502, "server_error"),
    (503, said("busy", "server_is_overloaded"), 503, "server_error"),
    (529, said("Overloaded", kind="overloaded_error"), 503, "server_error"),
    (500, said("this model's maximum context length is 8"), 502, "server_error"),
    (429, said("Rate limit reached", "rate_limit_exceeded", "requests"), 429, "rate_limit"),
    (429, said("You exceeded your current quota", "insufficient_quota"), 429, "rate_limit"),
    (429, said("Request too large for model `m`"), 400, "context_length_exceeded"),
    (429, None, 429, "rate_limit"),
    (404, said("The model `x` does not exist", "model_not_found"), 404, "model_not_found"),
    (404, said("no deployment", "DeploymentNotFound"), 404, "model_not_found"),
    (404, said("no such path"), 404, "not_found"),
    (409, said("try again"), 409, "conflict"),
    (413, said("too big"), 413, "request_too_large"),
    (400, said("temperature is above 2"), 400, "invalid_request"),
    (422, said("field required"), 422, "invalid_request"),
    (418, said("teapot"), 418, "invalid_request"),
]


@pytest.mark.parametrize(("status", "error", "answer_status", "code"), TABLE)
def test_the_table_of_upstream_errors(
    status: int, error: object, answer_status: int, code: str
) -> None:
    answer = mapped(status, error)
    assert (answer.status, answer.code) == (answer_status, code)


def golden() -> list[Any]:
    return [
        pytest.param(case, id=f"{path.stem}: {case['name']}")
        for path in sorted(GOLDEN.glob("*.json"))
        for case in json.loads(path.read_text())
    ]


def mapped_case(case: dict[str, Any]) -> ApiError:
    body = case["body"]
    is_text = isinstance(body, dict) and set(body) == {"text"}
    data = (body["text"] if is_text else json.dumps(body)).encode()
    return mapped_body(case["status"], data, headers=case["headers"])


def spoken(value: object) -> Iterator[str]:
    """Every text in a body, also in JSON inside a text, and every part of it as one."""
    yield str(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from spoken(part)
    if isinstance(value, str) and value.startswith("{"):
        yield from spoken(json.loads(value))


OUR_WORDS = re.compile(
    r"The provider (failed with status \d{3}(: a matter for the gateway's operator)?|timed out"
    r"|is overloaded)\.|The provider's limit for this gateway is used up\."
)


@pytest.mark.parametrize("case", golden())
def test_each_error_of_each_provider_is_told_as_it_should(case: dict[str, Any]) -> None:
    answer, expected = mapped_case(case), case["expect"]
    assert (answer.status, answer.code) == (expected["status"], expected["code"])
    assert answer.type == expected.get("type", expected["code"])
    assert answer.param == expected.get("param")
    assert answer.headers == expected.get("headers", {})
    assert expected.get("message_contains", "") in answer.message
    assert case["source"].startswith(("documented: ", "constructed: "))


@pytest.mark.parametrize("case", golden())
def test_the_providers_words_are_kept_where_the_client_can_act_on_them_and_nowhere_else(
    case: dict[str, Any],
) -> None:
    answer = mapped_case(case)
    is_ours = isinstance(answer, Failed) or answer.headers.get("x-should-retry") == "false"
    if is_ours:
        assert OUR_WORDS.fullmatch(answer.message)
        assert answer.param is None
    elif not OUR_WORDS.fullmatch(answer.message):
        assert answer.message in spoken(case["body"]) or "text" in case["body"]


QUOTATIONS = [
    "the value '{}' is unknown",
    'the value "{}" is unknown',
    "the value `{}` is unknown",
    "the value \u201c{}\u201d is unknown",
    "the value b'{}' is unknown",
    "the value is cut: '{}",
    "[{{'msg': 'Field required', 'input': {{'content': '{}'}}}}]",
    'the body was {{\\"content\\": \\"{}\\"}}',
]
PHRASES = [
    "say: prompt is too long: 5 tokens > 3",
    "our safety system, and 429 rate limits",
    "quota exceeded for you, please wait before trying again",
    "credit balance is too low, API key not valid",
    "model not exist, x is not a valid model id",
]


@pytest.mark.parametrize("quotation", QUOTATIONS)
@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize("status", [400, 422])
def test_what_an_error_quotes_is_no_sign(status: int, phrase: str, quotation: str) -> None:
    message = quotation.format(phrase)
    answer = mapped(status, said(message))
    assert (answer.status, answer.code) == (status, "invalid_request")
    assert answer.message == message


@pytest.mark.parametrize(
    "message",
    [
        "the users' prompt is too long: 5",
        "it's said that 'x' and `y` mean: prompt is too long: 5 tokens > 3",
        'the value "x" is good, but the prompt is too long: 5 tokens > 3 ("z")',
    ],
)
def test_an_apostrophe_or_a_quoted_name_hides_no_sign(message: str) -> None:
    assert mapped(400, said(message)).code == "context_length_exceeded"


@pytest.mark.parametrize("status", [400, 404, 409, 413, 418, 422, 429])
def test_what_the_caller_can_act_on_keeps_its_message(status: int) -> None:
    assert mapped(status, said("do this instead")).message == "do this instead"


@pytest.mark.parametrize("status", [401, 402, 403, 408, 500, 503, 504])
def test_what_only_the_operator_can_act_on_does_not(status: int) -> None:
    answer = mapped(status, said("our account at Acme is empty"))
    assert "Acme" not in answer.message
    assert answer.message


def test_the_field_at_fault_is_kept() -> None:
    assert mapped(400, {**said("too high"), "param": "temperature"}).param == "temperature"
    assert mapped(400, {**said("too high"), "param": ["n"]}).param is None


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "thread_unsupported_request"),
        (404, "thread_not_found"),
        (409, "thread_already_continued"),
        (409, "thread_continue_in_flight"),
        (429, "x" * 64),
    ],
)
def test_the_finer_code_that_sdks_recover_by_is_kept(status: int, code: str) -> None:
    assert mapped(status, {**said("no"), "details": {"error_code": code}}).detail_code == code


@pytest.mark.parametrize("status", [401, 403, 500, 529])
def test_the_finer_code_of_what_only_the_operator_can_act_on_is_not(status: int) -> None:
    assert mapped(status, {**said("no"), "details": {"error_code": "a_code"}}).detail_code is None


@pytest.mark.parametrize(
    "details",
    [None, "x", ["x"], *({"error_code": c} for c in (None, 5, "", "A", "a b", "a\n", "x" * 65))],
)
def test_a_finer_code_that_is_none_is_left_out(details: object) -> None:
    assert mapped(400, {**said("no"), "details": details}).detail_code is None


CONTEXT = [
    said("too long", "context_length_exceeded"),
    said("too long", 400, "exceed_context_size_error"),
    *map(
        said,
        [
            "This model's maximum context length is 8192 tokens. However, you requested 9000.",
            "prompt and max_tokens exceed context limit: 3 + 4 > 5",
            "the prompt is longer than the model's context length",
            "Input tokens exceed the configured limit of 272000 tokens",
            "over the model's maximum context limit",
            "The requested token count exceeds the model's maximum context length",
            "`inputs` tokens + `max_new_tokens` must be <= 4096",
            "the request exceeds the available context size",
            "The input token count exceeds the maximum number of tokens allowed (32)",
            "Current length is 9000 while limit is 8192",
            "maximum input length is 512 tokens",
            "input too long: 9 input tokens, limit is 8",
            "prompt is too long: 210000 tokens > 200000 maximum",
            "Input is too long for requested model",
            "Request too large for model `m` in organization `o`",
        ],
    ),
]


@pytest.mark.parametrize("error", CONTEXT, ids=lambda error: error["message"][:40])
@pytest.mark.parametrize("status", [400, 413])
def test_an_input_that_is_too_long_is_a_400_with_the_providers_words(
    status: int, error: dict[str, object]
) -> None:
    answer = mapped(status, error)
    assert (answer.status, answer.code) == (400, "context_length_exceeded")
    assert answer.message == error["message"]


@pytest.mark.parametrize(
    "error",
    [
        said("string too long", "string_above_max_length"),
        said("Invalid 'user': string too long. This model's maximum context limit", None),
        said("this model's maximum context limit", "string_above_max_length"),
        said("n is longer than 128"),
        said("the answer was cut: finish_reason length"),
    ],
)
def test_something_else_that_is_too_long_is_an_invalid_request(error: dict[str, object]) -> None:
    assert mapped(400, error).code == "invalid_request"


FILTER = [
    said("filtered", "content_filter"),
    said("filtered", "content_policy_violation"),
    said("filtered", "cyber_policy"),
    {**said("filtered"), "innererror": {"code": "ResponsibleAIPolicyViolation"}},
    said("Invalid prompt: we flagged it as potentially violating our usage policy."),
    said("Your request was rejected as a result of the safety system."),
    said("Your request was rejected by our safety system."),
    said("Output blocked by content filtering policy"),
]


@pytest.mark.parametrize("error", FILTER, ids=lambda error: str(error)[-50:-30])
def test_what_a_filter_refused_is_a_400_with_the_providers_words(
    error: dict[str, object],
) -> None:
    answer = mapped(400, error)
    assert (answer.status, answer.code) == (400, "content_filter")
    assert answer.message == error["message"]


def test_a_signal_beats_the_status_it_came_with_but_not_one_that_is_the_operators() -> None:
    signal = said("too long", "context_length_exceeded")
    assert mapped(404, signal).code == "context_length_exceeded"
    assert mapped(200, signal).code == "context_length_exceeded"
    assert mapped(403, signal).code == "server_error"


def test_an_error_in_a_200_that_says_no_more_is_a_failure() -> None:
    answer = mapped(200, said("boom", kind="x"))
    assert (answer.status, answer.code) == (502, "server_error")


@pytest.mark.parametrize("after", ["7", "0", "6.2"])
def test_a_rate_limit_keeps_how_long_to_wait(after: str) -> None:
    answer = mapped(429, said("slow down"), headers={"retry-after": after})
    assert answer.headers == {"retry-after": {"7": "7", "0": "0", "6.2": "7"}[after]}


def test_a_rate_limit_that_says_nothing_of_a_wait_has_none() -> None:
    assert mapped(429, said("slow down")).headers == {}
    assert mapped(429, said("slow down"), headers={"retry-after": "soon"}).headers == {}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"retry-after-ms": "6500"}, {"retry-after-ms": "6500"}),
        ({"retry-after-ms": "0.5"}, {"retry-after-ms": "1"}),
        ({"retry-after-ms": "600000"}, {"retry-after-ms": "600000"}),
        ({"retry-after-ms": "600001"}, {}),
        ({"retry-after-ms": "-1"}, {}),
        ({"retry-after-ms": "nan"}, {}),
        ({"retry-after-ms": "\u0663"}, {}),
        ({"retry-after": "7", "retry-after-ms": "soon"}, {"retry-after": "7"}),
        ({"x-should-retry": "false"}, {"x-should-retry": "false"}),
        ({"x-should-retry": "true"}, {}),
    ],
)
@pytest.mark.parametrize("status", [409, 429, 500, 503, 529])
def test_what_sdks_retry_keeps_how_long_to_wait_and_that_it_is_in_vain(
    status: int, sent: dict[str, str], told: dict[str, str]
) -> None:
    assert mapped(status, said("slow down"), headers=sent).headers == told


@pytest.mark.parametrize(
    ("delay", "after"),
    [("11.6s", "12"), ("0s", "0"), ("600s", "600"), ("601s", None), ("soon", None), (7, None)],
)
def test_a_delay_that_google_tells_in_the_body_is_passed_on(
    delay: object, after: str | None
) -> None:
    error = {"message": "slow down", "details": [5, {"retryDelay": delay}]}
    assert mapped(429, error).headers.get("retry-after") == after
    assert mapped(429, error, headers={"retry-after": "3"}).headers["retry-after"] == "3"


@pytest.mark.parametrize(
    "error",
    [
        said("pay", "insufficient_quota", "insufficient_quota"),
        said("pay", None, "insufficient_quota"),
        said("pay", "credit_balance_exhausted"),
    ],
)
def test_an_empty_account_of_ours_is_not_worth_the_clients_retries(
    error: dict[str, object],
) -> None:
    assert mapped(429, error).headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", [401, 402, 403])
def test_no_retry_of_a_client_cures_what_only_the_operator_can(status: int) -> None:
    assert mapped(status, said("no")).headers == {"x-should-retry": "false"}


def test_what_no_sdk_retries_passes_no_headers_on() -> None:
    assert mapped(400, said("no"), headers={"retry-after": "7", "set-cookie": "a"}).headers == {}


@pytest.mark.parametrize("status", [400, 404, 429])
@pytest.mark.parametrize(
    "error",
    [
        said(f"bad key {SECRET}, again: {SECRET}"),
        f"bad key {SECRET}",
        {"message": {"text": f"bad key {SECRET}"}},
    ],
    ids=["object", "string", "message of another type"],
)
def test_our_credential_is_blotted_out_where_an_upstream_echoes_it(
    status: int, error: object
) -> None:
    answer = mapped(status, error, secret=SECRET)
    assert SECRET not in answer.message
    assert "bad key ***" in answer.message


@pytest.mark.parametrize(
    ("secret", "written"),
    [
        ("sk-a/b", b"sk-a\\/b"),
        ('sk-"a"', b'sk-\\"a\\"'),
        ("sk-\u00fc", b"sk-\\u00fc"),
        ("sk-\u00fc", "sk-\u00fc".encode()),
        ("sk-ab", b"sk-\\u0061b"),
    ],
)
def test_our_credential_is_blotted_out_however_json_writes_it(secret: str, written: bytes) -> None:
    body = b'{"error": {"message": "bad key %b", "param": "%b"}}' % (written, written)
    answer = mapped_body(400, body, secret=secret)
    assert answer.message == "bad key ***"
    assert answer.param in (None, "***")


def test_our_credential_is_blotted_out_of_signals_and_params_too() -> None:
    error = {**said(f"{SECRET}: prompt is too long: 3"), "param": SECRET}
    assert SECRET.encode() not in mapped(400, error, secret=SECRET).body()
    error = {**said("no"), "param": SECRET}
    assert SECRET.encode() not in mapped(400, error, secret=SECRET).body()
    error = {**said("no"), "details": {"error_code": "hunter"}}
    assert mapped(400, error, secret="hunter").detail_code is None


def test_a_message_is_cut_to_a_length_that_fits_a_log_without_showing_half_a_secret() -> None:
    message = "x" * (MAX_MESSAGE - 3) + SECRET
    answer = mapped(400, said(message), secret=SECRET)
    assert len(answer.message) == MAX_MESSAGE
    assert answer.message.endswith("x***")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"[1]",
        b'"no"',
        b"{}",
        b'{"error": null}',
        b'{"error": []}',
        b'{"error": 5}',
        b'{"error": {}}',
        b'{"error": {"message": null}}',
        b"<html><h1>400 Bad Request</h1></html>",
        b"\xff\xfe\x00garbage",
        b'{"error": {"message": "cut',
        pytest.param(b'{"error": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"),
    ],
)
@pytest.mark.parametrize(("status", "code"), [(400, "invalid_request"), (429, "rate_limit")])
def test_a_body_that_says_nothing_leaves_the_status_to_speak(
    body: bytes, status: int, code: str
) -> None:
    answer = mapped_body(status, body)
    assert (answer.status, answer.code) == (status, code)
    assert answer.message
    assert "<html>" not in answer.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "do this instead"}}',
        b'{"error": "do this instead"}',
        b'[{"error": {"code": 400, "message": "do this instead", "status": "INVALID_ARGUMENT"}}]',
        b'\n\n {"error": {"message": "do this instead", "code": null}}\n',
    ],
    ids=["OpenAI", "bare", "array of Gemini", "blank lines"],
)
def test_the_message_is_found_in_every_shape_that_is_out_there(body: bytes) -> None:
    assert mapped_body(400, body).message == "do this instead"


@pytest.mark.parametrize("code", [None, 400, 1.5, True, ["x"], {"a": 1}, "", "x" * 5000])
@pytest.mark.parametrize("key", ["code", "type", "message", "param", "status", "innererror"])
def test_fields_of_any_type_are_survived(key: str, code: object) -> None:
    for status in (200, 400, 404, 429, 500):
        json.loads(mapped(status, {**said("no"), key: code}).body())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "code", "type"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.integers(200, 599), st.binary() | json_values.map(lambda v: json.dumps(v).encode()))
def test_no_upstream_can_send_what_cannot_be_answered(status: int, body: bytes) -> None:
    answer = mapped_body(status, body)
    assert 400 <= answer.status <= 599
    assert set(json.loads(answer.body())["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UpstreamError("timeout", "no answer in 600 s"), 504, "timeout"),
        (UpstreamError("connect", "[Errno 111] refused by 10.0.0.7"), 502, "server_error"),
        (UpstreamError("broken", "half a reply from 10.0.0.7"), 502, "server_error"),
    ],
)
def test_an_upstream_that_gives_no_reply_is_told_without_its_address(
    error: UpstreamError, status: int, code: str
) -> None:
    answer = map_upstream_error(error)
    assert isinstance(answer, Failed)
    assert (answer.status, answer.code) == (status, code)
    assert "10.0.0.7" not in answer.message


def test_an_error_object_is_read_from_any_body() -> None:
    assert read_error(b'{"error": {"message": "m"}, "x": 1}') == {"message": "m"}
    assert read_error(b'{"error": "m"}') == {"message": "m"}
    assert read_error(b'{"object": "error", "message": "m"}') == {
        "object": "error",
        "message": "m",
    }
    assert read_error(b'{"Message": "m"}')["message"] == "m"
    assert read_error(b'[{"detail": "m"}]')["message"] == "m"
    assert read_error(b"<html>") == read_error(b'{"error": 5}') == {}
