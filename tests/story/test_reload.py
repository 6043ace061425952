"""Operators change the TOML of a running gateway: what changes, what goes on, what is refused."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from harness import (
    STREAM_HEAD,
    RawUpstream,
    Received,
    Served,
    http_chunk,
    http_reply,
    openai_toml,
    raw_upstream,
    serve,
)

from tollkeeper.testing import DONE, chunk

TABLES = {
    "keys": "[plugins.keys]\n",
    "limits": "[plugins.limits]\nrpm = 100\n",
    "routing": "[plugins.routing]\nbackoff = 0.01\n",
}
STREAMS = 50
EVENTS = 60


def toml(upstream: RawUpstream, *without: str, more: str = "") -> str:
    tables = "".join(text for name, text in TABLES.items() if name not in without)
    return openai_toml(upstream, plugins=tables + more)


class Flaky:
    """Streams slowly; plain calls fail the first time and succeed the second."""

    def __init__(self) -> None:
        self.plain = 0

    async def __call__(self, stream: trio.SocketStream, received: Received) -> None:
        if not received.json().get("stream"):
            self.plain += 1
            status = 503 if self.plain % 2 else 200
            await stream.send_all(http_reply(b'{"choices":[]}', status))
            return
        await stream.send_all(STREAM_HEAD)
        for number in range(EVENTS):
            await stream.send_all(http_chunk(chunk(f"{number} ")))
            await trio.sleep(0.02)
        await stream.send_all(http_chunk(chunk(None, finish="stop")) + http_chunk(DONE))
        await stream.send_all(b"0\r\n\r\n")


@asynccontextmanager
async def reloadable() -> AsyncIterator[tuple[Served, RawUpstream, list[str]]]:
    """A gateway that reads its configuration from the list's last item."""
    async with raw_upstream(Flaky()) as upstream:
        texts = [toml(upstream)]
        async with serve(texts[0], reread=lambda: texts[-1]) as gateway:
            yield gateway, upstream, texts


@pytest.mark.parametrize("name", list(TABLES))
async def test_a_plugin_is_turned_off_by_sighup_while_streams_run_and_every_stream_arrives(
    name: str,
) -> None:
    async with reloadable() as (gateway, upstream, texts), trio.open_nursery() as nursery:
        await nursery.start(gateway.server.watch_signals)
        received: list[str] = []

        async def stream() -> None:
            received.append((await gateway.chat(stream=True)).text())

        async with trio.open_nursery() as streams:
            for _ in range(STREAMS):
                streams.start_soon(stream)
            before = gateway.server.generations.current
            with trio.fail_after(5):
                while before.live < STREAMS:
                    await trio.sleep(0.005)
            texts.append(toml(upstream, name))
            os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(5):
                while gateway.server.generations.current is before:
                    await trio.sleep(0.005)
            assert before.live > 0, "the switch waited for the streams"
            behaviour = await observe(gateway)
            assert behaviour == {**ALL_ON, **OFF[name]}
        assert received == ["".join(f"{n} " for n in range(EVENTS))] * STREAMS
        with trio.fail_after(5):
            while before.live:
                await trio.sleep(0.005)
        texts.append(toml(upstream))
        assert await gateway.server.reload()
        assert await observe(gateway) == ALL_ON
        nursery.cancel_scope.cancel()


ALL_ON: dict[str, object] = {"wrong key": 401, "limit shown": True, "flaky upstream": 200}
OFF: dict[str, dict[str, object]] = {
    "keys": {"wrong key": 200},
    "limits": {"limit shown": False},
    "routing": {"flaky upstream": 502},
}


async def observe(gateway: Served) -> dict[str, object]:
    """What each of the three plugins does, seen from outside."""
    key, gateway.key = gateway.key, "tk-wrong"
    wrong = await gateway.get("/v1/models")
    gateway.key = key
    shown = "x-ratelimit-limit-requests" in (await gateway.get("/v1/models")).headers
    flaky = await gateway.chat()
    if flaky.status != 200:
        assert (await gateway.chat()).status == 200  # the upstream's turn to succeed again
    return {"wrong key": wrong.status, "limit shown": shown, "flaky upstream": flaky.status}


async def test_a_rate_window_survives_a_switch_while_its_settings_stay_equal() -> None:
    async with raw_upstream(Flaky()) as upstream:
        limited = TABLES["keys"] + "[plugins.limits]\nrpm = 3\n"
        texts = [openai_toml(upstream, plugins=limited)]
        async with serve(texts[0], reread=lambda: texts[-1]) as gateway:
            for _ in range(3):
                assert (await gateway.chat(stream=True)).status == 200
                texts.append(openai_toml(upstream, plugins=limited + TABLES["routing"]))
                assert await gateway.server.reload()
                texts.append(openai_toml(upstream, plugins=limited))
                assert await gateway.server.reload()
            assert (await gateway.chat(stream=True)).status == 429


@pytest.mark.parametrize(
    ("mistake", "word"),
    [
        ("[plugins.limts]\n", "limts"),
        ("[server]\nprot = 1\n", "prot"),
        ("this is not TOML", "TOML"),
        ('[providers.x]\nkind = "nobody"\n', "nobody"),
    ],
)
async def test_a_mistake_keeps_the_old_configuration_and_says_why(
    mistake: str, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with reloadable() as (gateway, upstream, texts):
        before = gateway.server.generations.current
        texts.append(mistake + toml(upstream))
        assert not await gateway.server.reload()
        assert gateway.server.generations.current is before
        assert await observe(gateway) == ALL_ON
    assert word in caplog.text


async def test_what_needs_a_restart_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with reloadable() as (gateway, upstream, texts):
        texts.append('[server]\nbind = "127.0.0.1:1"\n' + toml(upstream))
        assert await gateway.server.reload()
        assert await observe(gateway) == ALL_ON
    assert "server.bind changes with the next start only" in caplog.text


async def test_a_plugin_that_fails_to_start_keeps_the_old_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from tollkeeper import PluginSettings, hookimpl

    class Broken:
        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        async def run(self, task_status: trio.TaskStatus[None]) -> None:
            raise RuntimeError("no licence today")

    async with raw_upstream(Flaky()) as upstream:
        texts = [toml(upstream)]
        async with serve(texts[0], {"broken": Broken}, lambda: texts[-1]) as gateway:
            texts.append(toml(upstream, more="[plugins.broken]\n"))
            assert not await gateway.server.reload()
            assert await observe(gateway) == ALL_ON
    assert "no licence today" in caplog.text


@pytest.mark.parametrize(("policy", "code"), [("guard", 1), ("observer", 0)])
async def test_a_crash_of_a_plugins_own_task_follows_its_policy(policy: str, code: int) -> None:
    from tollkeeper import PluginSettings, hookimpl

    crash = trio.Event()
    runs = 0

    class Crashing:
        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        async def run(self, task_status: trio.TaskStatus[None]) -> None:
            nonlocal runs
            runs += 1
            task_status.started()
            if runs == 1:
                await crash.wait()
                raise RuntimeError("crashed")
            await trio.sleep_forever()

    cls = type("OwnCrashing", (Crashing,), {"policy": policy})
    async with raw_upstream(Flaky()) as upstream:
        text = toml(upstream, more="[plugins.crashing]\n")
        async with serve(text, {"crashing": cls}) as gateway, trio.open_nursery() as nursery:
            nursery.start_soon(gateway.chat, "hello")
            nursery.cancel_scope.deadline = trio.current_time() + 10
            stream = trio.Event()

            async def run_stream() -> None:
                assert (await gateway.chat(stream=True)).text().endswith(f"{EVENTS - 1} ")
                stream.set()

            nursery.start_soon(run_stream)
            await trio.sleep(0.1)
            crash.set()
            await stream.wait()
            if policy == "guard":
                await gateway.server.over.wait()
            else:
                while runs < 2:
                    await trio.sleep(0.01)
                assert (await gateway.get("/healthz")).status == 200
    assert (gateway.server.exit_code, runs) == (code, 1 if code else 2)


async def test_a_reload_cannot_open_the_address_to_strangers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with raw_upstream(Flaky()) as upstream:
        public = '[server]\nbind = "0.0.0.0:8080"\n'
        texts = [public + toml(upstream)]
        async with serve(texts[0], reread=lambda: texts[-1]) as gateway:
            texts.append('[server]\nbind = "127.0.0.1:8080"\n' + toml(upstream, "keys"))
            assert not await gateway.server.reload()
            gateway.key = "tk-wrong"
            assert (await gateway.get("/v1/models")).status == 401
    assert "no plugin that authenticates is on" in caplog.text


async def test_a_gateway_that_waits_for_a_plugin_to_start_can_be_stopped() -> None:
    from tollkeeper import PluginSettings, hookimpl

    class Never:
        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        async def run(self, task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep_forever()

    async with raw_upstream(Flaky()) as upstream:
        texts = [toml(upstream)]
        async with serve(texts[0], {"never": Never}, lambda: texts[-1]) as gateway:
            async with trio.open_nursery() as nursery:
                await nursery.start(gateway.server.watch_signals)
                texts.append(toml(upstream, more="[plugins.never]\n"))
                os.kill(os.getpid(), signal.SIGHUP)
                await trio.sleep(0.05)
                os.kill(os.getpid(), signal.SIGTERM)
                with trio.fail_after(5):
                    await gateway.server.over.wait()
                nursery.cancel_scope.cancel()
