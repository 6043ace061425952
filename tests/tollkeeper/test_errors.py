"""What an error says of itself, and the JSON that clients get of it."""

import json

import pytest

from tollkeeper.errors import (
    MAX_RETRY_AFTER,
    OTHER_CODES,
    TABLE_CODES,
    ApiError,
    ConfigError,
    Failed,
    Problem,
    Refused,
    UpstreamError,
    by_line,
    find_api_error,
    invalid_request,
    model_not_found,
)


def test_the_table_of_the_http_contract_is_covered_and_nothing_more() -> None:
    assert set(TABLE_CODES) == {
        "auth_error",
        "rate_limit",
        "model_not_found",
        "context_length_exceeded",
        "content_filter",
        "server_error",
        "timeout",
    }
    assert set(OTHER_CODES) == {
        "invalid_request",
        "not_found",
        "method_not_allowed",
        "request_timeout",
        "conflict",
        "request_too_large",
    }


@pytest.mark.parametrize("code", sorted(TABLE_CODES))
def test_within_the_table_the_type_is_the_code(code: str) -> None:
    document = json.loads(ApiError(400, code, "no").body())
    assert document == {"error": {"message": "no", "type": code, "param": None, "code": code}}


@pytest.mark.parametrize("code", sorted(OTHER_CODES))
def test_outside_the_table_the_type_is_invalid_request_error(code: str) -> None:
    document = json.loads(ApiError(400, code, "no", param="n").body())
    wanted = {"message": "no", "type": "invalid_request_error", "param": "n", "code": code}
    assert document == {"error": wanted}


def test_openais_body_does_not_tell_the_finer_code() -> None:
    error, plain = Refused(404, "not_found", "no"), Refused(404, "not_found", "no")
    error.detail_code = "thread_not_found"
    assert error.body() == plain.body()
    assert plain.detail_code is None


def test_a_code_that_no_client_knows_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="'oops'"):
        Failed(500, "oops", "no")


def test_what_a_client_can_cure_is_a_400_that_names_the_field() -> None:
    error = invalid_request("n is too large", param="n")
    assert (error.status, error.code, error.param) == (400, "invalid_request", "n")


def test_an_unknown_model_is_a_404_that_names_it() -> None:
    error = model_not_found("gpt-9")
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert "gpt-9" in error.message


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("0.2", 1),
        ("7.0", 7),
        ("86400", MAX_RETRY_AFTER),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("nan", None),
        ("1e3", None),
        ("9" * 400, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_whole_seconds_rounded_up_or_not_at_all(
    header: str, seconds: int | None
) -> None:
    error = UpstreamError("status", "busy", status=429, headers={"retry-after": header})
    assert error.retry_after == seconds


def test_an_upstream_that_names_no_retry_after_has_none() -> None:
    assert UpstreamError("status", "busy", status=429).retry_after is None


@pytest.mark.parametrize("status", [401, 402, 403, 408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_worth_another_try(status: int) -> None:
    assert UpstreamError("status", "no", status=status).retryable


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_stays_wrong_is_not_tried_again(status: int) -> None:
    assert not UpstreamError("status", "no", status=status).retryable


@pytest.mark.parametrize(("status", "ours"), [(401, True), (402, True), (403, True), (429, False)])
def test_a_provider_that_turns_us_away_may_only_be_left(status: int, ours: bool) -> None:
    assert UpstreamError("status", "no", status=status).is_ours is ours


@pytest.mark.parametrize("fault", ["connect", "timeout", "broken"])
def test_a_reply_that_never_came_is_worth_another_try(fault: str) -> None:
    assert UpstreamError(fault, "no").retryable  # type: ignore[arg-type]


def test_the_first_refusal_is_found_at_any_depth_of_exception_groups() -> None:
    first, second = Refused(403, "auth_error", "first"), Refused(429, "rate_limit", "second")
    inner = ExceptionGroup("inner", [ValueError(), first])
    assert find_api_error(ExceptionGroup("outer", [KeyError(), inner, second])) is first
    assert find_api_error(second) is second
    assert find_api_error(ExceptionGroup("none", [ValueError()])) is None


def test_a_config_error_reads_as_one_problem_a_line() -> None:
    error = ConfigError([Problem("t.toml:3", "no"), Problem("t.toml", "neither")])
    assert str(error) == "t.toml:3: no\nt.toml: neither"


def test_problems_are_met_in_the_order_of_the_lines_of_their_file() -> None:
    places = ["a.toml", "a.toml:2", "a.toml:10", "b.toml:1", "storage.url"]
    shuffled = [Problem(places[index], "no") for index in (2, 4, 0, 3, 1)]
    assert [problem.where for problem in sorted(shuffled, key=by_line)] == places
