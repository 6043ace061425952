"""Who is calling: bearer keys in front of a gateway, and changes while it serves."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tollkeeper.announce import Announcer
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import parse_config
from tollkeeper.exchange import Exchange, Operation, Principal
from tollkeeper.gateway import Gateway, KeyIssuer, NewKey, Registry
from tollkeeper.hookspecs import hookimpl
from tollkeeper.settings import PluginSettings
from tollkeeper.testing import JumpClock, TestGateway, open_gateway
from tollkeeper_keys import Keys
from tollkeeper_keys.commands import TOPIC
from tollkeeper_keys.service import create_key, find_principal, hash_of, load_principals, revoke_key

KEYS = "[plugins.keys]\n"


async def status_with(gateway: TestGateway, authorization: str | None) -> int:
    headers = {} if authorization is None else {"authorization": authorization}
    return (await gateway.request("GET", "/v1/models", headers=headers)).status


async def test_a_key_that_was_made_opens_the_gateway() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        gateway.key = await gateway.create_key("ci", rpm=9)
        assert (await gateway.chat()).text() == "hello"
        principal = gateway.settled[0].principal
    assert (principal.org, principal.name, principal.rpm) == ("default", "ci", 9)
    assert principal.key


async def test_the_scheme_may_be_written_as_one_likes_but_must_be_bearer() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        key = await gateway.create_key()
        accepted = [f"Bearer {key}", f"bearer {key}", f"BEARER   {key} "]
        assert [await status_with(gateway, value) for value in accepted] == [200] * 3
        refused = [None, "", key, "Bearer", "Bearer ", f"Basic {key}", f"Bearer{key}"]
        assert [await status_with(gateway, value) for value in refused] == [401] * 7


@pytest.mark.parametrize("wrong", ["tk-unknown", "sk-unknown", "tk-", "tk-é"])
async def test_a_key_that_was_never_made_is_refused_in_the_shape_of_the_contract(
    wrong: str,
) -> None:
    async with open_gateway(toml=KEYS) as gateway:
        await gateway.create_key()
        gateway.key = wrong
        refused = await gateway.chat()
    assert (refused.status, refused.code) == (401, "auth_error")
    assert refused.headers["x-request-id"].startswith("req_")


async def test_a_key_may_not_be_half_right() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        key = await gateway.create_key()
        near = [key[:-1], key + "a", key.upper(), key[:10]]
        assert [await status_with(gateway, f"Bearer {other}") for other in near] == [401] * 4


async def test_a_caller_is_refused_before_its_body_is_read() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        headers = {"content-length": "1000000"}
        async with gateway.open("POST", "/v1/chat/completions", b"", headers) as link:
            assert link.status == 401


async def test_keys_are_issued_through_the_service_that_the_core_declares() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        issuer = gateway.generations.current.registry.services[KeyIssuer]
        assert isinstance(issuer, KeyIssuer)
        key = await issuer.create_key("ci", "acme", 5)
        assert isinstance(key, NewKey)
        assert (key.name, key.org, key.rpm) == ("ci", "acme", 5)
        assert await status_with(gateway, f"Bearer {key.key}") == 200


async def test_a_key_that_was_made_is_valid_at_once_however_many_are_guessing() -> None:
    async with open_gateway(toml=KEYS, clock=JumpClock()) as gateway:
        guesses = [await status_with(gateway, f"Bearer tk-{number}") for number in range(50)]
        assert guesses == [401] * 50
        assert await status_with(gateway, f"Bearer {await gateway.create_key()}") == 200


async def revoke(gateway: TestGateway, key: str) -> None:
    """Revoke in the table, as another process does."""
    database = gateway.generations.shared.database
    principal = await database.read(find_principal, hash_of(key))
    assert principal
    assert await database.write(revoke_key, principal.key)


async def test_a_key_revoked_elsewhere_is_refused_once_the_change_is_announced() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        gone, kept = await gateway.create_key(), await gateway.create_key()
        await revoke(gateway, gone)
        await gateway.generations.shared.database.announcer.apply(TOPIC)
        assert await status_with(gateway, f"Bearer {gone}") == 401
        assert await status_with(gateway, f"Bearer {kept}") == 200


async def test_a_key_made_elsewhere_opens_the_gateway_even_if_nobody_announced_it() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        database = gateway.generations.shared.database
        key = await database.write(create_key, "ci", "default", None)
        assert await status_with(gateway, f"Bearer {key.key}") == 200


async def test_keys_made_before_the_plugin_was_on_are_known_once_it_is() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        key = await gateway.create_key()
        await gateway.switch("")
        assert await status_with(gateway, None) == 200
        await gateway.switch(KEYS)
        assert await status_with(gateway, None) == 401
        assert await status_with(gateway, f"Bearer {key}") == 200


async def test_another_plugin_may_judge_what_is_no_virtual_key() -> None:
    class Tokens:
        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        async def authenticate(self, exchange: Exchange) -> Principal | None:
            if exchange.headers.get("authorization") == "Bearer jwt":
                return Principal("acme", name="jwt")
            return None

    async with open_gateway(
        toml=KEYS + "[plugins.tokens]\n", plugins={"tokens": Tokens}
    ) as gateway:
        assert await status_with(gateway, "Bearer jwt") == 200
        assert await status_with(gateway, f"Bearer {await gateway.create_key()}") == 200
        assert await status_with(gateway, "Bearer other") == 401


class Table:
    """A database whose reads can be held up after they have read."""

    def __init__(self) -> None:
        self.announcer = Announcer(None)
        self.valid: dict[str, Principal] = {}
        self.reads = 0
        self.gates: list[trio.Event] = []

    def hold_next_read(self) -> trio.Event:
        gate = trio.Event()
        self.gates.append(gate)
        return gate

    async def read(self, work: Callable[..., Any], *args: str) -> object:
        """What the work would have found at this moment, given back when the gate opens."""
        self.reads += 1
        found = dict(self.valid) if work is load_principals else self.valid.get(*args)
        await trio.lowlevel.checkpoint()
        if self.gates:
            await self.gates.pop(0).wait()
        return found


async def start(nursery: trio.Nursery, table: Table) -> Keys:
    plugin = Keys(PluginSettings())
    registry = Registry(parse_config("", Catalogue()), table, JumpClock())  # type: ignore[arg-type]
    plugin.register(Gateway(registry, "keys"))
    await nursery.start(plugin.run)
    return plugin


def call_with(key: str) -> Exchange:
    operation = Operation("models", "GET", "/v1/models")
    return Exchange(operation, "", {"authorization": f"Bearer {key}"}, "test", 0.0)


ANN = Principal("default", key="key_ann", name="ann")


async def in_background(nursery: trio.Nursery, call: Callable[[], Awaitable[object]]) -> trio.Event:
    """Start a call and let it come as far as it can. The event says that it is over."""
    over = trio.Event()

    async def run() -> None:
        await call()
        over.set()

    nursery.start_soon(run)
    await trio.testing.wait_all_tasks_blocked()
    return over


async def test_an_unknown_key_costs_one_query_and_a_known_one_none(nursery: trio.Nursery) -> None:
    table = Table()
    table.valid = {hash_of("tk-ann"): ANN}
    plugin = await start(nursery, table)
    before = table.reads
    assert await plugin.authenticate(call_with("tk-ann")) == ANN
    assert table.reads == before
    for _ in range(3):
        assert await plugin.authenticate(call_with("tk-guess")) is None
    assert await plugin.authenticate(call_with("sk-guess")) is None
    assert table.reads == before + 1


async def test_a_slow_reload_cannot_bring_back_a_key_that_a_later_one_saw_revoked(
    nursery: trio.Nursery,
) -> None:
    table = Table()
    table.valid = {hash_of("tk-ann"): ANN}
    plugin = await start(nursery, table)
    gate = table.hold_next_read()
    slow = await in_background(nursery, lambda: table.announcer.apply(TOPIC))
    table.valid = {}
    fast = await in_background(nursery, lambda: table.announcer.apply(TOPIC))
    gate.set()
    await slow.wait()
    await fast.wait()
    assert await plugin.authenticate(call_with("tk-ann")) is None


async def test_a_slow_look_up_cannot_bring_back_a_key_that_was_revoked_meanwhile(
    nursery: trio.Nursery,
) -> None:
    table = Table()
    plugin = await start(nursery, table)
    table.valid = {hash_of("tk-ann"): ANN}
    gate = table.hold_next_read()
    looked_up = await in_background(nursery, lambda: plugin.authenticate(call_with("tk-ann")))
    table.valid = {}
    await table.announcer.apply(TOPIC)
    gate.set()
    await looked_up.wait()
    assert await plugin.authenticate(call_with("tk-ann")) is None
