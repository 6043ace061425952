"""Replies judged before anyone sees them, while another attempt can still be made."""

import json
from collections import deque
from collections.abc import Mapping

import pytest

from tollkeeper._server.chat import CHAT, CHAT_DIALECT
from tollkeeper._server.pipeline import Pipeline, collect_steps
from tollkeeper._server.sending import Sender
from tollkeeper.errors import Refused, UpstreamError
from tollkeeper.exchange import Attempt, Deployment, Exchange, Reply
from tollkeeper.hookspecs import empty_collection, hookimpl
from tollkeeper.provider import Clock
from tollkeeper.sse import MAX_EVENT
from tollkeeper.testing import (
    DONE,
    ScriptedReply,
    ScriptedUpstream,
    chunk,
    completion,
    open_gateway,
)

JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream; charset=utf-8"}


class Upstream:
    """A provider with one reply, or one error, for every request."""

    def __init__(self, answer: ScriptedReply | Exception) -> None:
        self.answer = answer
        self.asked = 0

    async def send(self, exchange: Exchange, attempt: Attempt) -> Reply:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def scripted(
    *parts: bytes | Exception, status: int = 200, headers: Mapping[str, str] = JSON
) -> ScriptedReply:
    return ScriptedReply(status, headers, deque(parts))


def new_exchange() -> Exchange:
    exchange = Exchange(CHAT, "", {}, "test", 0.0)
    exchange.deployment = Deployment("m", "one", "toy", "x")
    return exchange


async def send(upstream: Upstream, exchange: Exchange, plugin: object = None) -> Reply:
    manager = empty_collection()
    if plugin is not None:
        manager.register(plugin, "toy")
    sender = Sender({"one": upstream}, Clock())
    sender.pipeline = Pipeline(collect_steps(manager, {}), sender.send)
    return await sender.send(exchange)


async def error_of(answer: ScriptedReply | Exception) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await send(Upstream(answer), new_exchange())
    return caught.value


async def all_of(reply: Reply) -> bytes:
    parts = []
    while part := await reply.chunk():
        parts.append(part)
    return b"".join(parts)


def error_event(**error: object) -> bytes:
    return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"


async def test_a_whole_body_arrives_as_it_came_and_its_usage_is_noted() -> None:
    body = b'\n\n{"choices": [], "usage": {"prompt_tokens": 1}, "odd":\t1}\n'
    for read in (True, False):
        exchange = new_exchange()
        reply = await send(Upstream(scripted(body[:9], body[9:])), exchange)
        assert await (reply.read() if read else all_of(reply)) == body
        assert exchange.attempts[0].usage_data == b'{"prompt_tokens": 1}'


@pytest.mark.parametrize("status", [400, 401, 404, 408, 429, 500, 529, 599])
async def test_an_error_status_is_an_error_with_all_that_the_upstream_said(status: int) -> None:
    headers = {**JSON, "retry-after": "7"}
    error = await error_of(scripted(b'{"error"', b": 1}", status=status, headers=headers))
    assert (error.fault, error.status, error.body) == ("status", status, b'{"error": 1}')
    assert error.retry_after == 7


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 304])
async def test_a_status_that_means_nothing_here_is_a_broken_reply(status: int) -> None:
    error = await error_of(scripted(b"{}", status=status, headers={**JSON, "location": "/x"}))
    assert error.fault == "broken"
    assert error.retryable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"<html>busy</html>",
        b"[]",
        b"null",
        b'"ok"',
        b'{"choices": [',
        b'{"choices": []} and more',
        b"\xff\xfe",
        pytest.param(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"),
    ],
)
async def test_a_body_that_is_no_json_object_is_a_broken_reply(body: bytes) -> None:
    assert (await error_of(scripted(body))).fault == "broken"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429}, 429),
        ({"status": 503, "code": "x"}, 503),
        ({"code": "rate_limit_exceeded"}, 429),
        ({"code": "insufficient_quota"}, 429),
        ({"code": None, "type": "server_error"}, 500),
        ({"type": "overloaded_error"}, 529),
        ({"code": "timeout"}, 504),
        ({"code": "context_length_exceeded"}, 400),
        ({"code": 200}, 200),
        ({"code": 12345}, 200),
        ({"code": ["odd"], "status": {"odd": 1}, "type": 1.5}, 200),
        ({}, 200),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_error_in_a_200_is_an_error_with_the_status_that_it_names(
    error: dict[str, object], status: int, streamed: bool
) -> None:
    document = json.dumps({"error": error}).encode()
    reply = scripted(error_event(**error), headers=SSE) if streamed else scripted(document)
    found = await error_of(reply)
    assert (found.fault, found.status, found.body) == ("status", status, document)


@pytest.mark.parametrize("error", ["boom", 5, [1]])
async def test_an_error_in_a_200_may_be_of_any_type(error: object) -> None:
    found = await error_of(scripted(json.dumps({"error": error, "choices": None}).encode()))
    assert found.fault == "status"


async def test_an_error_of_null_is_none() -> None:
    body = json.dumps({**completion(), "error": None}).encode()
    assert await (await send(Upstream(scripted(body)), new_exchange())).read() == body
    event = b'data: {"choices": [], "error": null}\n\n'
    reply = await send(Upstream(scripted(event, headers=SSE)), new_exchange())
    assert await all_of(reply) == event


@pytest.mark.parametrize(
    "parts",
    [
        [chunk("a"), chunk("b"), DONE],
        [b": one\n\n", b": two\n\n", chunk("a"), DONE],
        [b": one\n\n" + chunk("a")[:9], chunk("a")[9:] + chunk("b")[:5], chunk("b")[5:]],
        [chunk("a").replace(b"\n", b"\r\n"), DONE],
        [b"retry: 1\n\nevent: x\n\n" + chunk("a") + chunk("b") + DONE],
        [chunk('an "error" in words'), DONE],
        [chunk("a"), error_event(message="late")],
    ],
)
async def test_a_stream_arrives_as_it_came_once_its_first_event_is_here(
    parts: list[bytes],
) -> None:
    given = scripted(*parts, headers=SSE)
    reply = await send(Upstream(given), new_exchange())
    assert await all_of(reply) == b"".join(parts)


async def test_a_stream_is_not_read_beyond_its_first_event() -> None:
    given = scripted(b": one\n\n", chunk("a"), chunk("b"), DONE, headers=SSE)
    await send(Upstream(given), new_exchange())
    assert list(given.parts) == [chunk("b"), DONE]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b": one\n\n"],
        [b"data: [DONE]\n\n"],
        [b": one\n\nretry: 5\n\n", b"data: [DONE]\n\n"],
        [chunk("a")[:-1]],
        [b"<html>busy</html>"],
    ],
)
async def test_a_stream_that_ends_before_its_first_event_is_a_broken_reply(
    parts: list[bytes],
) -> None:
    assert (await error_of(scripted(*parts, headers=SSE))).fault == "broken"


async def test_an_error_event_behind_comments_is_still_the_first() -> None:
    error = await error_of(scripted(b": one\n\n: two\n\n" + error_event(code=429), headers=SSE))
    assert error.status == 429


async def test_a_first_event_that_does_not_end_is_a_broken_reply() -> None:
    parts = [b"data: "] + [b"x" * 2**16] * (MAX_EVENT // 2**16 + 1)
    assert (await error_of(scripted(*parts, headers=SSE))).fault == "broken"


@pytest.mark.parametrize("headers", [JSON, SSE])
async def test_a_reply_that_breaks_off_is_the_error_that_it_is(headers: dict[str, str]) -> None:
    broken = UpstreamError("timeout", "no more came")
    assert await error_of(scripted(b'{"a"', broken, headers=headers)) is broken


async def test_whether_a_reply_streams_is_read_from_its_type_and_not_from_the_request() -> None:
    exchange = new_exchange()
    exchange.stream = True
    body = json.dumps(completion()).encode()
    reply = await send(Upstream(scripted(body)), exchange)
    assert await reply.read() == body
    other = new_exchange()
    reply = await send(Upstream(scripted(chunk("a"), headers=SSE)), other)
    assert await all_of(reply) == chunk("a")


@pytest.mark.parametrize(
    "answer",
    [
        scripted(b"{}", status=500),
        scripted(b"no"),
        scripted(headers=SSE),
        scripted(b"", status=302),
    ],
)
async def test_a_reply_that_was_refused_is_still_there_to_be_closed(answer: ScriptedReply) -> None:
    exchange = new_exchange()
    with pytest.raises(UpstreamError) as caught:
        await send(Upstream(answer), exchange)
    assert exchange.replies == [answer]
    (attempt,) = exchange.attempts
    assert attempt.error is caught.value
    assert attempt.status == answer.status


async def test_each_try_is_an_attempt_of_its_own() -> None:
    exchange = new_exchange()
    nobody = UpstreamError("connect", "nobody there")
    for _ in range(2):
        with pytest.raises(UpstreamError):
            await send(Upstream(nobody), exchange)
    await send(Upstream(scripted(b"{}")), exchange)
    assert [attempt.number for attempt in exchange.attempts] == [1, 2, 3]
    assert [attempt.error for attempt in exchange.attempts] == [nobody, nobody, None]
    assert [attempt.status for attempt in exchange.attempts] == [0, 0, 200]
    assert {attempt.deployment for attempt in exchange.attempts} == {exchange.deployment}
    assert len({attempt.id for attempt in exchange.attempts}) == 3
    assert len(exchange.replies) == 1


async def test_a_plugin_that_refuses_the_attempt_keeps_everything_from_going_upstream() -> None:
    class Refusing:
        @hookimpl
        async def attempt(self, exchange: Exchange, attempt: Attempt) -> None:
            assert exchange.attempts == [attempt]
            raise Refused(429, "rate_limit", "no room")

    exchange, upstream = new_exchange(), Upstream(scripted(b"{}"))
    with pytest.raises(Refused) as caught:
        await send(upstream, exchange, Refusing())
    assert upstream.asked == 0
    (attempt,) = exchange.attempts
    assert (attempt.error, attempt.sent, attempt.status) == (caught.value, False, 0)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"error": {"a": 1}}', True),
        (b'{"choices": [], "error": "x"}', True),
        (b'{"error": null}', False),
        (b'{"choices": [{"error": {"a": 1}}]}', False),
        (b'{"text": "an \\"error\\": {"}', False),
        (b'"error"', False),
        (b"[DONE]", False),
        (b"", False),
    ],
)
def test_only_an_error_at_the_top_of_an_event_is_one(data: bytes, found: bool) -> None:
    assert CHAT_DIALECT.error_in(data) == (data if found else None)


@pytest.mark.parametrize(
    ("status", "healthy"), [(200, True), (400, True), (429, True), (401, False), (500, False)]
)
async def test_a_provider_is_healthy_while_what_it_says_is_about_the_request(
    status: int, healthy: bool
) -> None:
    upstream = ScriptedUpstream()
    upstream.reply(completion() if status == 200 else {}, status=status)
    async with open_gateway(upstream) as gateway:
        assert gateway.generations.shared.healthy == {}
        await gateway.chat()
        assert gateway.generations.shared.healthy == {"scripted": healthy}
