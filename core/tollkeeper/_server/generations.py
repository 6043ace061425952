"""Switching plugin sets while requests run, and the life of the plugins' own tasks."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from tollkeeper._server.generation import Generation, Instance, Shared
from tollkeeper._server.loading import build_generation
from tollkeeper._server.pages import build_app
from tollkeeper.config import Config
from tollkeeper.errors import PluginError
from tollkeeper.management import Authorizer

log = logging.getLogger("tollkeeper")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0


class Generations:
    """The current generation, and those whose last requests are still running."""

    current: Generation

    def __init__(
        self, nursery: trio.Nursery, shared: Shared, on_guard_crash: Callable[[], None]
    ) -> None:
        self.shared = shared
        self._nursery = nursery
        self._on_guard_crash = on_guard_crash
        self._instances: list[Instance] = []

    async def switch(self, config: Config) -> Generation:
        """Build, start and switch to a new generation; the old one goes on until it is empty.

        Raises `ConfigError`, or what a plugin's start-up raised, and then leaves all as it was.
        """
        for enabled in config.plugins:
            name, package = enabled.plugin.name, enabled.plugin.package
            await self.shared.database.migrate_in_thread(name, package)
        new = build_generation(config, self.shared, self._instances)
        authorizer = new.registry.services.get(Authorizer)
        new.make_app = partial(
            build_app,
            new.registry.routes,
            authorizer if isinstance(authorizer, Authorizer) else None,
            config.server.max_body,
        )
        if any(route.plugin != "core" for route in new.registry.routes.values()):
            new.app = new.make_app()  # a mistake in a route stops the start
        self._hold(new)  # before anything waits: an old generation may end meanwhile
        try:
            for instance in new.instances:
                if not instance.running:
                    await self._start(instance, new)
        except BaseException:
            self._let_go(new)
            raise
        self._take_over(new)
        return new

    def _take_over(self, new: Generation) -> None:
        old: Generation | None = getattr(self, "current", None)
        self.current = new
        self.shared.bell.ring = new.pipeline.notice
        if old is not None:
            old.on_empty = lambda: self._retire(old)
            if old.live == 0:
                self._retire(old)

    def _retire(self, old: Generation) -> None:
        old.on_empty = None
        self._let_go(old)

    def _hold(self, generation: Generation) -> None:
        for instance in generation.instances:
            instance.users += 1
            if instance not in self._instances:
                self._instances.append(instance)

    def _let_go(self, generation: Generation) -> None:
        for instance in generation.instances:
            instance.users -= 1
            if instance.users == 0:
                instance.scope.cancel()
                self._instances.remove(instance)

    async def _start(self, instance: Instance, generation: Generation) -> None:
        instance.running = True
        for step in generation.pipeline.steps["run"]:
            if step.plugin == instance.name:
                await self._nursery.start(self._supervise, instance, step.call)

    async def _supervise(
        self,
        instance: Instance,
        run: Callable[["_Starting"], Awaitable[None]],
        task_status: "trio.TaskStatus[None]",
    ) -> None:
        """Run a plugin's task to its stop; what a crash means is the plugin's policy."""
        starting, pause = _Starting(task_status), FIRST_PAUSE
        with instance.scope:
            while True:
                try:
                    await run(starting)
                    return
                except Exception as error:
                    if not starting.done:
                        cause = f"{type(error).__name__}: {error}"
                        message = f"plugin {instance.name} could not start: {cause}"
                        raise PluginError(message) from error
                    log.exception("plugin %s: its own task crashed", instance.name)
                    if instance.scope.cancel_called:
                        return  # it was being stopped
                if instance.enabled.plugin.policy == "guard":
                    self._on_guard_crash()
                    return
                await trio.sleep(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)


class _Starting:
    """The task status of a plugin's task, which may say `started()` again after a restart."""

    def __init__(self, status: "trio.TaskStatus[None]") -> None:
        self._status = status
        self.done = False

    def started(self, value: None = None) -> None:
        """Pass on the first time only."""
        if not self.done:
            self.done = True
            self._status.started(value)
