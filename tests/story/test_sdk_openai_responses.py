"""The newest openai-python's responses, before models of three makers and a native provider."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from clients.stage import HELLO, MODELS, Stage, stage
from openai import OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall
from pydantic import BaseModel

ALL = ("openai", *MODELS)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
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


def answer(client: OpenAI, *, streamed: bool, **asked: Any) -> Response:
    """The response, whole or put together by the SDK."""
    if not streamed:
        response: Response = client.responses.create(**asked)
        return response
    with client.responses.stream(**asked) as stream:
        return stream.get_final_response()


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_with_its_usage(client: OpenAI, model: str, streamed: bool) -> None:
    response = answer(client, model=model, input="hello", streamed=streamed)
    assert response.output_text == HELLO
    assert (response.model, response.status) == (model, "completed")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (11, 7)
    assert response.usage.total_tokens == 18
    if not streamed:
        assert response._request_id is not None
        assert response._request_id.startswith("req_")


@pytest.mark.parametrize("model", MODELS)
def test_events_come_in_order_and_numbered(client: OpenAI, model: str) -> None:
    events = list(client.responses.create(model=model, input="hello", stream=True))
    assert [event.type for event in events if not event.type.endswith(".delta")] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == HELLO
    assert len(deltas) > 1


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_goes_back(
    client: OpenAI, model: str, streamed: bool
) -> None:
    asked: dict[str, Any] = {"model": model, "tools": [WEATHER], "tool_choice": "required"}
    turns: list[Any] = [{"role": "user", "content": "weather"}]
    response = answer(client, input=turns, streamed=streamed, **asked)
    (call,) = response.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.call_id, call.name, call.arguments) == (
        "call_1",
        "get_weather",
        '{"city":"Paris"}',
    )
    turns += [item.model_dump(exclude={"parsed_arguments"}) for item in response.output]
    turns.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    final = answer(client, input=turns, streamed=streamed, **asked)
    assert final.output_text == "It is sunny in Paris."


@pytest.mark.parametrize("model", ALL)
def test_structured_output_is_parsed(client: OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "input": "structured", "text_format": Person}
    ada = Person(name="Ada", age=36)
    assert client.responses.parse(**asked).output_parsed == ada
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_parsed == ada


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streamed", [False, True])
def test_thoughts_come_before_the_text_and_go_back(
    client: OpenAI, model: str, streamed: bool
) -> None:
    asked: dict[str, Any] = {"model": model, "reasoning": {"effort": "low"}}
    turns: list[Any] = [{"role": "user", "content": "think"}]
    response = answer(client, input=turns, streamed=streamed, **asked)
    thought, message = response.output
    assert thought.type == "reasoning"
    assert [part.text for part in thought.summary] == ["Two and two."]
    assert message.type == "message"
    assert response.output_text == "Four."
    turns += [item.model_dump(exclude_none=True) for item in response.output]
    turns.append({"role": "user", "content": "hello"})
    assert answer(client, input=turns, streamed=streamed, **asked).output_text == HELLO


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_conversation_goes_on_from_a_kept_response(
    on: Stage, client: OpenAI, model: str, streamed: bool
) -> None:
    words = f"hello kept-{model}-{streamed}"
    first = answer(client, model=model, input=words, streamed=streamed)
    assert client.responses.retrieve(first.id).output_text == HELLO
    (item,) = client.responses.input_items.list(first.id).data
    assert item.type == "message"
    second = client.responses.create(model="claude", input="hello", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    *_, last = on.asked(words)
    assert last["path"] == "/v1/messages"
    assert [turn["role"] for turn in last["body"]["messages"]] == ["user", "assistant", "user"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


ERRORS: list[tuple[str, type[openai.APIStatusError], int, str]] = [
    ("invalid", openai.BadRequestError, 400, "invalid_request"),
    ("too long", openai.BadRequestError, 400, "context_length_exceeded"),
    ("limited", openai.RateLimitError, 429, "rate_limit"),
    ("broken", openai.InternalServerError, 502, "server_error"),
]


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("content", "error", "status", "code"), ERRORS)
def test_each_error_of_a_provider_raises_its_class(
    client: OpenAI,
    model: str,
    stream: bool,
    content: str,
    error: type[openai.APIStatusError],
    status: int,
    code: str,
) -> None:
    with pytest.raises(error) as raised:
        client.responses.create(model=model, input=content, stream=stream)
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert raised.value.request_id is not None


def test_what_chat_cannot_express_is_refused_by_name(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="claude", input="hello", tools=[{"type": "web_search"}])
    assert raised.value.param == "tools[0].type"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(model="unknown", input="hello")
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize(("content", "tries"), [("limited", 2), ("unpaid", 1)])
def test_a_failure_is_retried_unless_no_retry_cures_it(on: Stage, content: str, tries: int) -> None:
    content += " and counted"
    with OpenAI(base_url=on.base_url, api_key=on.key, max_retries=1) as client:
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model="gpt", input=content)
    assert len(on.asked(content)) == tries


@pytest.mark.parametrize("model", ALL)
def test_a_stream_that_is_cut_raises_after_what_came(client: OpenAI, model: str) -> None:
    stream = client.responses.create(model=model, input="cut", stream=True)
    assert next(stream).type == "response.created"
    with pytest.raises(openai.APIError, match="broke off its reply") as raised:
        list(stream)
    assert (raised.value.code, raised.value.type) == ("server_error", "server_error")
    with client.responses.stream(model=model, input="cut") as helper:
        with pytest.raises(openai.APIError, match="broke off its reply"):
            helper.get_final_response()
