"""The older completions as clients meet them: passed on whole or streamed, measured, renamed."""

import json
from typing import Any

import pytest

from tollkeeper.errors import UpstreamError
from tollkeeper.exchange import Usage
from tollkeeper.testing import DONE, ScriptedUpstream, open_gateway

PLUGIN = "[plugins.completions]\n"
ALIAS = '[models.alias]\ndeployments = [{ provider = "scripted", model = "real" }]\n'
PATH = "/v1/completions"
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
MEASURED = Usage(5, 7, evidence="provider")


def reply(model: str = "test") -> dict[str, Any]:
    choice = {"index": 0, "text": "hé", "logprobs": None, "finish_reason": "stop"}
    document = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": model}
    return {**document, "choices": [choice], "usage": USAGE}


def piece(text: str, finish: str | None = None, model: str = "test") -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return event({"id": "cmpl-1", "model": model, "choices": [choice]})


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


TOLD = event({"id": "cmpl-1", "model": "test", "choices": [], "usage": USAGE})


def speaking() -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    upstream.dialects = {"completions"}
    return upstream


async def test_request_and_reply_pass_as_they_are_and_are_measured() -> None:
    upstream, body = speaking(), b'{ "model":"test",\t"prompt":["\\u00e9", [1, 2]], "odd":1e2 }'
    upstream.reply(reply())
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.request("POST", PATH, body)
    assert upstream.bodies == [body]
    assert answered.status == 200
    assert answered.body == json.dumps(reply()).encode()
    assert gateway.settled[-1].attempts[-1].usage == MEASURED


async def test_a_reply_goes_by_the_name_that_was_asked_for() -> None:
    upstream = speaking()
    upstream.reply(reply("real"))
    upstream.stream(piece("a", model="real"), piece("", "stop", model="real"), DONE)
    async with open_gateway(upstream, PLUGIN + ALIAS) as gateway:
        whole = await gateway.post(PATH, {"model": "alias", "prompt": "x"})
        streamed = await gateway.post(PATH, {"model": "alias", "prompt": "x", "stream": True})
    assert whole.json() == reply("alias")
    assert b"real" not in streamed.body
    assert json.loads(streamed.events()[0])["model"] == "alias"


@pytest.mark.parametrize("wants", [False, True])
async def test_a_stream_is_measured_and_shows_its_usage_where_it_was_asked_for(wants: bool) -> None:
    upstream = speaking()
    parts = [piece("a"), piece("b"), piece("", "stop")]
    upstream.stream(*parts, TOLD, DONE)
    options = {"stream_options": {"include_usage": True}} if wants else {}
    async with open_gateway(upstream, PLUGIN) as gateway:
        body = {"model": "test", "prompt": "x", "stream": True, **options}
        answered = await gateway.post(PATH, body)
    assert answered.body == b"".join(parts) + (TOLD if wants else b"") + DONE
    assert gateway.settled[-1].wants_usage is wants
    assert gateway.settled[-1].attempts[-1].usage == MEASURED


@pytest.mark.parametrize("end", [[], [UpstreamError("broken", "gone")]])
async def test_a_stream_that_is_cut_ends_with_an_error_event(end: list[Exception]) -> None:
    upstream = speaking()
    upstream.stream(piece("a"), *end)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(PATH, {"model": "test", "prompt": "x", "stream": True})
    first, error, done = answered.events()
    assert json.loads(first)["choices"][0]["text"] == "a"
    assert json.loads(error)["error"]["code"] == "server_error"
    assert done == "[DONE]"


@pytest.mark.parametrize(
    ("body", "param"), [(b'{"prompt":"x"}', "model"), (b"[]", None), (b"{", None), (b"", None)]
)
async def test_a_body_without_a_model_or_that_is_no_object_is_refused(
    body: bytes, param: str | None
) -> None:
    async with open_gateway(speaking(), PLUGIN) as gateway:
        answered = await gateway.request("POST", PATH, body)
    assert answered.status == 400
    assert answered.json()["error"]["param"] == param


async def test_an_error_of_the_upstream_is_mapped() -> None:
    upstream = speaking()
    upstream.reply({"error": {"message": "bad prompt", "param": "prompt"}}, status=400)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(PATH, {"model": "test", "prompt": "x"})
    assert answered.status == 400
    assert answered.json()["error"]["message"] == "bad prompt"
    assert answered.json()["error"]["param"] == "prompt"


async def test_a_model_of_a_provider_that_offers_none_is_refused_by_name() -> None:
    async with open_gateway(ScriptedUpstream(), PLUGIN) as gateway:
        answered = await gateway.post(PATH, {"model": "test", "prompt": "x"})
    assert answered.status == 400
    assert answered.json()["error"]["param"] == "model"
    assert PATH in answered.json()["error"]["message"]


async def test_the_path_is_unknown_while_the_plugin_is_off() -> None:
    async with open_gateway(speaking()) as gateway:
        assert (await gateway.post(PATH, {"model": "test", "prompt": "x"})).status == 404
