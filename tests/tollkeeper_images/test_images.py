"""Images as clients meet them: whole or streamed, never cut without a word."""

import json
from typing import Any

import pytest

from tollkeeper.errors import UpstreamError
from tollkeeper.exchange import Usage
from tollkeeper.testing import DONE, ScriptedUpstream, open_gateway

PLUGIN = "[plugins.images]\n"
ALIAS = '[models.alias]\ndeployments = [{ provider = "scripted", model = "real" }]\n'
PATH = "/v1/images/generations"
USAGE = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
MEASURED = Usage(5, 7, evidence="provider")
REPLY = {"created": 1, "data": [{"b64_json": "AAAA"}], "usage": USAGE}
ASKED: dict[str, Any] = {"model": "test", "prompt": "a cat"}


def event(kind: str, **fields: object) -> bytes:
    name = f"image_generation.{kind}"
    data = json.dumps({"b64_json": "A" * 100, "type": name, **fields})
    return f"event: {name}\ndata: {data}\n\n".encode()


PARTIAL = event("partial_image", partial_image_index=0)
COMPLETED = event("completed", usage=USAGE)


def speaking() -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    upstream.dialects = {"images"}
    return upstream


async def test_request_and_reply_pass_as_they_are_and_are_measured() -> None:
    upstream, body = speaking(), b'{ "model":"test", "prompt":"\\u00e9" }'
    upstream.reply(REPLY)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.request("POST", PATH, body)
    assert upstream.bodies == [body]
    assert (answered.status, answered.body) == (200, json.dumps(REPLY).encode())
    assert gateway.settled[-1].attempts[-1].usage == MEASURED


@pytest.mark.parametrize("model", ["test", "alias"])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("tail", [b"", DONE])
async def test_a_stream_passes_as_it_is_and_is_measured(
    model: str, images: int, tail: bytes
) -> None:
    upstream = speaking()
    parts = [*[PARTIAL, COMPLETED] * images, *([tail] if tail else [])]
    upstream.stream(*parts)
    async with open_gateway(upstream, PLUGIN + ALIAS) as gateway:
        answered = await gateway.post(PATH, {**ASKED, "model": model, "stream": True})
    assert answered.body == b"".join(parts)
    assert gateway.settled[-1].outcome
    assert gateway.settled[-1].outcome.kind == "completed"
    assert gateway.settled[-1].attempts[-1].usage == MEASURED


async def test_a_completed_image_without_usage_is_not_measured() -> None:
    upstream = speaking()
    upstream.stream(event("completed", usage=None))
    async with open_gateway(upstream, PLUGIN) as gateway:
        await gateway.post(PATH, {**ASKED, "stream": True})
    assert gateway.settled[-1].attempts[-1].usage_data == b""
    assert gateway.settled[-1].attempts[-1].usage is None


@pytest.mark.parametrize("end", [[], [UpstreamError("broken", "gone")]])
async def test_a_stream_that_is_cut_before_the_image_ends_with_an_error_event(
    end: list[Exception],
) -> None:
    upstream = speaking()
    upstream.stream(PARTIAL, *end)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(PATH, {**ASKED, "stream": True})
    partial, error = answered.events()
    assert json.loads(partial)["partial_image_index"] == 0
    assert json.loads(error)["error"]["code"] == "server_error"
    assert gateway.settled[-1].outcome
    assert gateway.settled[-1].outcome.kind == "failed"


async def test_an_error_inside_a_stream_is_mapped() -> None:
    upstream = speaking()
    error = {"type": "error", "error": {"code": "content_policy_violation", "message": "no"}}
    upstream.stream(PARTIAL, f"event: error\ndata: {json.dumps(error)}\n\n".encode())
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(PATH, {**ASKED, "stream": True})
    assert json.loads(answered.events()[-1])["error"]["code"] == "content_filter"


async def test_a_request_without_a_model_is_for_that_of_the_setting() -> None:
    upstream = speaking()
    upstream.reply(REPLY)
    async with open_gateway(upstream, f'{PLUGIN}model = "alias"\n{ALIAS}') as gateway:
        answered = await gateway.post(PATH, {"prompt": "a cat"})
    assert answered.status == 200
    assert upstream.attempts[0].deployment.model == "real"


async def test_a_request_without_a_model_is_refused_without_the_setting() -> None:
    async with open_gateway(speaking(), PLUGIN) as gateway:
        answered = await gateway.post(PATH, {"prompt": "a cat"})
    assert (answered.status, answered.json()["error"]["param"]) == (400, "model")


async def test_an_image_of_several_megabytes_is_one_event_like_any_other() -> None:
    upstream = speaking()
    large = event("completed", b64_json="A" * 6_000_000, usage=USAGE)
    upstream.stream(*(large[at : at + 65536] for at in range(0, len(large), 65536)))
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(PATH, {**ASKED, "stream": True})
    assert answered.body == large
    assert gateway.settled[-1].attempts[-1].usage == MEASURED
