"""The frozen pipeline: who is called, in which order, and what a crash of each means."""

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import pluggy
import pytest

from tollkeeper._server.chat import CHAT
from tollkeeper._server.pipeline import Pipeline, Taps, collect_steps
from tollkeeper.catalogue import Policy
from tollkeeper.errors import Failed, PluginError, Refused, UpstreamError
from tollkeeper.exchange import (
    Answer,
    Attempt,
    Deployment,
    Event,
    Exchange,
    Head,
    Principal,
    Reply,
    Tap,
    Usage,
)
from tollkeeper.hookspecs import Send, empty_collection, hookimpl
from tollkeeper.settings import PluginSettings
from tollkeeper.testing import open_gateway

REFUSAL = Refused(403, "auth_error", "no")
ONE = Deployment("m", "one", "toy", "m")
TWO = Deployment("m", "two", "toy", "m")


async def unsent(exchange: Exchange) -> Reply:
    raise NotImplementedError


def plugin(**hooks: Callable[..., Any]) -> object:
    """A plugin with these functions as its hooks."""
    return type("Plugin", (), {n: staticmethod(hookimpl(f)) for n, f in hooks.items()})()


def pipeline_of(
    plugins: Mapping[str, object],
    policies: Mapping[str, Policy] | None = None,
    send: Send = unsent,
) -> Pipeline:
    """A pipeline in which `plugins` run in the order given."""
    manager = empty_collection()
    for name, instance in reversed([*plugins.items()]):
        manager.register(instance, name)
    return Pipeline(collect_steps(manager, policies or {}), send)


def new_exchange() -> Exchange:
    return Exchange(CHAT, "", {}, "test", 0.0, body=b"{}", candidates=(ONE, TWO))


def new_attempt() -> Attempt:
    return Attempt(ONE, 1, 0.0)


# Building it.


def misfit_of(**hooks: Callable[..., Any]) -> str:
    with pytest.raises(PluginError) as caught:
        pipeline_of({"odd": plugin(**hooks)})
    assert "plugin odd" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_misspelt_hook_is_refused() -> None:
    async def admitt(exchange: Exchange) -> None: ...

    told = misfit_of(admitt=admitt)
    assert '"admitt"' in told
    assert 'did you mean "admit"?' in told


def test_a_hook_of_the_wrong_colour_is_told_which_it_must_be() -> None:
    def admit(exchange: Exchange) -> None: ...

    async def settle(exchange: Exchange) -> None: ...

    assert "admit must be a plain `async def`" in misfit_of(admit=admit)
    assert "settle must be a plain `def`" in misfit_of(settle=settle)


def test_an_argument_that_a_hook_does_not_have_is_refused_where_the_plugin_is_registered() -> None:
    async def admit(exchange: Exchange, body: bytes) -> None: ...

    with pytest.raises(pluggy.PluginValidationError, match="body"):
        pipeline_of({"odd": plugin(admit=admit)})


@pytest.mark.parametrize("kind", ["wrapper", "hookwrapper"])
def test_a_wrapper_of_pluggys_own_is_refused_with_what_to_use_instead(kind: str) -> None:
    def settle(exchange: Exchange) -> Iterable[None]:
        yield

    wrapper = hookimpl(**{kind: True})(settle)  # type: ignore[call-overload]
    instance = type("Plugin", (), {"settle": staticmethod(wrapper)})()
    with pytest.raises(PluginError, match=r"plugin odd.*settle.*wrap_send"):
        pipeline_of({"odd": instance})


def test_what_wraps_send_must_be_an_async_function() -> None:
    def wrap_send(send: Send) -> Send:
        def sending(exchange: Exchange) -> Awaitable[Reply]:
            return send(exchange)

        return sending

    assert "wrap_send must return an async function" in misfit_of(wrap_send=wrap_send)
    assert "wrap_send must return an async function" in misfit_of(wrap_send=lambda send: None)


# In which order.


def marking(marks: list[str]) -> type[Any]:
    """A plugin class that says its name in each hook of a call."""

    class Marking:
        name = ""

        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        async def admit(self) -> None:
            marks.append(f"admit {self.name}")

        @hookimpl
        async def transform_request(self, exchange: Exchange) -> bytes:
            marks.append(f"transform {self.name}")
            document = json.loads(exchange.body)
            document["seen"] = document.get("seen", "") + self.name
            return json.dumps(document).encode()

        @hookimpl
        def wrap_send(self, send: Send) -> Send:
            async def sending(exchange: Exchange) -> Reply:
                marks.append(f"send {self.name}")
                try:
                    return await send(exchange)
                finally:
                    marks.append(f"sent {self.name}")

            return sending

        @hookimpl
        async def attempt(self) -> None:
            marks.append(f"attempt {self.name}")

        @hookimpl
        def settle(self) -> None:
            marks.append(f"settle {self.name}")

    return Marking


async def test_plugins_run_in_the_order_of_the_file_and_the_first_wraps_outermost() -> None:
    marks: list[str] = []
    base = marking(marks)
    plugins = {name: type(name, (base,), {"name": name}) for name in "abc"}
    async with open_gateway(plugins=plugins) as gateway:
        assert (await gateway.chat()).status == 200
        (exchange,) = gateway.settled
    stages = ["admit", "transform", "send", "attempt"]
    wanted = [f"{stage} {name}" for stage in stages for name in "abc"]
    wanted += ["sent c", "sent b", "sent a", "settle a", "settle b", "settle c"]
    assert marks == wanted
    assert json.loads(exchange.body)["seen"] == "abc"


async def test_a_plugin_may_move_a_hook_of_its_own_to_either_end() -> None:
    marks: list[str] = []

    def moved(name: str, **options: bool) -> object:
        async def admit() -> None:
            marks.append(name)

        hook = hookimpl(**options)(admit)  # type: ignore[call-overload]
        return type("Plugin", (), {"admit": staticmethod(hook)})()

    pipeline = pipeline_of(
        {
            "late": moved("late", trylast=True),
            "a": moved("a"),
            "b": moved("b"),
            "early": moved("early", tryfirst=True),
        }
    )
    await pipeline.admit(new_exchange())
    assert marks == ["early", "a", "b", "late"]


async def test_a_hook_gets_only_what_it_asks_for_in_the_order_it_asks() -> None:
    got: list[object] = []

    async def attempt(attempt: Attempt, exchange: Exchange) -> None:
        got.extend([attempt, exchange])

    async def only_attempt(attempt: Attempt) -> None:
        got.append(attempt)

    async def nothing() -> None:
        got.append(None)

    plugins = {
        "swapped": plugin(attempt=attempt),
        "one": plugin(attempt=only_attempt),
        "none": plugin(attempt=nothing),
    }
    exchange, a_try = new_exchange(), new_attempt()
    await pipeline_of(plugins).attempt(exchange, a_try)
    assert got == [a_try, exchange, a_try, None]


# What each stage makes of the answers.


def answering(**answers: object) -> object:
    """A plugin that gives these answers, whatever it is asked."""

    def hook(name: str, answer: object) -> Callable[..., Any]:
        async def later() -> object:
            return answer

        return (lambda: answer) if name in ("measure", "tap") else later

    return plugin(**{name: hook(name, answer) for name, answer in answers.items()})


async def test_the_first_answer_wins_and_none_is_no_answer() -> None:
    ann, bob = Principal("o", name="ann"), Principal("o", name="bob")
    usage = Usage(1, 2)
    pipeline = pipeline_of(
        {
            "silent": answering(authenticate=None, respond=None, route=None, measure=None),
            "first": answering(
                authenticate=ann, respond=Answer(b"first"), route=[TWO], measure=usage
            ),
            "second": answering(
                authenticate=bob, respond=Answer(b"second"), route=[ONE], measure=Usage(9, 9)
            ),
        }
    )
    exchange = new_exchange()
    assert await pipeline.authenticate(exchange) is ann
    assert await pipeline.respond(exchange) == Answer(b"first")
    assert await pipeline.route(exchange) == (TWO,)
    assert pipeline.measure(exchange, new_attempt()) is usage


async def test_without_any_plugin_nothing_is_answered_and_the_candidates_stand() -> None:
    pipeline, exchange = pipeline_of({}), new_exchange()
    assert await pipeline.authenticate(exchange) is None
    assert await pipeline.respond(exchange) is None
    assert await pipeline.route(exchange) == (ONE, TWO)
    assert pipeline.measure(exchange, new_attempt()) is None
    assert pipeline.taps(exchange) is None
    assert not await pipeline.transform_request(exchange)
    assert not pipeline.has_authentication
    assert not pipeline.has_taps
    assert pipeline.send is unsent


async def test_a_route_to_nowhere_is_an_answer_too() -> None:
    assert await pipeline_of({"a": answering(route=[])}).route(new_exchange()) == ()


async def test_a_body_counts_as_changed_where_a_plugin_gave_another() -> None:
    exchange = new_exchange()
    unchanging = pipeline_of({"a": answering(transform_request=None)})
    assert not await unchanging.transform_request(exchange)
    assert exchange.body == b"{}"
    changing = pipeline_of(
        {"a": answering(transform_request=b"[]"), "b": answering(transform_request=None)}
    )
    assert await changing.transform_request(exchange)
    assert exchange.body == b"[]"


async def test_the_first_refusal_ends_a_stage() -> None:
    asked: list[str] = []

    async def refuse() -> None:
        asked.append("refuse")
        raise REFUSAL

    async def never() -> None:
        asked.append("never")

    first, second = plugin(admit=refuse, attempt=refuse), plugin(admit=never, attempt=never)
    pipeline = pipeline_of({"first": first, "second": second})
    with pytest.raises(Refused):
        await pipeline.admit(new_exchange())
    with pytest.raises(Refused):
        await pipeline.attempt(new_exchange(), new_attempt())
    assert asked == ["refuse", "refuse"]


# What a crash means.

ASYNC_HOOKS = ("authenticate", "admit", "transform_request", "respond", "route", "attempt")
GUARDED = (*ASYNC_HOOKS, "tap")
UNGUARDED = ("reply", "measure", "settle")


def raising(hook: str, error: Exception) -> object:
    async def later() -> None:
        raise error

    def now() -> None:
        raise error

    return plugin(**{hook: later if hook in ASYNC_HOOKS else now})


def noting(hook: str, noted: list[str]) -> object:
    async def later() -> None:
        noted.append(hook)

    def now() -> None:
        noted.append(hook)

    return plugin(**{hook: later if hook in ASYNC_HOOKS else now})


async def call(pipeline: Pipeline, hook: str) -> object:
    more: dict[str, list[object]] = {
        "reply": [Head(200, {})],
        "measure": [new_attempt()],
        "attempt": [new_attempt()],
    }
    stage = getattr(pipeline, "taps" if hook == "tap" else hook)
    answer = stage(new_exchange(), *more.get(hook, []))
    return await answer if hook in ASYNC_HOOKS else answer


@pytest.mark.parametrize("hook", GUARDED)
async def test_a_guard_that_crashes_ends_the_exchange_and_is_named(hook: str) -> None:
    noted: list[str] = []
    crash = RuntimeError("boom")
    pipeline = pipeline_of({"bad": raising(hook, crash), "next": noting(hook, noted)})
    with pytest.raises(RuntimeError) as caught:
        await call(pipeline, hook)
    assert caught.value is crash
    assert f"in plugin bad, hook {hook}" in crash.__notes__
    assert pipeline.errors == {("bad", hook): 1}
    assert noted == []


@pytest.mark.parametrize("hook", [*GUARDED, *UNGUARDED])
async def test_an_observer_that_crashes_is_counted_logged_and_skipped(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    noted: list[str] = []
    plugins = {"bad": raising(hook, RuntimeError("boom")), "next": noting(hook, noted)}
    pipeline = pipeline_of(plugins, {"bad": "observer"})
    await call(pipeline, hook)
    await call(pipeline, hook)
    assert noted == [hook, hook]
    assert pipeline.errors == {("bad", hook): 2}
    assert f"plugin bad crashed in hook {hook}" in caplog.text
    assert "RuntimeError: boom" in caplog.text
    assert all(record.levelno == logging.ERROR for record in caplog.records)


@pytest.mark.parametrize("hook", UNGUARDED)
async def test_once_a_reply_is_due_even_a_guard_that_crashes_is_skipped(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    noted: list[str] = []
    pipeline = pipeline_of(
        {"bad": raising(hook, RuntimeError("boom")), "next": noting(hook, noted)}
    )
    await call(pipeline, hook)
    assert noted == [hook]
    assert pipeline.errors == {("bad", hook): 1}
    assert "boom" in caplog.text


@pytest.mark.parametrize("hook", GUARDED)
@pytest.mark.parametrize("policy", ["guard", "observer"])
@pytest.mark.parametrize("grouped", [False, True])
async def test_what_is_refused_on_purpose_counts_from_every_plugin_also_out_of_a_group(
    hook: str, policy: Policy, grouped: bool
) -> None:
    refusal = Refused(403, "auth_error", "no")
    group = ExceptionGroup("nursery", [ValueError(), ExceptionGroup("inner", [refusal])])
    pipeline = pipeline_of({"bad": raising(hook, group if grouped else refusal)}, {"bad": policy})
    with pytest.raises(Refused) as caught:
        await call(pipeline, hook)
    assert caught.value is refusal
    assert not pipeline.errors


@pytest.mark.parametrize("hook", UNGUARDED)
async def test_where_nothing_can_be_refused_any_more_a_refusal_is_a_crash(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = pipeline_of({"bad": raising(hook, Failed(500, "server_error", "no"))})
    await call(pipeline, hook)
    assert pipeline.errors == {("bad", hook): 1}
    assert "bad" in caplog.text


async def test_an_observer_that_crashed_on_a_body_leaves_the_one_before_it() -> None:
    plugins = {
        "good": answering(transform_request=b"[1]"),
        "bad": raising("transform_request", UpstreamError("broken", "no")),
    }
    exchange = new_exchange()
    assert await pipeline_of(plugins, {"bad": "observer"}).transform_request(exchange)
    assert exchange.body == b"[1]"


# Taps.


def taps_of(
    functions: Mapping[str, Tap], policies: Mapping[str, Policy] | None = None
) -> tuple[Pipeline, Taps]:
    plugins = {name: answering(tap=function) for name, function in functions.items()}
    pipeline = pipeline_of(plugins, policies)
    taps = pipeline.taps(new_exchange())
    assert taps
    return pipeline, taps


def event(word: str) -> Event:
    return Event(word.encode())


def words(events: Iterable[Event]) -> list[str]:
    return [event.data.decode() for event in events]


def doubling(event: Event | None) -> Iterable[Event]:
    return [] if event is None else [event, Event(event.data.upper())]


def collecting(seen: list[str]) -> Tap:
    def collect(event: Event | None) -> Iterable[Event]:
        seen.append("end" if event is None else event.data.decode())
        return [] if event is None else [event]

    return collect


def holding(name: str) -> Tap:
    held: list[Event] = []

    def hold(event: Event | None) -> Iterable[Event]:
        if event is None:
            return [*held, Event(name.encode())]
        held.append(event)
        return []

    return hold


def test_each_tap_sees_what_the_one_before_it_let_through() -> None:
    seen: list[str] = []
    _, taps = taps_of({"doubling": doubling, "seeing": collecting(seen)})
    assert words(taps.feed(event("a"))) == ["a", "A"]
    assert seen == ["a", "A"]


def test_at_the_end_what_one_tap_gives_back_goes_through_those_behind_it() -> None:
    seen: list[str] = []
    _, taps = taps_of(
        {"first": holding("first"), "second": holding("second"), "third": collecting(seen)}
    )
    assert taps.feed(event("a")) == []
    assert taps.feed(event("b")) == []
    assert words(taps.finish()) == ["a", "b", "first", "second"]
    assert seen == ["a", "b", "first", "second", "end"]


def test_a_plugin_that_gives_no_tap_is_left_out() -> None:
    pipeline = pipeline_of({"none": answering(tap=None)})
    assert pipeline.has_taps
    assert pipeline.taps(new_exchange()) is None


def crashing_on(word: str, seen: list[str]) -> Tap:
    def crash(event: Event | None) -> Iterable[Event]:
        seen.append("end" if event is None else event.data.decode())
        if event is not None and event.data == word.encode():
            raise RuntimeError("boom")
        return [] if event is None else [Event(event.data + b"!")]

    return crash


def test_a_guards_tap_that_crashes_ends_the_stream() -> None:
    pipeline, taps = taps_of({"bad": crashing_on("b", [])})
    assert words(taps.feed(event("a"))) == ["a!"]
    with pytest.raises(RuntimeError, match="boom"):
        taps.feed(event("b"))
    assert pipeline.errors == {("bad", "tap"): 1}


def test_an_observers_tap_that_crashes_is_taken_out_and_the_stream_goes_on() -> None:
    seen: list[str] = []
    taps = {"bad": crashing_on("b", seen), "next": doubling}
    pipeline, chain = taps_of(taps, {"bad": "observer"})
    assert words(chain.feed(event("a"))) == ["a!", "A!"]
    assert words(chain.feed(event("b"))) == ["b", "B"]
    assert words(chain.feed(event("c"))) == ["c", "C"]
    assert chain.finish() == []
    assert seen == ["a", "b"]
    assert pipeline.errors == {("bad", "tap"): 1}


def test_a_tap_that_was_taken_out_sees_no_further_event_of_the_same_batch() -> None:
    seen: list[str] = []
    _, chain = taps_of({"doubling": doubling, "bad": crashing_on("a", seen)}, {"bad": "observer"})
    assert words(chain.feed(event("a"))) == ["a", "A"]
    assert seen == ["a"]


def test_a_tap_that_crashes_on_what_another_gave_back_is_not_asked_for_its_own() -> None:
    seen: list[str] = []
    pipeline, chain = taps_of(
        {"holding": holding("x"), "bad": crashing_on("a", seen)}, {"bad": "observer"}
    )
    chain.feed(event("a"))
    assert words(chain.finish()) == ["a", "x"]
    assert seen == ["a"]
    assert pipeline.errors == {("bad", "tap"): 1}


def test_an_observers_tap_is_taken_out_of_its_own_exchange_only() -> None:
    seen: list[str] = []
    pipeline, first = taps_of({"bad": crashing_on("a", seen)}, {"bad": "observer"})
    second = pipeline.taps(new_exchange())
    assert second
    first.feed(event("a"))
    assert words(second.feed(event("b"))) == ["b!"]


@pytest.mark.parametrize("policy", ["guard", "observer"])
def test_a_tap_that_refuses_ends_the_stream_whoever_it_belongs_to(policy: Policy) -> None:
    def refuse(event: Event | None) -> Iterable[Event]:
        raise REFUSAL

    _, taps = taps_of({"strict": refuse}, {"strict": policy})
    with pytest.raises(Refused):
        taps.feed(event("a"))
