"""Reranking as clients meet it: passed on, measured by whatever tokens a server tells."""

import json
from typing import Any

import pytest

from tollkeeper.exchange import Usage
from tollkeeper.testing import ScriptedUpstream, open_gateway

PLUGIN = "[plugins.rerank]\n"
ALIAS = '[models.alias]\ndeployments = [{ provider = "scripted", model = "real" }]\n'
PATH = "/v1/rerank"
ASKED = {"model": "test", "query": "q", "documents": ["a", {"text": "é"}], "top_n": 1}


def reply(model: str = "test", usage: dict[str, int] | None = None) -> dict[str, Any]:
    results = [{"index": 1, "relevance_score": 0.75}]
    return {"model": model, "results": results, **({"usage": usage} if usage else {})}


def speaking(document: object) -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    upstream.dialects = {"rerank"}
    upstream.reply(document)
    return upstream


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"total_tokens": 9}, Usage(9, 0, evidence="provider")),
        ({"prompt_tokens": 8, "total_tokens": 9}, Usage(8, 0, evidence="provider")),
        ({}, None),
        ({"total_tokens": -1}, None),
    ],
)
async def test_request_and_reply_pass_as_they_are_and_are_measured(
    told: dict[str, int], usage: Usage | None
) -> None:
    upstream, body = speaking(reply(usage=told)), json.dumps(ASKED, indent=1).encode()
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.request("POST", PATH, body)
    assert upstream.bodies == [body]
    assert (answered.status, answered.body) == (200, json.dumps(reply(usage=told)).encode())
    assert gateway.settled[-1].attempts[-1].usage == usage


async def test_a_reply_goes_by_the_name_that_was_asked_for() -> None:
    async with open_gateway(speaking(reply("real")), PLUGIN + ALIAS) as gateway:
        answered = await gateway.post(PATH, {**ASKED, "model": "alias"})
    assert answered.json() == reply("alias")


async def test_a_request_without_a_model_is_refused() -> None:
    async with open_gateway(speaking(reply()), PLUGIN) as gateway:
        answered = await gateway.post(PATH, {"query": "q", "documents": []})
    assert (answered.status, answered.json()["error"]["param"]) == (400, "model")


async def test_an_error_of_the_upstream_is_mapped() -> None:
    upstream = ScriptedUpstream()
    upstream.dialects = {"rerank"}
    upstream.reply({"error": {"message": "no such route"}}, status=404)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(PATH, ASKED)
    assert (answered.status, answered.code) == (404, "not_found")
