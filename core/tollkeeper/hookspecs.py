"""Every hook, in the order in which a request meets them.

A plugin is a class; it implements a hook by a method of that name under `@hookimpl`, and takes only
the arguments it needs. Each hook has one colour: where the specification is `async def` the
implementation is too, where it is not it may not wait. In every stage plugins run in the order of
the TOML; `@hookimpl(tryfirst=True)` and `trylast=True` move one to an end.

A plugin whose `policy` is "guard" (the default) refuses the request when it crashes before the
upstream call; one whose `policy` is "observer" is logged, counted and skipped, but for what it does
inside `wrap_send`, which is the call itself. A `Refused` raised on purpose counts from either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import pluggy

from tollkeeper.exchange import (
    Answer,
    Attempt,
    Deployment,
    Exchange,
    Head,
    Principal,
    Reply,
    Tap,
    Usage,
)
from tollkeeper.notice import Notice

if TYPE_CHECKING:
    import trio

    from tollkeeper.gateway import Gateway

Send = Callable[[Exchange], Awaitable[Reply]]
"""The upstream call as `wrap_send` gets and returns it."""

PROJECT = "tollkeeper"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """The specifications. What each promises is in its docstring."""

    @hookspec
    def register(self, gateway: Gateway) -> None:
        """Add providers, operations, routes, commands, models and services.

        When: while a plugin set is built, before it serves; again for each set the instance lives
        in. No request is running through it yet and no database query may be made here.
        Afterwards: names that are taken twice, or needed and not offered, have stopped the start.
        """

    @hookspec
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Live as long as the plugin instance: load data, then keep a task.

        When: before the first request meets this instance. Call `task_status.started()` once
        ready; what comes before it is start-up and may raise. Cancellation is the stop.
        Promise: runs once per instance, outside any request. A guard that crashes here makes the
        gateway drain and exit with 1; an observer is started again, waiting longer each time.
        """

    @hookspec(firstresult=True)
    async def authenticate(self, exchange: Exchange) -> Principal | None:
        """Say who is calling, or None where the credential is not yours to judge.

        When: head read, body not. True by then: operation, headers, client.
        The first answer wins. When plugins implement this and none answers, the reply is 401; when
        none implements it the caller is `ANONYMOUS`.
        """

    @hookspec
    async def admit(self, exchange: Exchange) -> None:
        """Let the exchange pass, or raise `Refused`: 403, or 429 with an exact `retry-after`.

        When: principal, body, model and stream are known. Every plugin in turn; the first refusal
        ends it. Keep what you reserve in `exchange.holds[your name]`.
        Promise: `settle` follows, whatever happens.
        """

    @hookspec
    async def transform_request(self, exchange: Exchange) -> bytes | None:
        """Return a changed body, None to leave it, or raise `Refused`.

        When: after every admit. Each plugin sees the body that the one before it left.
        """

    @hookspec(firstresult=True)
    async def respond(self, exchange: Exchange) -> Answer | None:
        """Answer without an upstream, or None.

        When: after every transform. The first answer wins; nothing is routed or sent then.
        """

    @hookspec(firstresult=True)
    async def route(self, exchange: Exchange) -> Sequence[Deployment] | None:
        """Order what can serve the model, best first.

        When: `exchange.candidates` holds the configured deployments, empty for a model the TOML
        does not know. The first answer wins. With none, the candidates stand as configured; when
        there are none the reply is 404 `model_not_found`.
        """

    @hookspec
    def wrap_send(self, send: Send) -> Send:
        """Wrap the upstream call: return an `async def (exchange) -> Reply` that calls `send`.

        When: once per plugin set, while it is built. The first in the TOML ends outermost.
        Promise: `send` may be called never, once or often; it tries `exchange.deployment`, returns
        a reply whose first event (of a stream) or whole body (otherwise) has arrived, and raises
        `UpstreamError` for anything that is not a usable reply. Replies are closed by the core.
        """

    @hookspec
    async def attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        """Reserve for one upstream try, or raise `Refused`, which is never retried.

        When: inside every `wrap_send`, before each try; no byte of it has gone upstream.
        Keep what you reserve in `attempt.holds[your name]`.
        """

    @hookspec
    def tap(self, exchange: Exchange) -> Tap | None:
        """Return a function that the events of this reply go through, or None.

        When: the upstream's reply has begun, and nothing of it has gone to the client; for an
        answer made here too. The function gets each event (one SSE event of a stream, the whole
        body otherwise) and returns what goes on: nothing, one or many; then None once at a clean
        end, to give back what it holds. After an error held events are dropped. It may not wait,
        and runs in whatever task reads the event. Raise `Refused` or `Failed` to abort.
        """

    @hookspec
    def reply(self, exchange: Exchange, head: Head) -> None:
        """Add headers to the reply.

        When: before the reply's first byte, once, when it is known how the reply begins; for
        refusals and errors too, where any stage may not have run. What crashes in here adds
        nothing: the reply is due in any case.
        """

    @hookspec(firstresult=True)
    def measure(self, exchange: Exchange, attempt: Attempt) -> Usage | None:
        """Say what an attempt used, with the evidence for it, or None.

        When: once per attempt, just before settle. `attempt.usage_data` is the provider's own
        usage where it reached us whole. The first answer wins; with none, that usage is taken.
        A crash in here is counted and skipped, for settling is due in any case.
        """

    @hookspec
    def settle(self, exchange: Exchange) -> None:
        """Turn holds into facts: release what was reserved, hand rows to your own task.

        When: exactly once for every exchange that was made, however it ended, and before the
        client can know that the reply is over. `exchange.outcome` says how. Plugins whose admit
        never ran are called too: an absent hold means nothing to do. It may not wait, and what it
        raises is logged, never passed on.
        """

    @hookspec
    def notice(self, notice: Notice) -> None:
        """Pass on what an operator should hear of, such as a budget that is nearly spent.

        When: at any time, from whichever plugin tells it, outside or inside an exchange. It may not
        wait, and what it raises is logged, never passed on.
        """


def empty_collection() -> pluggy.PluginManager:
    """A plugin manager that knows these hooks and no plugin."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    return manager
