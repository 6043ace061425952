"""The newest openai-python's chat, before models of three makers."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import trio
from clients.stage import HELLO, MODELS, Stage, stage
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module", name="on")
def stage_for_all() -> Iterator[Stage]:
    with stage() as running:
        yield running


@pytest.fixture(scope="module")
def client(on: Stage) -> Iterator[OpenAI]:
    with OpenAI(base_url=on.base_url, api_key=on.key, max_retries=0) as client:
        yield client


def asking(model: str, content: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


def tokens(completion: ChatCompletion) -> tuple[int, int, int]:
    usage = completion.usage
    assert usage is not None
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


def answer(client: OpenAI, asked: dict[str, Any], *, streamed: bool) -> ChatCompletion:
    """The completion, whole or put together by the SDK."""
    if not streamed:
        completion: ChatCompletion = client.chat.completions.create(**asked)
        return completion
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        return stream.get_final_completion()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_with_its_usage(client: OpenAI, model: str, streamed: bool) -> None:
    completion = answer(client, asking(model), streamed=streamed)
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content) == ("assistant", HELLO)
    assert (completion.model, choice.finish_reason) == (model, "stop")
    assert tokens(completion) == (11, 7, 18)
    if not streamed:
        assert completion._request_id is not None
        assert completion._request_id.startswith("req_")


@pytest.mark.parametrize("model", MODELS)
def test_chunks_are_of_one_completion(client: OpenAI, model: str) -> None:
    chunks = list(client.chat.completions.create(**asking(model), stream=True))
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == HELLO
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_goes_back(
    client: OpenAI, model: str, streamed: bool
) -> None:
    asked = asking(model, "weather", tools=[WEATHER], tool_choice="required")
    completion = answer(client, asked, streamed=streamed)
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert (call.id, call.type, call.function.name) == ("call_1", "function", "get_weather")
    assert call.function.arguments == '{"city":"Paris"}'
    said = choice.message.model_dump(exclude_none=True, exclude={"parsed"})
    for told in said["tool_calls"]:
        told["function"].pop("parsed_arguments", None)
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    asked["messages"] += [said, result]
    final = answer(client, asked, streamed=streamed)
    assert final.choices[0].message.content == "It is sunny in Paris."


@pytest.mark.parametrize("model", MODELS)
def test_structured_output_is_parsed(client: OpenAI, model: str) -> None:
    asked = asking(model, "structured", response_format=Person)
    ada = Person(name="Ada", age=36)
    assert client.chat.completions.parse(**asked).choices[0].message.parsed == ada
    with client.chat.completions.stream(**asked) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == ada


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streamed", [False, True])
def test_thoughts_stand_beside_the_answer(client: OpenAI, model: str, streamed: bool) -> None:
    asked = asking(model, "think", reasoning_effort="low", max_completion_tokens=2048)
    message = answer(client, asked, streamed=streamed).choices[0].message
    assert message.content == "Four."
    assert message.model_dump()["reasoning_content"] == "Two and two."


ERRORS: list[tuple[str, type[openai.APIStatusError], int, str, str]] = [
    ("invalid", openai.BadRequestError, 400, "invalid_request", "temperature: out of range"),
    ("too long", openai.BadRequestError, 400, "context_length_exceeded", "prompt is too long: 9"),
    ("denied", openai.InternalServerError, 502, "server_error", "failed with status 401"),
    ("limited", openai.RateLimitError, 429, "rate_limit", "slow down"),
    ("broken", openai.InternalServerError, 502, "server_error", "failed with status 500"),
    ("busy", openai.InternalServerError, 503, "server_error", "overloaded"),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("content", "error", "status", "code", "message"), ERRORS)
def test_each_error_of_a_provider_raises_its_class(
    client: OpenAI,
    model: str,
    stream: bool,
    content: str,
    error: type[openai.APIStatusError],
    status: int,
    code: str,
    message: str,
) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(**asking(model, content), stream=stream)
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert message in raised.value.message
    assert raised.value.request_id is not None
    assert raised.value.request_id.startswith("req_")


def test_what_a_provider_cannot_honour_is_refused_by_name(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**asking("claude"), logit_bias={"1": 5})
    assert raised.value.param == "logit_bias"
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**asking("gemini"), logit_bias={"1": 5})
    assert raised.value.param == "logit_bias"


RETRIES = [
    ("claude", "busy", 2),
    ("gemini", "broken", 2),
    ("gpt", "unpaid", 1),
    ("gpt", "invalid", 1),
]


@pytest.mark.parametrize(("model", "content", "tries"), RETRIES)
def test_a_failure_is_retried_unless_no_retry_cures_it(
    on: Stage, model: str, content: str, tries: int
) -> None:
    content += " and counted"
    with OpenAI(base_url=on.base_url, api_key=on.key, max_retries=1) as client:
        with pytest.raises(openai.APIStatusError):
            client.chat.completions.create(**asking(model, content))
    assert len(on.asked(content)) == tries


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_that_is_cut_raises_after_what_came(client: OpenAI, model: str) -> None:
    pieces = []
    stream = client.chat.completions.create(**asking(model, "cut"), stream=True)
    with pytest.raises(openai.APIError, match="broke off its reply") as raised:
        pieces += [chunk.choices[0].delta.content for chunk in stream]
    assert raised.value.code == "server_error"
    with client.chat.completions.stream(**asking(model, "cut")) as helper:
        with pytest.raises(openai.APIError, match="broke off its reply"):
            helper.until_done()


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
        async with AsyncOpenAI(base_url=on.base_url, api_key=on.key, max_retries=0) as client:
            async with client.chat.completions.stream(**asking(model)) as stream:
                final = await stream.get_final_completion()
            assert final.choices[0].message.content == HELLO
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(**asking(model, "limited"))

    run(main)
