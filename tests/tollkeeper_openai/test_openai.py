"""What the provider sends upstream: its own headers, its own credential, the client's body."""

import json
from collections import deque
from typing import Any

import pytest

from tollkeeper._server.chat import CHAT
from tollkeeper.errors import ConfigError
from tollkeeper.exchange import Attempt, Deployment, Exchange, Reply
from tollkeeper.gateway import ProviderContext, UpstreamRequest
from tollkeeper.settings import ProviderSettings
from tollkeeper.testing import ScriptedReply, open_gateway
from tollkeeper_openai import make_provider

URL = "https://api.openai.com/v1"


class Wire:
    """Connections that keep what is sent over them."""

    def __init__(self) -> None:
        self.sent: list[tuple[UpstreamRequest, Attempt]] = []

    async def send(self, request: UpstreamRequest, attempt: Attempt) -> Reply:
        self.sent.append((request, attempt))
        return ScriptedReply(418, {}, deque([b"teapot"]))


def context(wire: Wire, **fields: Any) -> ProviderContext:
    settings = ProviderSettings.model_validate({"kind": "openai", "base_url": URL, **fields})

    def no_client() -> Any:
        raise NotImplementedError

    return ProviderContext("main", settings, wire, no_client)


async def send(
    body: dict[str, Any], *, model: str = "real", stream: bool = False, wants: bool = False
) -> tuple[UpstreamRequest, Attempt, Reply]:
    """Send a chat body that asks for `alias` to a deployment of `model`."""
    wire = Wire()
    provider = make_provider(context(wire, credential="sk-ours"))
    headers = {"authorization": "Bearer tk-client", "openai-organization": "org", "x-odd": "1"}
    exchange = Exchange(CHAT, "", headers, "test", 0.0, body=json.dumps(body).encode())
    exchange.model, exchange.stream, exchange.wants_usage = "alias", stream, wants
    attempt = Attempt(Deployment("alias", "main", "openai", model), 1, 0.0)
    reply = await provider.send(exchange, attempt)
    ((request, passed),) = wire.sent
    assert passed is attempt
    return request, attempt, reply


CHAT_BODY = {"model": "alias", "messages": [], "odd": [1]}


async def test_a_chat_is_a_post_below_the_base_url_with_our_credential_and_an_id() -> None:
    request, attempt, _ = await send(CHAT_BODY)
    assert (request.method, request.path) == ("POST", "/chat/completions")
    assert dict(request.headers) == {
        b"content-type": b"application/json",
        b"user-agent": b"tollkeeper",
        b"authorization": b"Bearer sk-ours",
        b"x-client-request-id": attempt.id.encode(),
    }


async def test_nothing_that_a_client_put_into_its_headers_goes_upstream() -> None:
    request, _, _ = await send(CHAT_BODY)
    assert b"tk-client" not in b"".join(name + value for name, value in request.headers)
    assert b"x-odd" not in dict(request.headers)
    assert b"openai-organization" not in dict(request.headers)


async def test_without_a_credential_none_is_sent() -> None:
    wire = Wire()
    provider = make_provider(context(wire))
    exchange = Exchange(CHAT, "", {"authorization": "Bearer tk-client"}, "test", 0.0, body=b"{}")
    await provider.send(exchange, Attempt(Deployment("m", "main", "openai", "m"), 1, 0.0))
    assert b"authorization" not in dict(wire.sent[0][0].headers)


async def test_the_body_asks_for_the_model_that_the_upstream_knows() -> None:
    request, _, _ = await send(CHAT_BODY)
    assert json.loads(request.body) == {**CHAT_BODY, "model": "real"}
    request, _, _ = await send(CHAT_BODY, model="alias")
    assert request.body == json.dumps(CHAT_BODY).encode()


@pytest.mark.parametrize(
    ("stream", "wants", "added"), [(True, False, True), (True, True, False), (False, False, False)]
)
async def test_usage_is_asked_for_in_every_stream_and_only_there(
    stream: bool, wants: bool, added: bool
) -> None:
    request, _, _ = await send(CHAT_BODY, model="alias", stream=stream, wants=wants)
    sent = json.loads(request.body)
    assert sent.pop("stream_options", None) == ({"include_usage": True} if added else None)
    assert sent == CHAT_BODY


async def test_an_error_status_is_returned_for_the_core_to_judge() -> None:
    _, _, reply = await send(CHAT_BODY)
    assert (reply.status, await reply.read()) == (418, b"teapot")


def test_a_provider_without_an_address_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match=r"base_url.*https://"):
        make_provider(context(Wire(), base_url=""))


async def test_a_provider_without_an_address_stops_the_start_at_its_line() -> None:
    toml = '[plugins.openai]\n[providers.main]\nkind = "openai"\n'
    with pytest.raises(ConfigError) as caught:
        async with open_gateway(toml=toml):
            pass
    (problem,) = caught.value.problems
    assert problem.where == "<test>:2"
    assert "main" in problem.message
    assert "base_url" in problem.message


async def test_without_the_plugin_nobody_speaks_its_kind() -> None:
    with pytest.raises(ConfigError, match='unknown provider kind "openai"'):
        async with open_gateway(toml=f'[providers.main]\nkind = "openai"\nbase_url = "{URL}"\n'):
            pass
