"""What dispatch promises beyond the matrix of hooks, endpoints and outcomes."""

from collections.abc import Iterable
from typing import Any

import pytest
import trio

from tollkeeper import (
    Answer,
    Event,
    Exchange,
    Head,
    PluginSettings,
    Refused,
    Tap,
    UpstreamError,
    hookimpl,
)
from tollkeeper.testing import DONE, ScriptedUpstream, chunk, open_gateway, usage_chunk


class Plugin:
    def __init__(self, settings: PluginSettings) -> None:
        pass


class Cached(Plugin):
    @hookimpl
    async def respond(self, exchange: Exchange) -> Answer | None:
        return Answer(b'{"cached": true}') if b"cached" in exchange.body else None


async def test_an_answer_made_here_never_goes_upstream() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, plugins={"cached": Cached}) as gateway:
        assert (await gateway.chat("cached")).json() == {"cached": True}
        assert (await gateway.chat("fresh")).text() == "hello"
        first, second = gateway.settled
    assert len(upstream.bodies) == 1
    assert (len(first.attempts), len(second.attempts)) == (0, 1)


class Rewriting(Plugin):
    @hookimpl
    async def transform_request(self, exchange: Exchange) -> bytes | None:
        return exchange.body.replace(b'"other"', b'"test"')


async def test_a_changed_body_is_read_again() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, plugins={"rewriting": Rewriting}) as gateway:
        assert (await gateway.chat(model="other")).status == 200
        assert gateway.settled[0].model == "test"


class Censor(Plugin):
    """Holds each event back until the next one, and drops a word."""

    @hookimpl
    def tap(self, exchange: Exchange) -> Tap | None:
        held: list[Event] = []

        def tap(event: Event | None) -> Iterable[Event]:
            if event is not None and b"abort" in event.data:
                raise Refused(400, "content_filter", "The reply was refused.")
            out = list(held)
            held.clear()
            if event is not None and b"secret" not in event.data:
                held.append(event)
            return out

        return tap


async def test_a_tap_may_hold_and_drop_and_nothing_is_lost_or_leaks() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("a"), chunk("secret"), chunk("b"), chunk(None, finish="stop"), DONE)
    async with open_gateway(upstream, plugins={"censor": Censor}) as gateway:
        reply = await gateway.chat(stream=True)
    assert reply.text() == "ab"
    assert reply.events()[-1] == "[DONE]"


async def test_a_tap_that_aborts_ends_the_stream_with_its_error_and_drops_what_is_held() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("a"), chunk("b"), chunk("abort"), chunk("c"), DONE)
    async with open_gateway(upstream, plugins={"censor": Censor}) as gateway:
        reply = await gateway.chat(stream=True)
        outcome = gateway.settled[0].outcome
    events = reply.events()
    assert '"a"' in events[0]
    assert '"b"' not in "".join(events)
    assert "content_filter" in events[1]
    assert events[2] == "[DONE]"
    assert outcome is not None
    assert (outcome.kind, outcome.status) == ("refused", 200)


def crashing(hook: str, policy: str) -> type[Any]:
    async def crash_async(self: object, exchange: Exchange) -> None:
        raise RuntimeError("a bug in a plugin")

    def crash_sync(self: object, exchange: Exchange) -> None:
        raise RuntimeError("a bug in a plugin")

    function = crash_sync if hook in ("tap", "reply", "settle", "measure") else crash_async
    return type("Crashing", (Plugin,), {"policy": policy, hook: hookimpl(function)})


BEFORE_THE_REPLY = ["authenticate", "admit", "transform_request", "respond", "route", "attempt"]


@pytest.mark.parametrize("hook", [*BEFORE_THE_REPLY, "tap"])
async def test_a_guard_that_crashes_refuses_its_request_only(hook: str) -> None:
    async with open_gateway(plugins={"crashing": crashing(hook, "guard")}) as gateway:
        reply = await gateway.chat()
        assert (reply.status, reply.code) == (500, "server_error")
        assert b"a bug" not in reply.body
        (settled,) = gateway.settled
        assert gateway.generations.current.pipeline.errors == {("crashing", hook): 1}
        assert (await gateway.get("/healthz")).status == 200
    assert settled.outcome is not None
    assert settled.outcome.kind == "failed"


OBSERVABLE = ["admit", "transform_request", "respond", "route", "attempt", "tap", "reply", "settle"]


@pytest.mark.parametrize("hook", OBSERVABLE)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_observer_that_crashes_is_counted_and_skipped(hook: str, stream: bool) -> None:
    async with open_gateway(plugins={"crashing": crashing(hook, "observer")}) as gateway:
        reply = await gateway.chat(stream=stream)
        assert (reply.status, reply.text()) == (200, "hello")
        assert gateway.generations.current.pipeline.errors == {("crashing", hook): 1}


class Grouped(Plugin):
    policy = "observer"

    @hookimpl
    async def admit(self, exchange: Exchange) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.refuse)

    async def refuse(self) -> None:
        raise Refused(429, "rate_limit", "no", headers={"retry-after": "3"})


async def test_a_refusal_counts_also_out_of_a_plugins_own_nursery() -> None:
    async with open_gateway(plugins={"grouped": Grouped}) as gateway:
        reply = await gateway.chat()
    assert (reply.status, reply.headers["retry-after"]) == (429, "3")


async def test_several_attempts_are_measured_each_by_its_own_usage() -> None:
    upstream = ScriptedUpstream()
    upstream.fail(UpstreamError("broken", "x"))
    upstream.stream(chunk("a"), chunk(None, finish="stop"), usage_chunk(11, 22), DONE)
    toml = "[plugins.routing]\nbackoff = 0.001\n"
    async with open_gateway(upstream, toml) as gateway:
        reply = await gateway.chat(stream=True)
        first, second = gateway.settled[0].attempts
    assert reply.text() == "a"
    assert first.usage is None
    assert second.usage is not None
    assert (second.usage.input_tokens, second.usage.output_tokens) == (11, 22)
    assert (first.number, second.number, first.id == second.id) == (1, 2, False)


class Stamping(Plugin):
    @hookimpl
    def reply(self, exchange: Exchange, head: Head) -> None:
        head.headers["x-evil"] = "a\r\nset-cookie: b"


async def test_a_plugins_header_cannot_break_the_reply() -> None:
    async with open_gateway(plugins={"stamping": Stamping}) as gateway:
        reply = await gateway.chat()
    assert reply.status == 200
    assert "x-evil" not in reply.headers
    assert "set-cookie" not in reply.headers
