"""Plugin instances through switches."""

import subprocess
import sys
from typing import ClassVar

import pytest
import trio

from tollkeeper import ConfigError, Gateway, PluginError, PluginSettings, hookimpl
from tollkeeper.testing import ScriptedUpstream, TestGateway, chunk, open_gateway


class CountedSettings(PluginSettings):
    number: int = 1


class Counted:
    """Notes when it is built, started and stopped."""

    Settings = CountedSettings
    log: ClassVar[list[str]]

    def __init__(self, settings: CountedSettings) -> None:
        self.number = settings.number
        self.log.append(f"built {self.number}")

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        self.log.append(f"registered {self.number}")

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        self.log.append(f"started {self.number}")
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self.log.append(f"stopped {self.number}")


def counted() -> type[Counted]:
    class Own(Counted):
        log: ClassVar[list[str]] = []

    return Own


async def test_an_instance_lives_on_while_its_settings_stay_equal() -> None:
    plugin = counted()
    async with open_gateway(plugins={"counted": plugin}) as gateway:
        await gateway.switch("[plugins.limits]\n")
        await gateway.switch("")
        assert plugin.log == ["built 1", "registered 1", "started 1"] + ["registered 1"] * 2


async def test_an_instance_with_other_settings_replaces_it_once_the_old_one_is_empty() -> None:
    plugin, upstream = counted(), ScriptedUpstream()
    upstream.stream(chunk("a"), 0.05, chunk(None, finish="stop"), b"data: [DONE]\n\n")
    async with open_gateway(upstream, plugins={"counted": plugin}) as gateway:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream, gateway)
            while not upstream.attempts:
                await trio.sleep(0.001)
            await gateway.switch("[plugins.counted]\nnumber = 2\n")
            assert "stopped 1" not in plugin.log
        while "stopped 1" not in plugin.log:
            await trio.sleep(0.001)
        assert plugin.log.index("started 2") < plugin.log.index("stopped 1")


async def stream(gateway: TestGateway) -> None:
    assert (await gateway.chat(stream=True)).text() == "a"


async def test_a_plugin_turned_off_is_stopped_and_on_again_is_new() -> None:
    plugin = counted()
    async with open_gateway(plugins={"counted": plugin}) as gateway:
        await gateway.switch("[plugins.counted]\nenabled = false\n")
        while "stopped 1" not in plugin.log:
            await trio.sleep(0.001)
        await gateway.switch("")
        assert plugin.log.count("built 1") == 2


async def test_a_set_that_cannot_be_built_changes_nothing() -> None:
    async with open_gateway() as gateway:
        before = gateway.generations.current
        with pytest.raises(ConfigError):
            await gateway.switch('[providers.x]\nkind = "nobody"\n')
        assert gateway.generations.current is before
        assert (await gateway.chat()).status == 200


async def test_what_a_failed_start_had_started_is_stopped_again() -> None:
    class Broken:
        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        async def run(self, task_status: trio.TaskStatus[None]) -> None:
            raise RuntimeError("broken")

    plugin = counted()
    off = "[plugins.counted]\nenabled = false\n[plugins.broken]\nenabled = false\n"
    async with open_gateway(toml=off, plugins={"counted": plugin, "broken": Broken}) as gateway:
        with pytest.raises(
            PluginError, match="plugin broken could not start: RuntimeError: broken"
        ):
            await gateway.switch("[plugins.counted]\n[plugins.broken]\n")
        while plugin.log[-1] != "stopped 1":
            await trio.sleep(0.001)
        assert (await gateway.chat()).status == 200


async def test_what_a_set_in_the_making_takes_over_is_not_stopped_with_the_old_one() -> None:
    plugin, upstream, go_on = counted(), ScriptedUpstream(), trio.Event()
    upstream.stream(chunk("a"), 0.05, chunk(None, finish="stop"), b"data: [DONE]\n\n")

    class Slow:
        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        async def run(self, task_status: trio.TaskStatus[None]) -> None:
            await go_on.wait()
            task_status.started()
            await trio.sleep_forever()

    off, slow_off = "[plugins.counted]\nenabled = false\n", "[plugins.slow]\nenabled = false\n"
    async with open_gateway(
        upstream, slow_off, plugins={"counted": plugin, "slow": Slow}
    ) as gateway:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream, gateway)
            while not upstream.attempts:
                await trio.sleep(0.001)
            await gateway.switch(off + slow_off)
            nursery.start_soon(gateway.switch, "")
            while gateway.generations.current.live or not gateway.settled:
                await trio.sleep(0.001)
            await trio.sleep(0.1)  # the stream's set is over, the new one still waits
            go_on.set()
        assert plugin.log.count("built 1") - plugin.log.count("stopped 1") == 1
        assert plugin.log.count("started 1") - plugin.log.count("stopped 1") == 1


class Paged:
    """A plugin with a page."""

    Settings = PluginSettings

    def __init__(self, settings: PluginSettings) -> None: ...

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        gateway.add_route("/toy", self.page, policy="open")

    async def page(self) -> dict[str, str]:
        return {}


async def test_pages_are_built_when_one_is_asked_for_but_those_of_plugins_at_once() -> None:
    async with open_gateway() as gateway:
        generation = gateway.generations.current
        assert generation.app is None
        assert (await gateway.get("/healthz")).status == 200
        assert generation.app is await generation.pages()
    async with open_gateway(plugins={"paged": Paged}) as gateway:
        assert gateway.generations.current.app is not None


def test_a_gateway_is_loaded_without_quart() -> None:
    code = "import sys, tollkeeper._server.server; sys.exit('quart' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
