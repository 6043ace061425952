"""The frozen pipeline of a plugin set: pluggy collected and ordered it, this calls it.

Pluggy cannot call async hooks (`firstresult` takes the coroutine for the answer) and costs more per
call than the hooks do, so each stage is one typed method over a tuple made once.
"""

import inspect
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pluggy

from tollkeeper.catalogue import Policy
from tollkeeper.errors import PluginError, find_api_error
from tollkeeper.exchange import (
    Answer,
    Attempt,
    Deployment,
    Event,
    Exchange,
    Head,
    Principal,
    Tap,
    Usage,
)
from tollkeeper.explain import nearest
from tollkeeper.hookspecs import Hooks, Send
from tollkeeper.notice import Notice

log = logging.getLogger("tollkeeper")


@dataclass(frozen=True, slots=True)
class Step:
    """One plugin's implementation of one hook, taking the specification's arguments in order."""

    hook: str
    plugin: str
    policy: Policy
    call: Callable[..., Any]


def collect_steps(
    manager: pluggy.PluginManager, policies: Mapping[str, Policy]
) -> dict[str, tuple[Step, ...]]:
    """Every hook's implementations, first to run first.

    Raises `PluginError` for a misspelt hook, an unknown argument, the wrong colour or a wrapper.
    """
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        name = str(error).partition("'")[2].partition("'")[0]
        known = [hook for hook in vars(Hooks) if not hook.startswith("_")]
        told = f'no hook is called "{name}"{nearest(name, known)}'
        raise PluginError(f"plugin {manager.get_name(error.plugin)}: {told}") from error
    steps = {}
    for name, spec in vars(Hooks).items():
        if name.startswith("_"):
            continue
        row = reversed(getattr(manager.hook, name).get_hookimpls())
        steps[name] = tuple(_checked_step(name, spec, impl, policies) for impl in row)
    return steps


def _checked_step(
    name: str, spec: Callable[..., Any], impl: pluggy.HookImpl, policies: Mapping[str, Policy]
) -> Step:
    if impl.wrapper or impl.hookwrapper:
        raise PluginError(
            f"plugin {impl.plugin_name}: {name} is a pluggy wrapper; use wrap_send to go around"
        )
    is_async, wants_async = map(inspect.iscoroutinefunction, (impl.function, spec))
    if is_async != wants_async:
        word = "async def" if wants_async else "def"
        raise PluginError(
            f"plugin {impl.plugin_name}: {name} must be a plain `{word}`"
            " (a decorator that hides the colour of a function counts as the wrong colour)"
        )
    arguments = tuple(inspect.signature(spec).parameters)[1:]
    call = _adapt(cast("Callable[..., Any]", impl.function), impl.argnames, arguments)
    return Step(name, impl.plugin_name, policies.get(impl.plugin_name, "guard"), call)


def _adapt(
    function: Callable[..., Any], wanted: Sequence[str], given: tuple[str, ...]
) -> Callable[..., Any]:
    """`function`, called with all of the specification's arguments but taking only its own."""
    if tuple(wanted) == given:
        return function
    picks = [given.index(name) for name in wanted]
    return lambda *values: function(*[values[i] for i in picks])


class Pipeline:
    """The stages, one typed method each. Made once per plugin set and never changed."""

    def __init__(self, steps: Mapping[str, tuple[Step, ...]], send: Send) -> None:
        self.steps = steps
        self.errors: Counter[tuple[str, str]] = Counter()
        """Crashes of plugins by (plugin, hook)."""
        self.has_authentication = bool(steps["authenticate"])
        self.has_taps = bool(steps["tap"])
        self.has_transforms = bool(steps["transform_request"])
        self.has_responders = bool(steps["respond"])
        self.has_attempts = bool(steps["attempt"])
        self.send = send
        for step in reversed(steps["wrap_send"]):  # innermost first
            self.send = step.call(self.send)
            if not inspect.iscoroutinefunction(self.send):
                raise PluginError(f"plugin {step.plugin}: wrap_send must return an async function")

    def authenticate(self, exchange: Exchange) -> Awaitable[Principal | None]:
        """The first answer."""
        return cast("Awaitable[Principal | None]", self._first("authenticate", exchange))

    def admit(self, exchange: Exchange) -> Awaitable[None]:
        """Every plugin, until one refuses."""
        return self._every("admit", exchange)

    async def transform_request(self, exchange: Exchange) -> bool:
        """Every plugin; each sees the body that the one before it left. Whether one changed it."""
        before = exchange.body
        for step in self.steps["transform_request"]:
            try:
                body = await step.call(exchange)
            except Exception as error:
                self._judge(step, error)
            else:
                exchange.body = exchange.body if body is None else body
        return exchange.body is not before

    async def respond(self, exchange: Exchange) -> Answer | None:
        """The first answer."""
        return cast("Answer | None", await self._first("respond", exchange))

    async def route(self, exchange: Exchange) -> tuple[Deployment, ...]:
        """The first answer, or the configured deployments."""
        answer = cast("Sequence[Deployment] | None", await self._first("route", exchange))
        return exchange.candidates if answer is None else tuple(answer)

    def attempt(self, exchange: Exchange, attempt: Attempt) -> Awaitable[None]:
        """Every plugin, until one refuses."""
        return self._every("attempt", exchange, attempt)

    def reply(self, exchange: Exchange, head: Head) -> None:
        """Every plugin; one that crashes adds nothing, for a reply is due in any case."""
        for step in self.steps["reply"]:
            try:
                step.call(exchange, head)
            except Exception:
                self._count(step)

    def taps(self, exchange: Exchange) -> "Taps | None":
        """The taps of this exchange, None when there is nothing to tap."""
        found = []
        for step in self.steps["tap"]:
            try:
                tap = step.call(exchange)
            except Exception as error:
                self._judge(step, error)
            else:
                if tap is not None:
                    found.append((step, tap))
        return Taps(self, found) if found else None

    def measure(self, exchange: Exchange, attempt: Attempt) -> Usage | None:
        """The first answer; a plugin that crashes has none."""
        for step in self.steps["measure"]:
            try:
                usage = step.call(exchange, attempt)
            except Exception:
                self._count(step)
            else:
                if usage is not None:
                    return cast("Usage", usage)
        return None

    def settle(self, exchange: Exchange) -> None:
        """Every plugin, always."""
        for step in self.steps["settle"]:
            try:
                step.call(exchange)
            except Exception:
                self._count(step)

    def notice(self, notice: Notice) -> None:
        """Every plugin, always."""
        for step in self.steps["notice"]:
            try:
                step.call(notice)
            except Exception:
                self._count(step)

    async def _first(self, hook: str, exchange: Exchange) -> object:
        for step in self.steps[hook]:
            try:
                answer = await step.call(exchange)
            except Exception as error:
                self._judge(step, error)
            else:
                if answer is not None:
                    return cast("object", answer)
        return None

    async def _every(self, hook: str, *arguments: object) -> None:
        for step in self.steps[hook]:
            try:
                await step.call(*arguments)
            except Exception as error:
                self._judge(step, error)

    def _judge(self, step: Step, error: Exception) -> None:
        """Raise what ends the exchange; return where an observer is to be skipped."""
        if (refusal := find_api_error(error)) is not None:
            raise refusal from (None if refusal is error else error)
        if step.policy == "guard":
            self.errors[step.plugin, step.hook] += 1
            error.add_note(f"in plugin {step.plugin}, hook {step.hook}")
            raise error
        self._count(step)

    def _count(self, step: Step) -> None:
        self.errors[step.plugin, step.hook] += 1
        message = "plugin %s crashed in hook %s and was skipped"
        log.error(message, step.plugin, step.hook, exc_info=sys.exc_info())


class Taps:
    """The taps of one exchange, each fed with what the one before it let through."""

    def __init__(self, pipeline: Pipeline, taps: list[tuple[Step, Tap]]) -> None:
        self._pipeline = pipeline
        self._taps = taps

    def feed(self, event: Event) -> list[Event]:
        """What goes on to the client for one event."""
        events = [event]
        for step, tap in tuple(self._taps):
            events = [kept for passed in events for kept in self._call(step, tap, passed)]
        return events

    def finish(self) -> list[Event]:
        """What the taps held back, at a clean end."""
        out: list[Event] = []
        for step, tap in tuple(self._taps):
            passed = [kept for event in out for kept in self._call(step, tap, event)]
            out = [*passed, *self._call(step, tap, None)]
        return out

    def _call(self, step: Step, tap: Tap, event: Event | None) -> list[Event]:
        passed = [] if event is None else [event]
        if (step, tap) not in self._taps:
            return passed  # it crashed in the middle of a batch
        try:
            return list(tap(event))
        except Exception as error:
            self._pipeline._judge(step, error)
        self._taps = [(s, t) for s, t in self._taps if t is not tap]
        return passed
