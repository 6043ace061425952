"""What the client and the log are told of a failure."""

import logging

import pytest

from tollkeeper import Exchange, Failed, Operation, Refused, UpstreamError
from tollkeeper._server.failures import answer_for, log_failure, unauthenticated


def exchange(**headers: str) -> Exchange:
    return Exchange(Operation("x", "GET", "/x"), "", headers, "c", 0.0)


def test_an_error_is_found_in_the_groups_that_nurseries_raise() -> None:
    refusal, upstream = Refused(403, "auth_error", "no"), UpstreamError("timeout", "late")
    assert answer_for(ExceptionGroup("a", [ExceptionGroup("b", [refusal])]), "") is refusal
    assert answer_for(ExceptionGroup("a", [upstream]), "").status == 504
    assert answer_for(ExceptionGroup("a", [upstream, refusal]), "") is refusal


def test_anything_else_is_a_500_that_tells_nothing() -> None:
    answer = answer_for(KeyError("a secret"), "")
    assert isinstance(answer, Failed)
    assert (answer.status, answer.code) == (500, "server_error")
    assert "secret" not in answer.message


def test_a_caller_without_a_key_is_told_how_to_send_one() -> None:
    assert "Bearer" in unauthenticated(exchange()).message
    assert unauthenticated(exchange(authorization="Bearer x")).message == "Invalid API key."


def test_a_traceback_is_logged_for_bugs_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_failure(exchange(), Refused(400, "invalid_request", "x"), Refused(400, "conflict", "y"))
    log_failure(exchange(), Failed(502, "server_error", "x"), UpstreamError("broken", "cut"))
    log_failure(exchange(), Failed(500, "server_error", "x"), KeyError("bug"))
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "ERROR"]
    assert [bool(record.exc_info) for record in caplog.records] == [False, False, True]
    assert "cut" in caplog.messages[1]
