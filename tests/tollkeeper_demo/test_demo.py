"""The demo provider behind a gateway: answers offline, and every failure it can be asked for."""

import json
from collections import Counter

import pytest
import trio
import trio.testing

from tollkeeper.testing import Answered, TestGateway, open_gateway

TOML = """
[providers.demo]
kind = "demo"
first_byte_timeout = 3
[models.demo]
deployments = [{ provider = "demo", model = "demo" }]
[models.alias]
deployments = [{ provider = "demo", model = "real" }]
[plugins.demo]
"""


async def ask(gateway: TestGateway, message: str, **fields: object) -> Answered:
    return await gateway.chat(message, **{"model": "demo", **fields})


async def test_the_demo_answers_alike_whole_and_streamed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_gateway(toml=TOML) as gateway:
        whole = await ask(gateway, "hello there")
        streamed = await ask(gateway, "hello there", stream=True)
    assert whole.text() == streamed.text()
    assert "hello there" in whole.text()
    assert whole.headers["content-type"] == "application/json"
    assert streamed.events()[-1] == "[DONE]"


async def test_a_stream_comes_at_a_pace_and_not_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_gateway(toml=TOML) as gateway:
        began = trio.current_time()
        streamed = await ask(gateway, "hello", stream=True)
        took = trio.current_time() - began
        assert took >= 0.01 * len(streamed.events())
        began = trio.current_time()
        await ask(gateway, "hello")
        assert trio.current_time() == began


async def test_the_reply_goes_by_the_name_that_was_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_gateway(toml=TOML) as gateway:
        reply = await ask(gateway, "hello", model="alias", stream=True)
        assert (await ask(gateway, "hello", model="alias")).json()["model"] == "alias"
    documents = [json.loads(event) for event in reply.events()[:-1]]
    assert Counter(document["model"] for document in documents) == {"alias": len(documents)}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ("status 400", 400, "invalid_request"),
        ("status 401", 502, "server_error"),
        ("status 429", 429, "rate_limit"),
        ("status 500", 502, "server_error"),
        ("status 504", 504, "timeout"),
        ("context", 400, "context_length_exceeded"),
        ("filter", 400, "content_filter"),
        ("slow 5", 504, "timeout"),
    ],
)
async def test_every_failure_that_is_asked_for_reaches_the_client_as_an_http_error(
    message: str, status: int, code: str, stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_gateway(toml=TOML) as gateway:
        reply = await ask(gateway, message, stream=stream)
    assert (reply.status, reply.code) == (status, code)


async def test_a_rate_limit_says_how_long_to_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_gateway(toml=TOML) as gateway:
        assert (await ask(gateway, "status 429")).headers["retry-after"] == "1"


async def test_a_slow_answer_comes_late_and_whole(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_gateway(toml=TOML) as gateway:
        began = trio.current_time()
        reply = await ask(gateway, "slow 2")
        assert trio.current_time() - began == 2
    assert "slow 2" in reply.text()


@pytest.mark.parametrize("words", [0, 1, 3])
async def test_a_stream_that_is_cut_has_that_many_words_then_an_error_and_its_end(
    words: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_gateway(toml=TOML) as gateway:
        reply = await ask(gateway, f"cut {words}", stream=True)
    *chunks, error, done = reply.events()
    assert reply.status == 200
    assert (
        len("".join(json.loads(c)["choices"][0]["delta"]["content"] for c in chunks).split())
        == words
    )
    assert json.loads(error)["error"]["code"] == "server_error"
    assert done == "[DONE]"


async def test_a_whole_reply_that_is_cut_is_an_http_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_gateway(toml=TOML) as gateway:
        reply = await ask(gateway, "cut 3")
    assert (reply.status, reply.code) == (502, "server_error")


async def test_usage_is_settled_in_every_case_and_shown_where_it_was_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_gateway(toml=TOML) as gateway:
        whole = await ask(gateway, "hello")
        silent = await ask(gateway, "hello", stream=True)
        asked = await ask(gateway, "hello", stream=True, stream_options={"include_usage": True})
        usages = [exchange.attempts[0].usage for exchange in gateway.settled]
    usage = whole.json()["usage"]
    assert not any("usage" in json.loads(event) for event in silent.events()[:-1])
    assert json.loads(asked.events()[-2])["usage"] == usage
    assert usages[0] == usages[2]
    assert usages[0]
    assert usages[0].input_tokens == usage["prompt_tokens"]
    assert usages[0].output_tokens == usage["completion_tokens"]
    assert usages[1] == usages[0], "the core knows what a stream used although nobody asked"
