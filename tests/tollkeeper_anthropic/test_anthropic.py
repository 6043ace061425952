"""What the provider sends upstream: chats translated, native bodies as they came."""

import json
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from tollkeeper._server.chat import CHAT, ChatDialect
from tollkeeper.errors import Refused
from tollkeeper.exchange import Attempt, Deployment, Exchange, Operation, Reply
from tollkeeper.provider import ProviderContext, UpstreamRequest
from tollkeeper.settings import ProviderSettings
from tollkeeper.testing import JumpClock, ScriptedReply
from tollkeeper_anthropic import AnthropicProvider, make_provider
from tollkeeper_anthropic.settings import AnthropicSettings

URL = "https://api.anthropic.com"
MESSAGE = (
    b'{"id":"msg_1","type":"message","model":"claude-opus-4-8","content":'
    b'[{"type":"text","text":"hi"}],"stop_reason":"end_turn",'
    b'"usage":{"input_tokens":3,"output_tokens":1}}'
)
NATIVE_BODY = (
    b'{ "model":"alias", "max_tokens": 5,\t"messages":[{"role":"user","content":"\\u00e9"}] }'
)
CHAT_BODY = {"model": "alias", "messages": [{"role": "user", "content": "hi"}]}


class MessagesDialect(ChatDialect):
    """Enough of the dialect for a provider: its name."""

    name = "messages"


MESSAGES = replace(CHAT, path="/v1/messages", dialect=MessagesDialect())
COUNT = replace(MESSAGES, path="/v1/messages/count_tokens")


class Wire:
    """Connections that keep what is sent over them."""

    def __init__(self, status: int = 200, body: bytes = MESSAGE) -> None:
        self.sent: list[tuple[UpstreamRequest, Attempt]] = []
        self.reply = ScriptedReply(status, {"x-from": "upstream"}, deque([body]))

    async def send(self, request: UpstreamRequest, attempt: Attempt) -> Reply:
        self.sent.append((request, attempt))
        return self.reply


def provider_over(wire: Wire, **fields: Any) -> AnthropicProvider:
    values = {"kind": "anthropic", "base_url": URL, "credential": "sk-ant-ours", **fields}
    settings = ProviderSettings.model_validate(values)

    def no_client() -> Any:
        raise NotImplementedError

    context = ProviderContext("main", settings, wire, no_client)
    provider = make_provider(context, AnthropicSettings(max_tokens=77), JumpClock())
    assert isinstance(provider, AnthropicProvider)
    return provider


async def send(
    body: bytes, operation: Operation = CHAT, model: str = "claude-opus-4-8", **fields: Any
) -> tuple[UpstreamRequest, Attempt, Reply, Wire]:
    wire = Wire()
    provider = provider_over(wire, **fields)
    headers = {
        "authorization": "Bearer tk-client",
        "x-api-key": "tk-client",
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "context-1m,files",
    }
    exchange = Exchange(operation, "", headers, "test", 0.0, body=body)
    exchange.model = "alias"
    attempt = Attempt(Deployment("alias", "main", "anthropic", model), 1, 0.0)
    attempt.operation, attempt.body = operation, body
    reply = await provider.send(exchange, attempt)
    ((request, passed),) = wire.sent
    assert passed is attempt
    return request, attempt, reply, wire


async def test_a_chat_goes_out_translated_with_our_credential_and_the_pinned_version() -> None:
    request, attempt, _, _ = await send(json.dumps(CHAT_BODY).encode())
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert dict(request.headers) == {
        b"content-type": b"application/json",
        b"user-agent": b"tollkeeper",
        b"anthropic-version": b"2023-06-01",
        b"x-api-key": b"sk-ant-ours",
        b"x-client-request-id": attempt.id.encode(),
    }
    assert json.loads(request.body) == {
        "model": "claude-opus-4-8",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_tokens": 77,
    }


async def test_the_reply_to_a_chat_is_a_chats_reply() -> None:
    _, _, reply, _ = await send(json.dumps(CHAT_BODY).encode())
    document = json.loads(await reply.read())
    assert reply.headers["x-from"] == "upstream"
    assert document["choices"][0]["message"]["content"] == "hi"
    assert document["created"] == int(JumpClock().time())


async def test_an_error_status_is_returned_for_the_core_to_judge() -> None:
    wire = Wire(429, b"busy")
    provider = provider_over(wire)
    exchange = Exchange(CHAT, "", {}, "test", 0.0)
    attempt = Attempt(Deployment("alias", "main", "anthropic", "m"), 1, 0.0)
    attempt.operation, attempt.body = CHAT, json.dumps(CHAT_BODY).encode()
    assert await provider.send(exchange, attempt) is wire.reply


async def test_what_cannot_be_honoured_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(Refused) as caught:
        await send(json.dumps({**CHAT_BODY, "seed": 1}).encode())
    assert caught.value.param == "seed"


async def test_what_cannot_be_honoured_is_dropped_and_noted_where_the_operator_chose_so() -> None:
    body = json.dumps({**CHAT_BODY, "seed": 1, "metadata": {}}).encode()
    request, attempt, _, _ = await send(body, unsupported="drop")
    assert attempt.dropped == ["seed", "metadata"]
    assert "seed" not in json.loads(request.body)


@pytest.mark.parametrize("operation", [MESSAGES, COUNT])
async def test_a_native_body_and_its_reply_pass_but_for_the_models_name(
    operation: Operation,
) -> None:
    request, _, reply, wire = await send(NATIVE_BODY, operation)
    assert request.path == operation.path
    assert request.body == NATIVE_BODY.replace(b'"alias"', b'"claude-opus-4-8"')
    assert reply is wire.reply
    request, _, _, _ = await send(NATIVE_BODY, operation, model="alias")
    assert request.body == NATIVE_BODY


async def test_of_a_native_clients_headers_only_its_betas_go_upstream() -> None:
    request, _, _, _ = await send(NATIVE_BODY, MESSAGES)
    headers = dict(request.headers)
    assert headers[b"anthropic-beta"] == b"context-1m,files"
    assert headers[b"anthropic-version"] == b"2023-06-01"
    assert headers[b"x-api-key"] == b"sk-ant-ours"
    assert b"authorization" not in headers


async def test_the_operator_may_name_another_version_and_no_credential() -> None:
    request, _, _, _ = await send(NATIVE_BODY, MESSAGES, api_version="2099-01-01", credential=None)
    headers = dict(request.headers)
    assert headers[b"anthropic-version"] == b"2099-01-01"
    assert b"x-api-key" not in headers


def test_it_speaks_chat_and_messages_only() -> None:
    provider = provider_over(Wire())
    assert [provider.speaks(name) for name in ("chat", "messages", "embeddings", "")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_provider_without_an_address_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match=r"base_url.*https://api.anthropic.com"):
        provider_over(Wire(), base_url="")
