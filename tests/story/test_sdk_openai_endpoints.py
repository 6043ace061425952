"""The newest openai-python beyond chat: vectors, sounds, images, verdicts and plain completions."""

import base64
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
import trio
from clients.stage import Stage, held_open, stage
from harness import (
    DONE,
    STREAM_HEAD,
    RawUpstream,
    Script,
    http_chunk,
    http_reply,
    openai_toml,
    raw_upstream,
    replying,
    serve,
    streaming,
)
from openai import OpenAI

FLOATS = [0.5, -0.25, 1.0]
RECORDING = ("hello.mp3", b"ID3\r\n--not-a-boundary\r\n\x00\xff")


@pytest.fixture(scope="module", name="on")
def stage_for_all() -> Iterator[Stage]:
    with stage() as running:
        yield running


@pytest.fixture(scope="module")
def client(on: Stage) -> Iterator[OpenAI]:
    with OpenAI(base_url=on.base_url, api_key=on.key, max_retries=0) as client:
        yield client


@contextmanager
def before(script: Script, plugin: str) -> Iterator[tuple[OpenAI, RawUpstream]]:
    """A client of a gateway whose model `m` answers with the bytes of a script."""
    with held_open(raw_upstream(script)) as upstream:
        toml = openai_toml(upstream, plugins=f"[plugins.{plugin}]", extra="idle_timeout = 5")
        with held_open(serve(toml)) as served:
            with OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
                yield client, upstream


def event(**data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


@pytest.mark.parametrize("more", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_vectors_of_an_upstream_that_knows_floats_alone(
    client: OpenAI, more: dict[str, Any]
) -> None:
    """Without a format the SDK asks for base64 and decodes it."""
    answer = client.embeddings.create(model="gpt", input=["hello", "hello"], **more)
    expected: Any = FLOATS
    if more.get("encoding_format") == "base64":
        expected = base64.b64encode(struct.pack("<3f", *FLOATS)).decode()
    assert [(vector.index, vector.embedding) for vector in answer.data] == [
        (0, expected),
        (1, expected),
    ]
    assert answer.model == "gpt"


def test_vectors_that_are_base64_already() -> None:
    packed = base64.b64encode(struct.pack("<3f", *FLOATS)).decode()
    vector = {"object": "embedding", "index": 0, "embedding": packed}
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    body = {"object": "list", "model": "m", "data": [vector], "usage": usage}
    with before(replying(http_reply(json.dumps(body).encode())), "embeddings") as (
        client,
        upstream,
    ):
        answer = client.embeddings.create(model="m", input=[1, 2, 3], dimensions=3)
    assert answer.data[0].embedding == FLOATS
    assert answer.usage.total_tokens == 3
    sent = upstream.requests[0].json()
    assert (sent["input"], sent["dimensions"]) == ([1, 2, 3], 3)


def test_a_verdict(client: OpenAI) -> None:
    (bad,) = client.moderations.create(model="gpt", input="kill").results
    assert bad.flagged
    assert bad.categories.violence
    assert bad.category_scores.violence == 0.99
    (good,) = client.moderations.create(model="gpt", input="a kind word").results
    assert not good.flagged


def test_an_image(client: OpenAI) -> None:
    (image,) = client.images.generate(model="gpt", prompt="a cat").data or []
    assert image.b64_json == "aW1hZ2U="


def test_speech_whole_and_streamed(client: OpenAI) -> None:
    said: dict[str, Any] = {"model": "gpt", "voice": "alloy", "input": "hello"}
    assert client.audio.speech.create(**said).content == b"sound"
    with client.audio.speech.with_streaming_response.create(**said) as speech:
        assert speech.headers["content-type"] == "audio/mpeg"
        assert b"".join(speech.iter_bytes()) == b"sound"
        assert speech.headers["x-request-id"].startswith("req_")


def test_a_transcription_whole_detailed_and_streamed(client: OpenAI) -> None:
    create: Any = client.audio.transcriptions.create
    assert create(model="gpt", file=RECORDING).text == "Hello there."
    detailed = create(model="gpt", file=RECORDING, response_format="verbose_json")
    assert (detailed.text, detailed.language, detailed.duration) == ("Hello there.", "en", 1)
    *deltas, done = create(model="gpt", file=RECORDING, stream=True)
    assert "".join(delta.delta for delta in deltas) == done.text == "Hello there."


def test_a_transcription_as_text_and_a_recording_that_stays_as_it_is() -> None:
    reply = http_reply(b"Hello there.\n", headers="content-type: text/plain; charset=utf-8\r\n")
    with before(replying(reply), "audio") as (client, upstream):
        create: Any = client.audio.transcriptions.create
        assert create(model="m", file=RECORDING, response_format="text") == "Hello there.\n"
    assert RECORDING[1] in upstream.requests[0].body
    assert b'name="response_format"\r\n\r\ntext\r\n' in upstream.requests[0].body


def text_chunk(text: str, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return event(
        id="cmpl-1", object="text_completion", created=1, model="m", choices=[choice], **more
    )


def test_a_completion_whole_and_streamed() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    whole = text_chunk("Once upon", "length", usage=usage)[6:-2]
    with before(replying(http_reply(whole)), "completions") as (client, _):
        completion = client.completions.create(model="m", prompt="Once", max_tokens=2, echo=True)
    assert completion.choices[0].text == "Once upon"
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 3
    told = event(id="cmpl-1", object="text_completion", model="m", choices=[], usage=usage)
    script = streaming(text_chunk("Once"), text_chunk(" upon", "stop"), told, DONE)
    with before(script, "completions") as (client, upstream):
        chunks = list(client.completions.create(model="m", prompt="Once", stream=True))
    assert [chunk.choices[0].text for chunk in chunks] == ["Once", " upon"]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}


def cutting(*events: bytes) -> Script:
    """Some events of a stream, and then the connection is gone."""

    async def script(stream: Any, _received: Any) -> None:
        await stream.send_all(STREAM_HEAD + b"".join(map(http_chunk, events)))
        await stream.aclose()

    return script


def failing(*events: bytes) -> Script:
    """Some events, an error among them, and a proper end."""
    return streaming(*events, event(error={"message": "boom", "code": "server_error"}))


TEXT: dict[str, Any] = {"model": "m", "prompt": "a", "stream": True}
PARTIAL = {"type": "image_generation.partial_image", "b64_json": "YQ==", "partial_image_index": 0}
DELTA = {"type": "transcript.text.delta", "delta": "Hello"}

STREAMS: list[tuple[str, bytes, Callable[[OpenAI], Any]]] = [
    ("completions", text_chunk("Once"), lambda c: c.completions.create(**TEXT)),
    ("images", event(**PARTIAL), lambda c: c.images.generate(**TEXT)),
    (
        "audio",
        event(**DELTA),
        lambda c: c.audio.transcriptions.create(model="m", file=RECORDING, stream=True),
    ),
]


@pytest.mark.parametrize("breaking", [cutting, failing])
@pytest.mark.parametrize(("plugin", "first", "call"), STREAMS, ids=[s[0] for s in STREAMS])
def test_a_stream_that_breaks_raises_after_what_came(
    plugin: str,
    first: bytes,
    call: Callable[[OpenAI], Any],
    breaking: Callable[[bytes], Script],
) -> None:
    with before(breaking(first), plugin) as (client, _):
        stream = iter(call(client))
        assert next(stream) is not None
        with pytest.raises(openai.APIError) as raised:
            next(stream)
    assert raised.value.code == "server_error"


def test_sound_that_is_cut_raises() -> None:
    head = STREAM_HEAD.replace(b"text/event-stream", b"audio/mpeg")

    async def script(stream: Any, _received: Any) -> None:
        await stream.send_all(head)
        for part in (b"first part", b"second part"):
            await stream.send_all(http_chunk(part))
            await trio.sleep(0.02)  # parts that come together are one
        await stream.aclose()

    with before(script, "audio") as (client, _):
        with pytest.raises(openai.APIConnectionError):
            client.audio.speech.create(model="m", voice="alloy", input="hello")


ENDPOINTS: list[Callable[[OpenAI, str], Any]] = [
    lambda c, model: c.embeddings.create(model=model, input="hello"),
    lambda c, model: c.moderations.create(model=model, input="hello"),
    lambda c, model: c.images.generate(model=model, prompt="hello"),
    lambda c, model: c.completions.create(model=model, prompt="hello"),
    lambda c, model: c.audio.speech.create(model=model, voice="alloy", input="hello"),
    lambda c, model: c.audio.transcriptions.create(model=model, file=RECORDING),
]


@pytest.mark.parametrize("call", ENDPOINTS)
def test_errors_raise_their_class(
    on: Stage, client: OpenAI, call: Callable[[OpenAI, str], Any]
) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        call(client, "unknown")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="does not offer") as unable:
        call(client, "claude")
    assert unable.value.param == "model"
    assert unable.value.request_id is not None
    with OpenAI(base_url=on.base_url, api_key="tk-wrong", max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError):
            call(wrong, "gpt")
