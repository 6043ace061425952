"""The newest openai-python, changed in nothing but `base_url` and key."""

import asyncio

import openai
import pytest
import trio
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from processes import Demo

ANSWER = "This is tollkeeper's offline demo provider. You said: hello"


def said(content: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": content}]


def sync_client(demo: Demo) -> OpenAI:
    return OpenAI(base_url=demo.base_url, api_key=demo.key, max_retries=0)


def test_plain_and_streamed(demo: Demo) -> None:
    with sync_client(demo) as client:
        plain = client.chat.completions.create(model="demo", messages=said("hello"))
        assert plain.choices[0].message.content == ANSWER
        assert plain.usage is not None
        assert plain.usage.total_tokens == 13
        chunks = list(
            client.chat.completions.create(model="demo", messages=said("hello"), stream=True)
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == ANSWER
        assert all(c.usage is None for c in chunks)
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_usage_in_a_stream_when_asked_for(demo: Demo) -> None:
    with sync_client(demo) as client:
        *rest, last = client.chat.completions.create(
            model="demo",
            messages=said("hello"),
            stream=True,
            stream_options={"include_usage": True},
        )
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.total_tokens == 13
        assert all(chunk.usage is None for chunk in rest)


def test_the_accumulating_stream_helper(demo: Demo) -> None:
    with sync_client(demo) as client:
        with client.chat.completions.stream(model="demo", messages=said("hello")) as stream:
            assert stream.get_final_completion().choices[0].message.content == ANSWER


def test_models_with_their_prices(demo: Demo) -> None:
    with sync_client(demo) as client:
        (model,) = client.models.list().data
        assert (model.id, model.object, model.owned_by) == ("demo", "model", "tollkeeper")
        assert model.model_dump()["pricing"] == {"input": 0.15, "output": 0.6}
        assert client.models.retrieve("demo").created == model.created
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("org/none")


# The SDK leaves its generators to the garbage collector when a stream ends.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    "run", [trio.run, lambda main: asyncio.run(main())], ids=["trio", "asyncio"]
)
def test_the_async_client(demo: Demo, run: object) -> None:
    async def main() -> None:
        async with AsyncOpenAI(base_url=demo.base_url, api_key=demo.key, max_retries=0) as client:
            plain = await client.chat.completions.create(model="demo", messages=said("hello"))
            assert plain.choices[0].message.content == ANSWER
            text = ""
            async for chunk in await client.chat.completions.create(
                model="demo", messages=said("hello"), stream=True
            ):
                text += chunk.choices[0].delta.content or ""
            assert text == ANSWER
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="demo", messages=said("status 429"))

    assert callable(run)
    run(main)


ERRORS: list[tuple[str, str, type[openai.APIStatusError], int, str]] = [
    ("demo", "context", openai.BadRequestError, 400, "context_length_exceeded"),
    ("demo", "filter", openai.BadRequestError, 400, "content_filter"),
    ("demo", "status 429", openai.RateLimitError, 429, "rate_limit"),
    ("demo", "status 500", openai.InternalServerError, 502, "server_error"),
    ("demo", "status 401", openai.InternalServerError, 502, "server_error"),
    ("demo", "status 504", openai.InternalServerError, 504, "timeout"),
    ("demo", "cut 3", openai.InternalServerError, 502, "server_error"),
    ("unknown", "hello", openai.NotFoundError, 404, "model_not_found"),
]


@pytest.mark.parametrize(("model", "message", "error", "status", "code"), ERRORS)
def test_each_error_of_the_contract_raises_its_class(
    demo: Demo,
    model: str,
    message: str,
    error: type[openai.APIStatusError],
    status: int,
    code: str,
) -> None:
    with sync_client(demo) as client, pytest.raises(error) as raised:
        client.chat.completions.create(model=model, messages=said(message))
    assert (raised.value.status_code, raised.value.code, raised.value.type) == (status, code, code)
    assert raised.value.request_id
    assert raised.value.request_id.startswith("req_")


def test_a_wrong_key_raises_authentication_error(demo: Demo) -> None:
    wrong = OpenAI(base_url=demo.base_url, api_key="tk-wrong", max_retries=0)
    with wrong as client, pytest.raises(openai.AuthenticationError) as raised:
        client.models.list()
    assert (raised.value.code, raised.value.type) == ("auth_error", "auth_error")


def test_the_gateways_own_rate_limit_raises_rate_limit_error(other_demo: Demo) -> None:
    with sync_client(other_demo) as client:
        for _ in range(60):
            client.chat.completions.create(model="demo", messages=said("hello"))
        with pytest.raises(openai.RateLimitError) as raised:
            client.chat.completions.create(model="demo", messages=said("hello"))
    assert "Rate limit exceeded: 60 RPM" in raised.value.message
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 60


def test_a_stream_that_breaks_raises_after_what_came(other_demo: Demo) -> None:
    texts = []
    with sync_client(other_demo) as client:
        stream = client.chat.completions.create(model="demo", messages=said("cut 3"), stream=True)
        for _ in range(4):
            texts.append(next(stream).choices[0].delta.content)  # noqa: PERF401 -- it may raise
        with pytest.raises(openai.APIError) as raised:
            next(stream)
    assert texts == ["", "This", " is", " tollkeeper's"]
    assert raised.value.code == "server_error"
