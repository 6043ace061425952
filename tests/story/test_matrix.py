"""Every hook fires with its promise: hook x endpoint x outcome, generated."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from tollkeeper import (
    Answer,
    Attempt,
    Deployment,
    Event,
    Exchange,
    Gateway,
    Head,
    PluginSettings,
    Principal,
    Refused,
    Reply,
    Send,
    Tap,
    UpstreamError,
    Usage,
    hookimpl,
)
from tollkeeper.hookspecs import Hooks
from tollkeeper.testing import ScriptedUpstream, TestGateway, chat_body, chunk, open_gateway

BEFORE_UPSTREAM = ["authenticate", "admit", "transform_request", "respond"]
UPSTREAM = ["route", "wrap_send", "attempt"]
REFUSABLE = [*BEFORE_UPSTREAM, "route", "attempt"]
AT_LOADING = ["register", "run"]


class Probe:
    """Implements every hook, notes each call, and asserts what the hook's promise says."""

    calls: list[str]
    refuse = ""
    hang = ""

    def __init__(self, settings: PluginSettings) -> None:
        pass

    async def _note(self, stage: str, exchange: Exchange) -> None:
        self.calls.append(stage)
        assert exchange.outcome is None
        if self.refuse == stage:
            raise Refused(403, "auth_error", f"refused in {stage}")
        if self.hang == stage:
            await trio.sleep_forever()

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        self.calls.append("register")

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        self.calls.append("run")
        task_status.started()
        await trio.sleep_forever()

    @hookimpl
    async def authenticate(self, exchange: Exchange) -> Principal | None:
        assert exchange.body == b""
        assert exchange.model == ""
        assert exchange.headers["host"] == "test"
        await self._note("authenticate", exchange)
        return Principal(org="probed", key="key_1")

    @hookimpl
    async def admit(self, exchange: Exchange) -> None:
        assert exchange.principal.org == "probed"
        if exchange.operation.dialect is not None:
            assert exchange.body
            assert exchange.model == "test"
        exchange.holds["probe"] = "held"
        await self._note("admit", exchange)

    @hookimpl
    async def transform_request(self, exchange: Exchange) -> bytes | None:
        await self._note("transform_request", exchange)
        return exchange.body.replace(b"before", b"after") or None

    @hookimpl
    async def respond(self, exchange: Exchange) -> Answer | None:
        assert b"before" not in exchange.body
        await self._note("respond", exchange)
        return None

    @hookimpl
    async def route(self, exchange: Exchange) -> tuple[Deployment, ...]:
        assert [d.name for d in exchange.candidates] == ["scripted/test"]
        await self._note("route", exchange)
        return exchange.candidates

    @hookimpl
    def wrap_send(self, send: Send) -> Send:
        async def wrapped(exchange: Exchange) -> Reply:
            assert exchange.deployment == exchange.deployments[0]
            self.calls.append("wrap_send")
            return await send(exchange)

        return wrapped

    @hookimpl
    async def attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        assert attempt is exchange.attempts[-1]
        assert not attempt.sent
        attempt.holds["probe"] = "held"
        await self._note("attempt", exchange)

    @hookimpl
    def reply(self, exchange: Exchange, head: Head) -> None:
        assert exchange.outcome is None
        assert "x-request-id" in head.headers
        head.headers["x-probed"] = "yes"
        self.calls.append("reply")

    @hookimpl
    def tap(self, exchange: Exchange) -> Tap | None:
        self.calls.append("tap")

        def tap(event: Event | None) -> Iterable[Event]:
            self.calls.append("tap(event)" if event else "tap(end)")
            return [event] if event else []

        return tap

    @hookimpl
    def measure(self, exchange: Exchange, attempt: Attempt) -> Usage | None:
        assert exchange.outcome is not None
        self.calls.append("measure")
        return Usage(1, 2, evidence="counted")

    @hookimpl
    def settle(self, exchange: Exchange) -> None:
        assert exchange.outcome is not None
        exchange.holds.pop("probe", None)
        for attempt in exchange.attempts:
            assert attempt.usage == Usage(1, 2, evidence="counted")
        self.calls.append("settle")


@dataclass(frozen=True)
class Case:
    endpoint: str
    outcome: str
    expected: tuple[str, ...]
    kind: str
    stage: str = ""

    def __str__(self) -> str:
        return f"{self.endpoint}-{self.outcome}{self.stage and '-in-' + self.stage}"


PATHS = {"chat": "/v1/chat/completions", "models": "/v1/models", "model": "/v1/models/test"}


def up_to(stage: str, row: list[str]) -> list[str]:
    return row[: row.index(stage) + 1]


def cases() -> Iterable[Case]:
    whole = [*BEFORE_UPSTREAM, *UPSTREAM]
    one_event = ["tap", "tap(event)", "tap(end)"]
    done = ["reply", "measure", "settle"]
    yield Case("chat", "plain", (*whole, *one_event, *done), "completed")
    streamed = ["tap", "tap(event)", "reply", "tap(event)", "tap(event)", "tap(end)"]
    yield Case("chat", "stream", (*whole, *streamed, "measure", "settle"), "completed")
    for outcome in ("upstream-error", "upstream-error-stream"):
        yield Case("chat", outcome, (*whole, *done), "failed")
    died = ["tap", "tap(event)", "reply", "measure", "settle"]
    yield Case("chat", "upstream-dies", (*whole, *died), "failed")
    yield Case("chat", "disconnect-before-head", (*whole, "measure", "settle"), "gone")
    yield Case("chat", "disconnect-in-stream", (*whole, *died), "gone")
    for stage in REFUSABLE:
        measured = done if stage == "attempt" else ["reply", "settle"]
        yield Case("chat", "refused", (*up_to(stage, whole), *measured), "refused", stage)
        measured = ["measure", "settle"] if stage == "attempt" else ["settle"]
        yield Case("chat", "disconnect", (*up_to(stage, whole), *measured), "gone", stage)
    for endpoint in ("models", "model"):
        answered = (*BEFORE_UPSTREAM, *one_event, "reply", "settle")
        yield Case(endpoint, "plain", answered, "completed")
        for stage in BEFORE_UPSTREAM:
            row = up_to(stage, BEFORE_UPSTREAM)
            yield Case(endpoint, "refused", (*row, "reply", "settle"), "refused", stage)
            yield Case(endpoint, "disconnect", (*row, "settle"), "gone", stage)


CASES = list(cases())


@asynccontextmanager
async def probed(upstream: ScriptedUpstream) -> AsyncIterator[tuple[TestGateway, type[Probe]]]:
    class OwnProbe(Probe):
        calls: list[str] = []  # noqa: RUF012 -- shared with the test on purpose

    probe = OwnProbe
    async with open_gateway(upstream, plugins={"probe": probe}) as gateway:
        assert probe.calls == AT_LOADING
        probe.calls.clear()
        yield gateway, probe


def script(upstream: ScriptedUpstream, outcome: str) -> None:
    if outcome == "stream":
        upstream.stream(chunk("a"), chunk("b"), chunk(None, finish="stop"), b"data: [DONE]\n\n")
    elif outcome == "upstream-error":
        upstream.reply({"error": {"message": "no"}}, status=500)
    elif outcome == "upstream-error-stream":
        upstream.fail()
    elif outcome == "upstream-dies":
        upstream.stream(chunk("a"), UpstreamError("broken", "died"))
    elif outcome == "disconnect-before-head":
        upstream.reply(delay=1000)
    elif outcome == "disconnect-in-stream":
        upstream.stream(chunk("a"), 1000.0, chunk("b"))


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_every_hook_fires_with_its_promise(case: Case) -> None:
    upstream = ScriptedUpstream()
    script(upstream, case.outcome)
    streams = case.outcome in ("stream", "upstream-dies", "disconnect-in-stream") or (
        case.outcome == "upstream-error-stream"
    )
    async with probed(upstream) as (gateway, probe):
        setattr(probe, "refuse" if case.outcome == "refused" else "hang", case.stage)
        if case.outcome.startswith("disconnect"):
            await leave(gateway, case, stream=streams)
        elif case.endpoint == "chat":
            reply = await gateway.chat("before", stream=streams)
            assert reply.headers["x-probed"] == "yes"
        else:
            reply = await gateway.get(PATHS[case.endpoint])
            assert reply.headers["x-probed"] == "yes"
        calls = list(probe.calls)
        (settled,) = gateway.settled
    assert tuple(calls) == case.expected
    assert settled.outcome is not None
    assert settled.outcome.kind == case.kind
    assert not settled.holds
    assert all(reply.closed for reply in upstream.replies)


async def leave(gateway: TestGateway, case: Case, *, stream: bool) -> None:
    """Send a request, wait until it has come as far as the case says, and go away."""
    link = gateway.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, gateway, link, case, stream)
        awaited = tuple(c for c in case.expected if c not in ("measure", "settle"))
        with trio.fail_after(5):
            while tuple(gateway_calls(gateway)) != awaited:
                await trio.sleep(0.001)
        if stream:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    await link.aclose()
    with trio.fail_after(5):
        while not gateway.settled:
            await trio.sleep(0.001)


def gateway_calls(gateway: TestGateway) -> list[str]:
    instance = next(i for i in gateway.generations.current.instances if i.name == "probe")
    return list(instance.plugin.calls)


async def ask(gateway: TestGateway, link: object, case: Case, stream: bool) -> None:
    import json

    from tollkeeper._server.link import Link

    assert isinstance(link, Link)
    body = b""
    if case.endpoint == "chat":
        body = json.dumps(chat_body("before", stream=stream)).encode()
    method = "POST" if body else "GET"
    head = f"{method} {PATHS[case.endpoint]} HTTP/1.1\r\nhost: test\r\n"
    await link.request(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await trio.sleep_forever()


def test_the_matrix_covers_every_hook_and_endpoint() -> None:
    fired = {call.partition("(")[0] for case in CASES for call in case.expected}
    fired |= {*AT_LOADING, "notice"}  # which is told between plugins, whatever the endpoint
    assert fired == {name for name in vars(Hooks) if not name.startswith("_")}
    assert {case.endpoint for case in CASES} == set(PATHS)
