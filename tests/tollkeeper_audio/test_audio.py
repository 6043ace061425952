"""Sound as clients meet it: forms in, text, subtitles, sound and events out."""

import json
from typing import Any

import pytest

from tollkeeper.errors import UpstreamError
from tollkeeper.exchange import Exchange, Usage
from tollkeeper.testing import DONE, Answered, ScriptedUpstream, TestGateway, open_gateway
from tollkeeper_audio import OPERATIONS

PLUGIN = "[plugins.audio]\n"
ALIAS = '[models.alias]\ndeployments = [{ provider = "scripted", model = "real" }]\n'
SPEECH = "/v1/audio/speech"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"
TYPE = "multipart/form-data; boundary=----cut-here"
USAGE = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}
MEASURED = Usage(14, 3, evidence="provider")
SAY = {"model": "test", "input": "hi", "voice": "coral"}


def form(**values: str) -> bytes:
    file = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    parts = [f"{file}Content-Type: audio/wav\r\n\r\n".encode() + bytes(range(256))]
    for name, value in values.items():
        parts.append(f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode())
    return b"".join(b"------cut-here\r\n" + part + b"\r\n" for part in parts) + b"------cut-here--"


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


DELTA = event({"type": "transcript.text.delta", "delta": "hé"})
TOLD = event({"type": "transcript.text.done", "text": "hé", "usage": USAGE})


def speaking() -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    upstream.dialects = {"audio"}
    return upstream


async def transcribe(
    gateway: TestGateway, body: bytes = b"", path: str = TRANSCRIPTIONS
) -> Answered:
    return await gateway.request("POST", path, body or form(model="test"), {"content-type": TYPE})


@pytest.mark.parametrize("path", [TRANSCRIPTIONS, TRANSLATIONS])
async def test_a_form_and_its_reply_pass_as_they_are_and_are_measured(path: str) -> None:
    upstream, body = speaking(), form(model="test", prompt="é", stream="false")
    upstream.reply({"text": "hé", "usage": USAGE})
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await transcribe(gateway, body, path)
    assert upstream.bodies == [body]
    assert answered.body == json.dumps({"text": "hé", "usage": USAGE}).encode()
    assert answered.headers["content-type"] == "application/json"
    assert gateway.settled[-1].attempts[-1].usage == MEASURED
    assert not gateway.settled[-1].stream


def test_a_form_goes_on_under_another_model_with_its_own_boundary() -> None:
    body = form(model="alias", prompt="x")
    for operation in OPERATIONS[1:]:
        exchange = Exchange(operation, "", {"content-type": TYPE}, "test", 0.0, body=body)
        assert operation.dialect is not None
        assert operation.dialect.content_type(exchange) == TYPE
        changed = operation.dialect.with_model(exchange, body, "real")
        assert changed == body.replace(b"alias", b"real")


@pytest.mark.parametrize(
    ("kind", "text"),
    [("text/plain; charset=utf-8", "hé\n"), ("text/vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\nhé")],
)
async def test_text_and_subtitles_pass_with_their_content_type(kind: str, text: str) -> None:
    upstream = speaking()
    upstream.raw(kind, text.encode())
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await transcribe(gateway)
    assert (answered.status, answered.body.decode()) == (200, text)
    assert answered.headers["content-type"] == kind
    assert gateway.settled[-1].outcome
    assert gateway.settled[-1].outcome.kind == "completed"


async def test_sound_passes_in_order_with_its_content_type() -> None:
    upstream, parts = speaking(), [bytes([i]) * 1000 for i in range(20)]
    upstream.raw("audio/mpeg", *parts)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(SPEECH, SAY)
    assert answered.headers["content-type"] == "audio/mpeg"
    assert answered.body == b"".join(parts)
    assert json.loads(upstream.bodies[0]) == SAY
    assert gateway.settled[-1].model == "test"


async def test_sound_that_is_cut_breaks_the_connection_off_without_an_end() -> None:
    upstream = speaking()
    upstream.raw("audio/mpeg", b"a" * 100, b"b" * 100, UpstreamError("broken", "gone"))
    body = json.dumps(SAY).encode()
    async with open_gateway(upstream, PLUGIN) as gateway:
        async with gateway.open("POST", SPEECH, body) as link:
            heard = b""
            while len(heard) < 200:
                heard += await link.chunk()
            assert heard == b"a" * 100 + b"b" * 100
            with pytest.raises(UpstreamError):
                await link.chunk()
        assert gateway.settled[-1].outcome
        assert gateway.settled[-1].outcome.kind == "failed"


async def test_sound_that_fails_before_any_is_an_error_with_a_status() -> None:
    upstream = speaking()
    upstream.raw("audio/mpeg", UpstreamError("broken", "gone"))
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(SPEECH, SAY)
    assert (answered.status, answered.code) == (502, "server_error")


@pytest.mark.parametrize("model", ["test", "alias"])
async def test_a_transcription_in_events_passes_and_is_measured(model: str) -> None:
    upstream = speaking()
    upstream.stream(DELTA, DELTA, TOLD)
    async with open_gateway(upstream, PLUGIN + ALIAS) as gateway:
        answered = await transcribe(gateway, form(model=model, stream="True"))
    assert answered.body == DELTA + DELTA + TOLD
    assert gateway.settled[-1].stream
    assert gateway.settled[-1].attempts[-1].usage == MEASURED


async def test_sound_in_events_passes_and_is_measured() -> None:
    upstream = speaking()
    parts = [event({"type": "speech.audio.delta", "audio": "AAAA"})]
    parts.append(event({"type": "speech.audio.done", "usage": USAGE}))
    upstream.stream(*parts)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await gateway.post(SPEECH, {**SAY, "stream_format": "sse"})
    assert answered.body == b"".join(parts)
    assert gateway.settled[-1].attempts[-1].usage == MEASURED


async def test_a_transcription_in_chunks_like_those_of_chat_passes_to_its_end() -> None:
    upstream = speaking()
    choice = {"delta": {"content": "hé"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 14, "completion_tokens": 3, "total_tokens": 17}
    chunks: list[dict[str, Any]] = [
        {"object": "transcription.chunk", "model": "real", "choices": [choice]},
        {"object": "transcription.chunk", "model": "real", "choices": [], "usage": usage},
    ]
    upstream.stream(*map(event, chunks), DONE)
    async with open_gateway(upstream, PLUGIN + ALIAS) as gateway:
        answered = await transcribe(gateway, form(model="alias", stream="true"))
    *found, done = answered.events()
    assert [json.loads(data) for data in found] == [{**c, "model": "alias"} for c in chunks]
    assert done == "[DONE]"
    assert gateway.settled[-1].attempts[-1].usage == MEASURED


@pytest.mark.parametrize("end", [[], [UpstreamError("broken", "gone")]])
async def test_events_that_are_cut_end_with_an_error_event(end: list[Exception]) -> None:
    upstream = speaking()
    upstream.stream(DELTA, *end)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await transcribe(gateway, form(model="test", stream="true"))
    delta, error = answered.events()
    assert json.loads(delta)["delta"] == "hé"
    assert json.loads(error)["error"]["code"] == "server_error"


@pytest.mark.parametrize(
    ("path", "body", "kind", "param"),
    [
        (SPEECH, b'{"input":"x"}', "application/json", "model"),
        (SPEECH, b"[]", "application/json", None),
        (TRANSCRIPTIONS, form(), TYPE, "model"),
        (TRANSCRIPTIONS, form(model=""), TYPE, "model"),
        (TRANSCRIPTIONS, b'{"model":"test"}', "application/json", None),
        (TRANSLATIONS, form(model="test")[:-2], TYPE, None),
    ],
)
async def test_a_request_without_a_model_or_a_form_is_refused(
    path: str, body: bytes, kind: str, param: str | None
) -> None:
    async with open_gateway(speaking(), PLUGIN) as gateway:
        answered = await gateway.request("POST", path, body, {"content-type": kind})
    assert answered.status == 400
    assert answered.json()["error"]["param"] == param


async def test_an_error_of_the_upstream_is_mapped() -> None:
    upstream = speaking()
    upstream.reply({"error": {"message": "Invalid file format.", "param": "file"}}, status=400)
    async with open_gateway(upstream, PLUGIN) as gateway:
        answered = await transcribe(gateway)
    assert answered.status == 400
    assert answered.json()["error"]["message"] == "Invalid file format."


async def test_a_model_that_is_not_served_is_not_found() -> None:
    async with open_gateway(speaking(), PLUGIN) as gateway:
        answered = await transcribe(gateway, form(model="none"))
    assert (answered.status, answered.code) == (404, "model_not_found")
