"""What the provider sends upstream: its own headers, its own credential, the client's body."""

import json
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from tollkeeper._server.chat import CHAT
from tollkeeper.dialect import Dialect
from tollkeeper.errors import ConfigError, Refused
from tollkeeper.exchange import Attempt, Deployment, Exchange, Operation, Reply
from tollkeeper.provider import Provider, ProviderContext, UpstreamRequest
from tollkeeper.settings import ProviderSettings
from tollkeeper.testing import ScriptedReply, open_gateway
from tollkeeper_openai import OpenAIProvider, make_provider

URL = "https://api.openai.com/v1"


class Wire:
    """Connections that keep what is sent over them."""

    def __init__(self, reply: ScriptedReply | None = None) -> None:
        self.sent: list[tuple[UpstreamRequest, Attempt]] = []
        self._reply = reply or ScriptedReply(418, {}, deque([b"teapot"]))

    async def send(self, request: UpstreamRequest, attempt: Attempt) -> Reply:
        self.sent.append((request, attempt))
        return self._reply


def context(wire: Wire, **fields: Any) -> ProviderContext:
    settings = ProviderSettings.model_validate({"kind": "openai", "base_url": URL, **fields})

    def no_client() -> Any:
        raise NotImplementedError

    return ProviderContext("main", settings, wire, no_client)


def asking(body: bytes, operation: Operation = CHAT, **fields: Any) -> tuple[Exchange, Attempt]:
    """A call of `alias` with headers of its client, and its attempt at a deployment of `real`."""
    headers = {"authorization": "Bearer tk-client", "openai-organization": "org", "x-odd": "1"}
    exchange = Exchange(operation, "", headers, "test", 0.0, body=body)
    exchange.model = "alias"
    for name, value in fields.items():
        setattr(exchange, name, value)
    attempt = Attempt(Deployment("alias", "main", "openai", "real"), 1, 0.0)
    attempt.operation, attempt.body = operation, body
    return exchange, attempt


async def send(
    body: dict[str, Any], *, model: str = "real", stream: bool = False, wants: bool = False
) -> tuple[UpstreamRequest, Attempt, Reply]:
    """Send a chat body that asks for `alias` to a deployment of `model`."""
    wire = Wire()
    provider = make_provider(context(wire, credential="sk-ours"))
    exchange, attempt = asking(json.dumps(body).encode(), stream=stream, wants_usage=wants)
    attempt.deployment = replace(attempt.deployment, model=model)
    reply = await provider.send(exchange, attempt)
    ((request, passed),) = wire.sent
    assert passed is attempt
    return request, attempt, reply


def headers_of(request: UpstreamRequest) -> dict[bytes, bytes]:
    both = [*request.fixed_headers, *request.headers]
    assert len(dict(both)) == len(both), "no header is sent twice"
    return dict(both)


async def cured(preset: str, body: dict[str, Any], **fields: Any) -> tuple[dict[str, Any], Attempt]:
    """What a chat becomes that is sent to a service."""
    wire = Wire()
    exchange, attempt = asking(json.dumps(body).encode())
    await make_provider(context(wire, preset=preset, **fields)).send(exchange, attempt)
    return json.loads(wire.sent[0][0].body), attempt


CHAT_BODY = {"model": "alias", "messages": [], "odd": [1]}


async def test_a_chat_is_a_post_below_the_base_url_with_our_credential_and_an_id() -> None:
    request, attempt, _ = await send(CHAT_BODY)
    assert (request.method, request.path) == ("POST", "/chat/completions")
    assert headers_of(request) == {
        b"content-type": b"application/json",
        b"user-agent": b"tollkeeper",
        b"authorization": b"Bearer sk-ours",
        b"x-client-request-id": attempt.id.encode(),
    }


async def test_nothing_that_a_client_put_into_its_headers_goes_upstream() -> None:
    request, _, _ = await send(CHAT_BODY)
    assert b"tk-client" not in b"".join(headers_of(request).values())
    assert b"x-odd" not in headers_of(request)
    assert b"openai-organization" not in headers_of(request)


async def test_without_a_credential_none_is_sent() -> None:
    wire = Wire()
    await make_provider(context(wire)).send(*asking(b"{}"))
    assert b"authorization" not in headers_of(wire.sent[0][0])


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


class FormDialect(Dialect):
    """A dialect of something else than JSON, for whom a model is known too."""

    name = "audio"
    default_model = "known"

    def content_type(self, exchange: Exchange) -> str:
        return exchange.headers["x-odd"]

    def with_model(self, exchange: Exchange, body: bytes, model: str) -> bytes:
        return body + model.encode()


SPEECH = Operation("speech", "POST", "/v1/audio/speech", dialect=Dialect())
FORM = Operation("form", "POST", "/v1/audio/form", dialect=FormDialect())


async def test_a_body_that_is_no_json_goes_out_as_its_dialect_says() -> None:
    wire = Wire()
    exchange, attempt = asking(b"--form--", FORM)
    await make_provider(context(wire)).send(exchange, attempt)
    request = wire.sent[0][0]
    assert (request.path, request.body) == ("/audio/form", b"--form--real")
    assert headers_of(request)[b"content-type"] == b"1"


async def test_a_request_that_names_no_model_is_given_that_of_the_deployment() -> None:
    wire, images = Wire(), Dialect()
    images.default_model = "real"
    exchange, attempt = asking(b'{"prompt":"x"}', replace(SPEECH, dialect=images), model="real")
    await make_provider(context(wire)).send(exchange, attempt)
    assert json.loads(wire.sent[0][0].body) == {"prompt": "x", "model": "real"}


async def test_a_translated_chat_loses_what_the_service_does_not_know_and_it_is_listed() -> None:
    wire = Wire()
    exchange, attempt = asking(b"{}", SPEECH)
    attempt.operation = CHAT
    attempt.body = b'{"model":"alias","messages":[{"role":"user","cache_control":{}}]}'
    await make_provider(context(wire)).send(exchange, attempt)
    request = wire.sent[0][0]
    assert request.path == "/chat/completions"
    assert json.loads(request.body) == {"model": "real", "messages": [{"role": "user"}]}
    assert attempt.dropped == ["cache_control"]


async def test_a_chat_of_the_client_keeps_what_the_service_may_not_know() -> None:
    body = {"model": "alias", "messages": [{"role": "user", "cache_control": {}}]}
    request, attempt, _ = await send(body)
    assert json.loads(request.body) == {**body, "model": "real"}
    assert attempt.dropped == []


async def test_azure_takes_the_key_in_its_own_header_and_responses_as_they_are() -> None:
    wire, base_url = Wire(), "https://name.openai.azure.com/openai/v1"
    settings = context(wire, preset="azure", base_url=base_url, credential="key")
    provider = make_provider(settings)
    await provider.send(*asking(b"{}"))
    headers = headers_of(wire.sent[0][0])
    assert headers[b"api-key"] == b"key"
    assert b"authorization" not in headers
    assert wire.sent[0][0].path == "/chat/completions"
    assert speaks(provider, "responses")


async def test_azures_older_interface_has_the_deployment_in_its_path() -> None:
    wire, base_url = Wire(), "https://name.openai.azure.com"
    settings = context(
        wire, preset="azure-deployments", base_url=base_url, api_version="2025-01-01"
    )
    provider = make_provider(settings)
    await provider.send(*asking(b"{}", SPEECH))
    wanted = "/openai/deployments/real/audio/speech?api-version=2025-01-01"
    assert wire.sent[0][0].path == wanted
    assert not speaks(provider, "responses")


@pytest.mark.parametrize(
    ("base_url", "native"),
    [
        (URL, True),
        ("https://eu.api.openai.com/v1", True),
        ("https://api.openai.com.example.org/v1", False),
        ("https://myapi.openai.com/v1", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_openai_itself_is_known_by_its_address(base_url: str, native: bool) -> None:
    assert speaks(make_provider(context(Wire(), base_url=base_url)), "responses") is native


def speaks(provider: Provider, dialect: str) -> bool:
    assert isinstance(provider, OpenAIProvider)
    return provider.speaks(dialect)


async def test_mistral_refuses_stream_options_so_they_are_not_sent() -> None:
    wire = Wire()
    exchange, attempt = asking(json.dumps(CHAT_BODY).encode(), stream=True)
    await make_provider(context(wire, preset="mistral")).send(exchange, attempt)
    assert json.loads(wire.sent[0][0].body) == {**CHAT_BODY, "model": "real"}


async def test_mistral_and_llama_cpp_and_ollama_take_the_older_bound() -> None:
    for preset in ("mistral", "llama.cpp", "ollama"):
        sent, _ = await cured(preset, {**CHAT_BODY, "max_completion_tokens": 5})
        assert sent == {**CHAT_BODY, "model": "real", "max_tokens": 5}


async def test_vllm_refuses_stream_options_without_a_stream_so_they_are_not_sent() -> None:
    sent, _ = await cured("vllm", {**CHAT_BODY, "stream_options": {"include_usage": True}})
    assert sent == {**CHAT_BODY, "model": "real"}


@pytest.mark.parametrize("preset", ["", "openai", "groq", "xai", "bedrock", "together"])
async def test_a_service_without_quirks_gets_what_the_client_sent(preset: str) -> None:
    body = {**CHAT_BODY, "n": 2, "max_completion_tokens": 5, "stream_options": {}}
    assert (await cured(preset, body))[0] == {**body, "model": "real"}


ASKS = {"n": 2, "logprobs": True, "top_logprobs": 3, "logit_bias": {"1": 2}, "top_k": 4}
ASKS |= {"tool_choice": "required"}


@pytest.mark.parametrize("param", ASKS)
async def test_ollama_would_ignore_some_parameters_so_they_are_refused(param: str) -> None:
    with pytest.raises(Refused) as caught:
        await cured("ollama", {**CHAT_BODY, param: ASKS[param]})
    assert (caught.value.status, caught.value.param) == (400, param)


async def test_ollama_is_not_sent_what_it_would_ignore_where_that_may_be_dropped() -> None:
    body = {**CHAT_BODY, **ASKS, "temperature": 0.5}
    sent, attempt = await cured("ollama", body, unsupported="drop")
    assert sent == {**CHAT_BODY, "model": "real", "temperature": 0.5}
    assert sorted(attempt.dropped) == sorted(ASKS)


@pytest.mark.parametrize("preset", ["ollama", "mistral", "vllm", "llama.cpp"])
async def test_what_is_neither_chat_nor_completion_is_not_cured(preset: str) -> None:
    wire, body = Wire(), b'{"n":2,"seed":1,"stream_options":{},"max_completion_tokens":5}'
    await make_provider(context(wire, preset=preset)).send(*asking(body, SPEECH, model="real"))
    assert wire.sent[0][0].body == body


async def test_completions_are_cured_too() -> None:
    wire, dialect = Wire(), Dialect()
    dialect.name = "completions"
    exchange, attempt = asking(b'{"stream_options":{}}', replace(SPEECH, dialect=dialect))
    await make_provider(context(wire, preset="vllm")).send(exchange, attempt)
    assert json.loads(wire.sent[0][0].body) == {"model": "real"}


async def test_what_asks_ollama_for_nothing_goes_on() -> None:
    body = {**CHAT_BODY, "n": 1, "tool_choice": "auto", "logit_bias": {}, "logprobs": False}
    sent, attempt = await cured("ollama", body)
    assert sent == {**body, "model": "real"}
    assert attempt.dropped == []


async def test_what_cannot_be_read_is_refused_where_it_must_be_looked_into() -> None:
    wire = Wire()
    provider = make_provider(context(wire, preset="ollama"))
    with pytest.raises(Refused):
        await provider.send(*asking(b'{"n":1,"x":"\\ud800"}'))
    assert not wire.sent


@pytest.mark.parametrize(
    ("preset", "kept"),
    [
        ("deepseek", {"reasoning_content"}),
        ("openrouter", {"cache_control"}),
        ("gemini", {"extra_content"}),
        ("openai", set[str]()),
    ],
)
async def test_a_service_keeps_the_fields_of_others_that_it_knows(
    preset: str, kept: set[str]
) -> None:
    wire = Wire()
    exchange, attempt = asking(b"{}", SPEECH)
    message = {"reasoning_content": "x", "cache_control": {}, "extra_content": {}}
    attempt.operation = CHAT
    attempt.body = json.dumps({"model": "alias", "messages": [message]}).encode()
    await make_provider(context(wire, preset=preset)).send(exchange, attempt)
    (sent,) = json.loads(wire.sent[0][0].body)["messages"]
    assert sent.keys() == kept
    assert {*attempt.dropped} == message.keys() - kept


@pytest.mark.parametrize(
    ("preset", "operation", "tidied"),
    [
        ("ollama", CHAT, True),
        ("llama.cpp", CHAT, True),
        ("vllm", CHAT, True),
        ("openai", CHAT, False),
        ("vllm", SPEECH, False),
    ],
)
async def test_chat_replies_of_smaller_servers_are_put_in_order(
    preset: str, operation: Operation, tidied: bool
) -> None:
    event = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    reply = ScriptedReply(200, {"content-type": "text/event-stream"}, deque([event]))
    provider = make_provider(context(Wire(reply), preset=preset))
    passed = await (await provider.send(*asking(b"{}", operation))).chunk()
    if tidied:
        (choice,) = json.loads(passed[6:])["choices"]
        assert choice["index"] == 0
        assert choice["delta"] == {"content": "a", "role": "assistant"}
    else:
        assert passed == event


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


async def test_a_preset_brings_its_address_along() -> None:
    toml = '[plugins.openai]\n[providers.main]\nkind = "openai"\npreset = "groq"\n'
    async with open_gateway(toml=toml) as gateway:
        assert (await gateway.chat()).status == 200


async def test_a_preset_that_is_not_known_stops_the_start_with_the_nearest() -> None:
    toml = '[plugins.openai]\n[providers.main]\nkind = "openai"\npreset = "olama"\n'
    with pytest.raises(ConfigError, match="ollama"):
        async with open_gateway(toml=toml):
            pass
