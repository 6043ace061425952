"""Embeddings as clients meet them: in the encoding that was asked for, measured, renamed."""

import base64
import json
import struct
from typing import Any

import pytest

from tollkeeper.exchange import Usage
from tollkeeper.testing import ScriptedUpstream, open_gateway

PLUGIN = "[plugins.embeddings]\n"
ALIAS = '[models.alias]\ndeployments = [{ provider = "scripted", model = "real" }]\n'
PATH = "/v1/embeddings"
ASKED = {"model": "test", "input": "x"}


def reply(*vectors: object, model: str = "test") -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def speaking(document: object = None) -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    upstream.dialects = {"embeddings"}
    if document is not None:
        upstream.reply(document)
    return upstream


async def test_floats_are_made_base64_where_the_upstream_ignored_that_it_was_asked_for() -> None:
    upstream = speaking(reply([0.25, -1], [3]))
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(PATH, {**ASKED, "encoding_format": "base64"})
    vectors = [base64.b64decode(item["embedding"]) for item in answered.json()["data"]]
    assert struct.unpack("<2f", vectors[0]) == (0.25, -1)
    assert struct.unpack("<f", vectors[1]) == (3,)
    assert b'"encoding_format": "base64"' in upstream.bodies[0]
    assert gateway.settled[-1].attempts[-1].usage == Usage(4, 0, evidence="provider")


@pytest.mark.parametrize(
    ("wanted", "vector"),
    [({"encoding_format": "float"}, [0.25]), ({}, [0.25]), ({"encoding_format": "base64"}, "AA==")],
)
async def test_a_reply_in_the_right_encoding_passes_untouched(
    wanted: dict[str, str], vector: Any
) -> None:
    body = {**ASKED, **wanted}
    async with open_gateway(speaking(reply(vector)), PLUGIN) as gateway:
        answered = await gateway.post(PATH, body)
    assert answered.body == json.dumps(reply(vector)).encode()


async def test_a_reply_goes_by_the_name_that_was_asked_for() -> None:
    async with open_gateway(speaking(reply([1.5], model="real")), PLUGIN + ALIAS) as gateway:
        answered = await gateway.post(PATH, {**ASKED, "model": "alias"})
    assert answered.json() == reply([1.5], model="alias")


async def test_a_request_without_a_model_is_refused() -> None:
    async with open_gateway(speaking(), PLUGIN) as gateway:
        answered = await gateway.post(PATH, {"input": "x"})
    assert (answered.status, answered.json()["error"]["param"]) == (400, "model")


async def test_errors_have_the_shape_of_the_contract() -> None:
    upstream = speaking({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
    async with open_gateway(upstream, PLUGIN) as gateway:
        within = await gateway.post(PATH, ASKED)
        unknown = await gateway.post(PATH, {**ASKED, "model": "none"})
    assert (within.status, within.code) == (429, "rate_limit")
    assert (unknown.status, unknown.code) == (404, "model_not_found")


async def test_a_reply_that_is_not_json_is_a_broken_one() -> None:
    upstream = speaking()
    upstream.raw("text/html", b"<html>")
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(PATH, ASKED)
    assert (answered.status, answered.code) == (502, "server_error")
