"""LangChain's OpenAI integration, before models of three makers."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from clients.stage import HELLO, MODELS, Stage, stage
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

Chat = Callable[[str], ChatOpenAI]


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest.fixture(scope="module", name="on")
def stage_for_all() -> Iterator[Stage]:
    with stage() as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[openai.DefaultHttpxClient]:
    """LangChain keeps a client of its own for good; this one is closed."""
    with openai.DefaultHttpxClient() as client:
        yield client


@pytest.fixture(params=[False, True], ids=["chat", "responses"])
def chat(on: Stage, http: Any, request: pytest.FixtureRequest) -> Chat:
    return lambda model: ChatOpenAI(
        model=model,
        base_url=on.base_url,
        api_key=SecretStr(on.key),
        max_retries=0,
        stream_usage=True,
        use_responses_api=request.param,
        http_client=http,
    )


def text(message: Any) -> str:
    return str(message.text)


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_whole_and_streamed(chat: Chat, model: str) -> None:
    whole = chat(model).invoke("hello")
    assert text(whole) == HELLO
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["total_tokens"] == 18
    first, *rest = chat(model).stream("hello")
    assert len(rest) > 1
    for chunk in rest:
        first += chunk
    assert text(first) == HELLO
    assert first.usage_metadata is not None
    assert first.usage_metadata["output_tokens"] == 7
    assert first.response_metadata["model_name"] == model


@pytest.mark.parametrize("model", MODELS)
def test_a_tool_is_called_and_its_result_goes_back(chat: Chat, model: str) -> None:
    bound = chat(model).bind_tools([get_weather])
    called = bound.invoke("chatty")
    (call,) = called.tool_calls
    assert (call["name"], call["args"], call["id"]) == ("get_weather", {"city": "Paris"}, "call_1")
    assert text(called) == "Let me see."
    result = ToolMessage(get_weather("Paris"), tool_call_id="call_1")
    answer = bound.invoke([HumanMessage("chatty"), called, result])
    assert text(answer) == "It is sunny in Paris."


@pytest.mark.parametrize("model", MODELS)
def test_structured_output_is_parsed(chat: Chat, model: str) -> None:
    assert chat(model).with_structured_output(Person).invoke("structured") == Person(
        name="Ada", age=36
    )


@pytest.mark.parametrize("model", MODELS)
def test_errors_raise(chat: Chat, model: str) -> None:
    with pytest.raises(openai.RateLimitError, match="slow down"):
        chat(model).invoke("limited")
    with pytest.raises(openai.BadRequestError) as raised:
        chat(model).invoke("too long")
    assert raised.value.code == "context_length_exceeded"
    with pytest.raises(openai.APIError, match="broke off its reply"):
        list(chat(model).stream("cut"))


def test_vectors(on: Stage, http: Any) -> None:
    embeddings = OpenAIEmbeddings(
        model="gpt",
        base_url=on.base_url,
        api_key=SecretStr(on.key),
        check_embedding_ctx_length=False,
        http_client=http,
    )
    assert embeddings.embed_documents(["hello", "hello"]) == [[0.5, -0.25, 1.0]] * 2
