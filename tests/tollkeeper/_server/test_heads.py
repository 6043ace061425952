"""The head of a reply."""

import pytest

from tollkeeper._server.heads import encode_head


def test_a_header_that_would_break_the_head_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    head = encode_head(
        200, {"good": "1", "evil": "1\r\nset-cookie: x", "nul": "\x00", "wide": "é€"}
    )
    lines = head.decode("latin-1").split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert lines[1].startswith("date: ")
    assert lines[2:] == ["good: 1", "wide: é?", "", ""]
    assert "evil" in caplog.text


def test_a_status_without_a_name_still_has_its_line() -> None:
    assert encode_head(599, {}).startswith(b"HTTP/1.1 599 ")
