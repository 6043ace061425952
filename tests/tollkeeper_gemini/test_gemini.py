"""What the provider sends to Google, and what the client gets of its answer."""

import json
from collections import deque
from typing import Any

import pytest

from tollkeeper import Attempt, Deployment, Exchange, Refused, Reply, UpstreamRequest
from tollkeeper._server.chat import CHAT
from tollkeeper.errors import ConfigError
from tollkeeper.provider import Clock, ProviderContext
from tollkeeper.settings import ProviderSettings
from tollkeeper.testing import ScriptedReply, open_gateway
from tollkeeper_gemini import Gemini, GeminiProvider, make_provider, path_of

URL = "https://generativelanguage.googleapis.com"
ANSWER = {
    "candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}],
    "modelVersion": "gemini-2.5-flash",
}


class Wire:
    """Connections that keep what is sent over them."""

    def __init__(self, status: int = 200, body: Any = ANSWER) -> None:
        self.sent: list[tuple[UpstreamRequest, Attempt]] = []
        self._status = status
        self._body = json.dumps(body).encode()

    async def send(self, request: UpstreamRequest, attempt: Attempt) -> Reply:
        self.sent.append((request, attempt))
        return ScriptedReply(self._status, {}, deque([self._body]))


class Noon(Clock):
    def time(self) -> float:
        return 1700000000.9


def context(wire: Wire, **fields: Any) -> ProviderContext:
    settings = ProviderSettings.model_validate({"kind": "gemini", "base_url": URL, **fields})

    def no_client() -> Any:
        raise NotImplementedError

    return ProviderContext("google", settings, wire, no_client)


async def send(
    wire: Wire, body: dict[str, Any], model: str = "gemini-2.5-flash", **settings: Any
) -> tuple[UpstreamRequest, Attempt, Reply]:
    """Send a chat body that asks for `alias` to a deployment of `model`."""
    provider = make_provider(context(wire, **settings), Noon())
    whole = {"model": "alias", "messages": [{"role": "user", "content": "hi"}], **body}
    headers = {"authorization": "Bearer tk-client", "x-odd": "1"}
    exchange = Exchange(CHAT, "", headers, "test", 0.0)
    attempt = Attempt(Deployment("alias", "google", "gemini", model), 1, 0.0)
    attempt.operation, attempt.body = CHAT, json.dumps(whole).encode()
    reply = await provider.send(exchange, attempt)
    ((request, passed),) = wire.sent
    assert passed is attempt
    return request, attempt, reply


async def test_a_chat_is_a_post_with_our_key_in_a_header_and_an_id() -> None:
    request, attempt, _ = await send(Wire(), {}, credential="AIza-ours")
    assert request.method == "POST"
    assert request.path == "/v1beta/models/gemini-2.5-flash:generateContent"
    assert dict(request.headers) == {
        b"content-type": b"application/json",
        b"user-agent": b"tollkeeper",
        b"x-goog-api-key": b"AIza-ours",
        b"x-client-request-id": attempt.id.encode(),
    }
    assert json.loads(request.body) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


async def test_a_stream_is_asked_for_as_events() -> None:
    request, _, _ = await send(Wire(), {"stream": True}, api_version="v1")
    assert request.path == "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert b"x-goog-api-key" not in dict(request.headers)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro:generateContent"),
        ("../x", "/v1beta/models/..%2Fx:generateContent"),
        ("a?key=b#c d", "/v1beta/models/a%3Fkey%3Db%23c%20d:generateContent"),
        ("é\r\n", "/v1beta/models/%C3%A9%0D%0A:generateContent"),
    ],
)
async def test_nothing_in_the_name_of_a_model_leaves_its_place(model: str, path: str) -> None:
    request, _, _ = await send(Wire(), {}, model)
    assert request.path == path


def test_nothing_in_a_version_leaves_its_place() -> None:
    assert path_of("a/b", "m", stream=False) == "/a%2Fb/models/m:generateContent"


async def test_the_reply_comes_back_in_the_dialect_of_chat() -> None:
    _, _, reply = await send(Wire(), {})
    found = json.loads(await reply.read())
    assert found["choices"][0]["message"]["content"] == "hello"
    assert (found["created"], found["model"]) == (1700000000, "gemini-2.5-flash")


async def test_an_error_status_is_returned_for_the_core_to_judge() -> None:
    error = {"error": {"code": 404, "message": "no such model", "status": "NOT_FOUND"}}
    _, _, reply = await send(Wire(404, error), {})
    assert (reply.status, json.loads(await reply.read())) == (404, error)


async def test_what_was_dropped_is_told_to_the_attempt() -> None:
    _, attempt, _ = await send(Wire(), {"user": "u", "logit_bias": {"1": 1}}, unsupported="drop")
    assert attempt.dropped == ["logit_bias", "user"]


async def test_what_cannot_be_honoured_is_refused_before_a_byte_goes_upstream() -> None:
    wire = Wire()
    with pytest.raises(Refused) as caught:
        await send(wire, {"logit_bias": {"1": 1}})
    assert caught.value.param == "logit_bias"
    assert wire.sent == []


def test_chat_is_the_one_dialect_that_is_spoken() -> None:
    provider = make_provider(context(Wire()))
    assert isinstance(provider, GeminiProvider)
    assert provider.speaks("chat")
    assert not provider.speaks("messages")


def test_a_provider_without_an_address_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match=r"base_url.*https://"):
        make_provider(context(Wire(), base_url=""))


async def test_a_provider_without_an_address_stops_the_start_at_its_line() -> None:
    toml = '[providers.google]\nkind = "gemini"\n'
    with pytest.raises(ConfigError) as caught:
        async with open_gateway(toml=toml, plugins={"gemini": Gemini}):
            pass
    (problem,) = caught.value.problems
    assert problem.where == "<test>:2"
    assert "base_url" in problem.message
