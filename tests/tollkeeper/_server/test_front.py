"""Where requests enter, and the line that is left of them."""

import json
import logging

import pytest

from tollkeeper.testing import ScriptedUpstream, open_gateway


def lines_of(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(r.message) for r in caplog.records if r.name == "tollkeeper.access"]


async def test_the_access_line_tells_what_became_of_an_exchange(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    toml = "[server]\naccess_log = true\n[plugins.keys]\n"
    async with open_gateway(toml=toml) as gateway:
        gateway.key = await gateway.create_key()
        good = await gateway.chat("a secret prompt")
        bad = await gateway.chat(model="none")
        first, second = lines_of(caplog)
    assert first["request_id"] == good.headers["x-request-id"]
    assert (first["status"], first["outcome"], first["error"]) == (200, "completed", None)
    assert (first["model"], first["deployment"]) == ("test", "scripted/test")
    assert (first["org"], first["attempts"], first["stream"]) == ("default", 1, False)
    assert (first["input_tokens"], first["output_tokens"]) == (3, 2)
    assert (second["status"], second["error"]) == (404, "model_not_found")
    assert bad.headers["x-request-id"] == second["request_id"]
    assert gateway.key not in caplog.text
    assert "secret prompt" not in caplog.text


async def test_without_it_only_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    upstream = ScriptedUpstream()
    upstream.reply({"error": {"message": "no"}}, status=500)
    async with open_gateway(upstream) as gateway:
        failed = await gateway.chat()
        assert (await gateway.chat()).status == 200
        assert lines_of(caplog) == []
    told = [r for r in caplog.records if failed.headers["x-request-id"] in r.getMessage()]
    assert len(told) == 1


async def test_a_control_character_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_gateway(toml="[server]\naccess_log = true\n") as gateway:
        await gateway.chat(model='x\n{"forged": 1}')
        await gateway.get("/v1/models/a%0Ab")
        lines = [r.getMessage() for r in caplog.records if r.name == "tollkeeper.access"]
    assert len(lines) == 2
    assert all("\n" not in line for line in lines)
