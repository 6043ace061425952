"""Moderations as clients meet them: passed on, with a model where none is named."""

import json
from typing import Any

import pytest

from tollkeeper.exchange import Usage
from tollkeeper.testing import ScriptedUpstream, open_gateway

PLUGIN = "[plugins.moderations]\n"
ALIAS = '[models.alias]\ndeployments = [{ provider = "scripted", model = "real" }]\n'
PATH = "/v1/moderations"


def reply(model: str = "test") -> dict[str, Any]:
    return {"id": "modr-1", "model": model, "results": [{"flagged": False, "categories": {}}]}


def speaking(document: object) -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    upstream.dialects = {"moderations"}
    upstream.reply(document)
    return upstream


async def test_request_and_reply_pass_as_they_are() -> None:
    upstream, body = speaking(reply()), b'{ "model":"test","input":["\\u00e9"] }'
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.request("POST", PATH, body)
    assert upstream.bodies == [body]
    assert (answered.status, answered.body) == (200, json.dumps(reply()).encode())
    assert gateway.settled[-1].attempts[-1].usage is None


async def test_usage_is_measured_where_a_server_tells_it() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}
    async with open_gateway(speaking({**reply(), "usage": usage}), PLUGIN) as gateway:
        await gateway.post(PATH, {"model": "test", "input": "x"})
    assert gateway.settled[-1].attempts[-1].usage == Usage(3, 0, evidence="provider")


async def test_a_reply_goes_by_the_name_that_was_asked_for() -> None:
    async with open_gateway(speaking(reply("real")), PLUGIN + ALIAS) as gateway:
        answered = await gateway.post(PATH, {"model": "alias", "input": "x"})
    assert answered.json() == reply("alias")


@pytest.mark.parametrize("body", [{"input": "x"}, {"input": "x", "model": None}])
async def test_a_request_without_a_model_is_for_that_of_the_setting(body: object) -> None:
    upstream = speaking(reply("real"))
    async with open_gateway(upstream, f'{PLUGIN}model = "alias"\n{ALIAS}') as gateway:
        answered = await gateway.post(PATH, body)
    assert (answered.status, answered.json()["model"]) == (200, "alias")
    assert upstream.attempts[0].deployment.model == "real"


async def test_a_request_without_a_model_is_refused_without_the_setting() -> None:
    async with open_gateway(speaking(reply()), PLUGIN) as gateway:
        answered = await gateway.post(PATH, {"input": "x"})
    assert (answered.status, answered.json()["error"]["param"]) == (400, "model")


async def test_an_error_of_the_upstream_is_mapped() -> None:
    upstream = ScriptedUpstream()
    upstream.dialects = {"moderations"}
    upstream.reply({"error": {"message": "secret"}}, status=401)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(PATH, {"model": "test", "input": "x"})
    assert (answered.status, answered.code) == (502, "server_error")
    assert "secret" not in answered.body.decode()
