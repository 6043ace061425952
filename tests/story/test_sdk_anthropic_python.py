"""The newest anthropic-python, before models of its own maker and of two others."""

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
import trio
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import MessageParam, ToolParam
from clients.stage import HELLO, MODELS, Stage, stage
from pydantic import BaseModel

WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
BROKEN_OFF = "The provider could not be reached or broke off its reply."


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module", name="on")
def stage_for_all() -> Iterator[Stage]:
    with stage() as running:
        yield running


@pytest.fixture(scope="module")
def client(on: Stage) -> Iterator[Anthropic]:
    with Anthropic(base_url=on.root_url, api_key=on.key, max_retries=0) as client:
        yield client


def asking(model: str, content: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 2048, "messages": said(content), **more}


def said(content: str) -> list[MessageParam]:
    return [{"role": "user", "content": content}]


def tokens(usage: anthropic.types.Usage) -> tuple[int, int]:
    return usage.input_tokens, usage.output_tokens


@pytest.mark.parametrize("model", MODELS)
def test_plain(client: Anthropic, model: str) -> None:
    message = client.messages.create(**asking(model))
    (block,) = message.content
    assert block.type == "text"
    assert block.text == HELLO
    assert (message.model, message.role, message.stop_reason) == (model, "assistant", "end_turn")
    assert tokens(message.usage) == (11, 7)
    assert message.id.startswith("msg_")
    assert message._request_id is not None
    assert message._request_id.startswith("req_")


@pytest.mark.parametrize("model", MODELS)
def test_streamed(on: Stage, client: Anthropic, model: str) -> None:
    with client.messages.stream(**asking(model)) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert "".join(pieces) == HELLO
    assert len(pieces) > 1
    assert message.stop_reason == "end_turn"
    assert message.model == model
    assert tokens(message.usage) == (11, 7)
    settled = next(e for e in on.served.settled if e.id == stream.request_id)
    assert settled.outcome is not None
    assert settled.outcome.kind == "completed"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_goes_back(
    on: Stage, client: Anthropic, model: str, streamed: bool
) -> None:
    asked = asking(model, "weather", tools=[WEATHER], tool_choice={"type": "any"})
    if streamed:
        with client.messages.stream(**asked) as stream:
            message: anthropic.types.Message = stream.get_final_message()
    else:
        message = client.messages.create(**asked)
    (call,) = message.content
    assert call.type == "tool_use"
    assert (call.id, call.name, call.input) == ("call_1", "get_weather", {"city": "Paris"})
    assert message.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": f"sunny-{model}-{streamed}"}
    turns: Any = [
        *said("weather"),
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    answer = client.messages.create(**{**asked, "messages": turns})
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == "It is sunny in Paris."
    assert len(on.asked(f"sunny-{model}-{streamed}")) == 1


@pytest.mark.parametrize("model", MODELS)
def test_the_tool_runner_comes_to_its_end(client: Anthropic, model: str) -> None:
    cities = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return "sunny"

    final = client.beta.messages.tool_runner(
        model=model,
        max_tokens=100,
        messages=[{"role": "user", "content": "weather"}],
        tools=[get_weather],
    ).until_done()
    assert cities == ["Paris"]
    (block,) = final.content
    assert block.type == "text"
    assert block.text == "It is sunny in Paris."


@pytest.mark.parametrize("model", MODELS)
def test_structured_output_is_parsed(on: Stage, client: Anthropic, model: str) -> None:
    message = client.messages.parse(**asking(model, "structured"), output_format=Person)
    assert message.parsed_output == Person(name="Ada", age=36)
    with client.messages.stream(**asking(model, "structured"), output_format=Person) as stream:
        assert stream.get_final_message().parsed_output == Person(name="Ada", age=36)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streamed", [False, True])
def test_thoughts_come_before_the_text(client: Anthropic, model: str, streamed: bool) -> None:
    asked = asking(model, "think", thinking={"type": "enabled", "budget_tokens": 1024})
    if streamed:
        with client.messages.stream(**asked) as stream:
            message: anthropic.types.Message = stream.get_final_message()
    else:
        message = client.messages.create(**asked)
    thought, text = message.content
    assert thought.type == "thinking"
    assert thought.thinking == "Two and two."
    assert text.type == "text"
    assert text.text == "Four."


ERRORS: list[tuple[str, type[anthropic.APIStatusError], int, str, str]] = [
    ("invalid", anthropic.BadRequestError, 400, "invalid_request_error", "out of range"),
    ("too long", anthropic.BadRequestError, 400, "invalid_request_error", "prompt is too long: 9"),
    ("denied", anthropic.InternalServerError, 502, "api_error", "failed with status 401"),
    ("limited", anthropic.RateLimitError, 429, "rate_limit_error", "slow down"),
    ("broken", anthropic.InternalServerError, 502, "api_error", "failed with status 500"),
    ("busy", anthropic.InternalServerError, 503, "overloaded_error", "overloaded"),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("content", "error", "status", "kind", "message"), ERRORS)
def test_each_error_raises_its_class(
    client: Anthropic,
    model: str,
    content: str,
    error: type[anthropic.APIStatusError],
    status: int,
    kind: str,
    message: str,
) -> None:
    with pytest.raises(error) as raised:
        client.messages.create(**asking(model, content))
    assert (raised.value.status_code, raised.value.type) == (status, kind)
    assert message in str(raised.value)
    assert raised.value.request_id is not None
    assert raised.value.request_id.startswith("req_")


def test_errors_of_the_gateway_itself(on: Stage, client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(**asking("unknown"))
    assert unknown.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="inference_geo"):
        client.messages.create(**asking("gpt", extra_body={"inference_geo": "eu"}))
    with pytest.raises(anthropic.BadRequestError, match="count_tokens"):
        client.messages.count_tokens(model="gemini", messages=said("hello"))
    wrong = Anthropic(base_url=on.root_url, api_key="tk-wrong", max_retries=0)
    with wrong, pytest.raises(anthropic.AuthenticationError) as denied:
        wrong.messages.create(**asking("claude"))
    assert denied.value.type == "authentication_error"
    assert denied.value.request_id is not None


def test_a_key_may_come_as_a_bearer(on: Stage) -> None:
    with Anthropic(base_url=on.root_url, auth_token=on.key, max_retries=0) as client:
        assert client.messages.create(**asking("claude")).stop_reason == "end_turn"


RETRIES = [
    ("claude", "busy", 2),
    ("gpt", "limited", 2),
    ("gpt", "unpaid", 1),
    ("gemini", "invalid", 1),
]


@pytest.mark.parametrize(("model", "content", "tries"), RETRIES)
def test_a_failure_is_retried_unless_no_retry_cures_it(
    on: Stage, model: str, content: str, tries: int
) -> None:
    content += " and counted"
    with Anthropic(base_url=on.root_url, api_key=on.key, max_retries=1) as client:
        with pytest.raises(anthropic.APIStatusError):
            client.messages.create(**asking(model, content))
    assert len(on.asked(content)) == tries


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_that_is_cut_raises(client: Anthropic, model: str) -> None:
    with client.messages.stream(**asking(model, "cut")) as stream:
        with pytest.raises(anthropic.APIStatusError) as raised:
            stream.until_done()
        assert stream.current_message_snapshot.stop_reason is None
    assert raised.value.type == "api_error"
    assert BROKEN_OFF in str(raised.value)
    assert raised.value.request_id == stream.request_id


# The SDK leaves its generators to the garbage collector when a stream ends.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "run", [trio.run, lambda main: asyncio.run(main())], ids=["trio", "asyncio"]
)
def test_the_async_client(on: Stage, run: Any, model: str) -> None:
    async def main() -> None:
        async with AsyncAnthropic(base_url=on.root_url, api_key=on.key, max_retries=0) as client:
            plain = await client.messages.create(**asking(model))
            assert plain.stop_reason == "end_turn"
            async with client.messages.stream(**asking(model)) as stream:
                assert "".join([text async for text in stream.text_stream]) == HELLO
            with pytest.raises(anthropic.RateLimitError):
                await client.messages.create(**asking(model, "limited"))
            with pytest.raises(anthropic.APIStatusError, match="broke off"):
                async with client.messages.stream(**asking(model, "cut")) as stream:
                    await stream.until_done()

    run(main)
