"""An unmodified client talks through the gateway to a real HTTP upstream."""

import json

import pytest
import trio
from harness import (
    DONE,
    STREAM_HEAD,
    RawUpstream,
    Received,
    http_chunk,
    http_reply,
    openai_toml,
    raw_upstream,
    replying,
    serve,
    streaming,
)

from tollkeeper._server.link import Link
from tollkeeper.testing import chunk, completion, usage_chunk

GUARDED = "[plugins.keys]\n[plugins.limits]\nrpm = 1000\n[plugins.routing]\nbackoff = 0.01\n"


def body_of(document: object) -> bytes:
    return json.dumps(document).encode()


async def test_a_plain_reply_passes_byte_for_byte() -> None:
    odd = b'{ "choices" : [ ], "model":"m" , "x_unknown": [1, 2.50, "\\u00e9"], "usage":null }\n'
    async with raw_upstream(replying(http_reply(odd))) as upstream:
        async with serve(openai_toml(upstream, plugins=GUARDED)) as gateway:
            reply = await gateway.chat()
    assert (reply.status, reply.body) == (200, odd)
    assert reply.headers["content-type"] == "application/json"


async def test_a_plain_request_reaches_the_upstream_byte_for_byte_with_our_credential() -> None:
    async with raw_upstream(replying(http_reply(body_of(completion())))) as upstream:
        async with serve(openai_toml(upstream, plugins=GUARDED)) as gateway:
            body = b'{"model":"m",  "messages":[], "temperature": 0.70, "brand_new": {"a":[1]}}'
            head = gateway.head("POST", "/v1/chat/completions", {"content-length": str(len(body))})
            assert (await gateway.ask(head + body)).status == 200
            received = upstream.requests[0]
    assert received.body == body
    assert received.head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert received.header("authorization") == "Bearer sk-upstream-secret"
    assert gateway.key not in received.head.decode()
    assert received.header("x-client-request-id") == gateway.settled[0].attempts[0].id
    assert received.header("accept-encoding") == "identity"


async def test_a_stream_passes_byte_for_byte_and_its_usage_is_measured_but_not_shown() -> None:
    events = [chunk("hel"), b": keep-alive\n\n", chunk("lo"), chunk(None, finish="stop")]
    async with raw_upstream(streaming(*events, usage_chunk(7, 5), DONE)) as upstream:
        async with serve(openai_toml(upstream, plugins=GUARDED)) as gateway:
            reply = await gateway.chat(stream=True)
    assert reply.body == b"".join(events) + DONE
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-accel-buffering"] == "no"
    assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}
    usage = gateway.settled[0].attempts[0].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.evidence) == (7, 5, "provider")


async def test_a_client_that_asks_for_usage_gets_the_stream_untouched() -> None:
    events = [chunk("hello"), chunk(None, finish="stop"), usage_chunk(), DONE]
    async with raw_upstream(streaming(*events)) as upstream:
        async with serve(openai_toml(upstream)) as gateway:
            reply = await gateway.chat(stream=True, stream_options={"include_usage": True})
    assert reply.body == b"".join(events)


async def test_an_alias_is_the_upstreams_name_there_and_the_clients_name_here() -> None:
    async def script(stream: trio.SocketStream, received: Received) -> None:
        named = received.json()["model"]
        if received.json().get("stream"):
            parts = [chunk("hi", model=named), chunk(None, model=named, finish="stop"), DONE]
            await streaming(*parts)(stream, received)
        else:
            await stream.send_all(http_reply(body_of(completion(model=named))))

    async with raw_upstream(script) as upstream:
        toml = openai_toml(upstream).replace('model = "m"', 'model = "gpt-real"')
        async with serve(toml) as gateway:
            plain, streamed = await gateway.chat(), await gateway.chat(stream=True)
    assert [r.json()["model"] for r in upstream.requests] == ["gpt-real", "gpt-real"]
    assert plain.json()["model"] == "m"
    assert {json.loads(e)["model"] for e in streamed.events()[:-1]} == {"m"}


@pytest.mark.parametrize(
    ("status", "headers", "seen", "code"),
    [
        (429, "retry-after: 7\r\n", 429, "rate_limit"),
        (401, "", 502, "server_error"),
        (403, "", 502, "server_error"),
        (500, "", 502, "server_error"),
        (503, "", 502, "server_error"),
        (504, "", 504, "timeout"),
        (408, "", 504, "timeout"),
        (422, "", 422, "invalid_request"),
    ],
)
async def test_an_upstream_error_is_mapped(status: int, headers: str, seen: int, code: str) -> None:
    error = body_of({"error": {"message": "sk-upstream-secret is bad", "type": "x", "code": None}})
    async with raw_upstream(replying(http_reply(error, status, headers))) as upstream:
        async with serve(openai_toml(upstream)) as gateway:
            reply = await gateway.chat()
    assert (reply.status, reply.code) == (seen, code)
    assert reply.json()["error"]["param"] is None
    assert "sk-upstream-secret" not in reply.body.decode()
    assert reply.headers.get("retry-after") == ("7" if status == 429 else None)
    assert reply.headers["x-request-id"] == gateway.settled[0].id


async def test_an_upstream_that_dies_in_mid_stream_gives_an_error_event_and_done() -> None:
    async def script(stream: trio.SocketStream, _received: Received) -> None:
        await stream.send_all(STREAM_HEAD + http_chunk(chunk("hel")))
        await stream.aclose()

    async with raw_upstream(script) as upstream:
        async with serve(openai_toml(upstream)) as gateway:
            reply = await gateway.chat(stream=True)
    first, error, done = reply.events()
    assert json.loads(first)["choices"][0]["delta"] == {"content": "hel"}
    assert json.loads(error)["error"]["code"] == "server_error"
    assert done == "[DONE]"
    outcome = gateway.settled[0].outcome
    assert outcome is not None
    assert outcome.kind == "failed"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_token_is_an_http_error(stream: bool) -> None:
    error = body_of({"error": {"message": "no", "code": "content_filter"}})
    if stream:
        data = STREAM_HEAD + http_chunk(b"data: " + error + b"\n\n") + b"0\r\n\r\n"
    else:
        data = http_reply(error)
    async with raw_upstream(replying(data)) as upstream:
        async with serve(openai_toml(upstream)) as gateway:
            reply = await gateway.chat(stream=stream)
    assert (reply.status, reply.code) == (400, "content_filter")


async def test_nobody_at_the_upstreams_address_is_a_502() -> None:
    async with raw_upstream(replying(b"")) as upstream:
        toml = openai_toml(RawUpstream(1, upstream.script))
        async with serve(toml) as gateway:
            reply = await gateway.chat()
    assert (reply.status, reply.code) == (502, "server_error")


async def test_a_silent_upstream_is_a_504_once_its_deadline_passes() -> None:
    async def script(_stream: trio.SocketStream, _received: Received) -> None:
        await trio.sleep_forever()

    async with raw_upstream(script) as upstream:
        async with serve(openai_toml(upstream, extra="first_byte_timeout = 0.2")) as gateway:
            reply = await gateway.chat()
    assert (reply.status, reply.code) == (504, "timeout")


async def test_connections_to_the_upstream_are_used_again() -> None:
    async with raw_upstream(streaming(chunk("a"), chunk(None, finish="stop"), DONE)) as upstream:
        async with serve(openai_toml(upstream)) as gateway:
            link = Link(await gateway.connect())
            for _ in range(5):
                await link.request(gateway.chat_bytes(stream=True))
                while await link.chunk():
                    pass
            await link.aclose()
    assert (upstream.connections, len(upstream.requests)) == (1, 5)


@pytest.mark.parametrize("size", [10, 200_000])
async def test_the_other_deployment_answers_when_the_first_is_down(size: int) -> None:
    async def hang_up(stream: trio.SocketStream, _received: Received) -> None:
        await stream.aclose()

    async with raw_upstream(hang_up) as down:
        await answered_by_the_second(down, size)


async def answered_by_the_second(down: RawUpstream, size: int) -> None:
    async with raw_upstream(replying(http_reply(body_of(completion("second"))))) as upstream:
        toml = openai_toml(upstream, plugins="[plugins.routing]\nretries = 0\n") + (
            f'[providers.down]\nkind = "openai"\nbase_url = "{down.base_url}"\n'
        )
        toml = toml.replace(
            '[{ provider = "up", model = "m" }]',
            '[{ provider = "down", model = "m" }, { provider = "up", model = "m", weight = 0 }]',
        )
        async with serve(toml) as gateway:
            reply = await gateway.chat("x" * size)
    assert reply.text() == "second"
    assert [a.deployment.provider for a in gateway.settled[0].attempts] == ["down", "up"]
