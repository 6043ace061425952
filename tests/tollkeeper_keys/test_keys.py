"""Who is calling: bearer keys in front of a gateway, and changes while it serves."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from harness import openai_toml, raw_upstream, replying, serve

from tollkeeper._server.link import Link
from tollkeeper.announce import Announcer
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import parse_config
from tollkeeper.errors import Failed, Refused
from tollkeeper.exchange import Exchange, Operation, Principal
from tollkeeper.gateway import Gateway, KeyIssuer, NewKey, Registry
from tollkeeper.hookspecs import hookimpl
from tollkeeper.management import KeyStore, KeyTerms, ManagedKey
from tollkeeper.settings import PluginSettings
from tollkeeper.testing import JumpClock, ScriptedUpstream, TestGateway, open_gateway
from tollkeeper_keys import NOTE_SECONDS, Keys
from tollkeeper_keys.service import (
    TOPIC,
    Holder,
    find_holder,
    hash_of,
    issue_key,
    list_keys,
    load_holders,
    note_uses,
    revoke_key,
)

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
    holder = await database.read(find_holder, hash_of(key), 0.0)
    assert holder
    assert await database.write(revoke_key, None, holder.key, 0.0)


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
        key = await database.write(issue_key, "default", KeyTerms(name="ci"), 0.0)
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


def store_of(gateway: TestGateway) -> KeyStore:
    store = gateway.generations.current.registry.services[KeyStore]
    assert isinstance(store, KeyStore)
    return store


async def make(gateway: TestGateway, **terms: Any) -> tuple[ManagedKey, str]:
    return await store_of(gateway).add_key("default", KeyTerms(**{"name": "ci", **terms}))


async def test_a_key_of_the_store_opens_the_gateway_and_is_listed_for_its_organization() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        store = store_of(gateway)
        key, secret = await store.add_key("acme", KeyTerms(name="ci", rpm=9, models=("test",)))
        assert (key.name, key.rpm, key.models) == ("ci", 9, ("test",))
        assert secret.startswith(key.prefix)
        assert list(await store.keys_of("acme")) == [key]
        assert list(await store.keys_of("default")) == []
        gateway.key = secret
        assert (await gateway.chat()).status == 200
        principal = gateway.settled[0].principal
    assert principal == Principal("acme", key.id, "ci", 9, frozenset({"test"}))


async def test_a_key_is_refused_a_model_that_it_may_not_ask_for() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, KEYS) as gateway:
        _, gateway.key = await make(gateway, models=("other",))
        for model in ("test", "nowhere"):
            refused = await gateway.chat(model=model)
            assert (refused.status, refused.code) == (403, "auth_error")
            error = refused.json()["error"]
            assert f"'{model}'" in error["message"]
            assert error["param"] == "model"
        assert (await gateway.chat(model="other")).code == "model_not_found"
        assert upstream.bodies == []


async def test_a_key_for_some_models_asks_for_those_and_sees_the_list_of_all() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        _, gateway.key = await make(gateway, models=("other", "test"))
        assert (await gateway.chat()).text() == "hello"
        _, gateway.key = await make(gateway, models=())
        assert (await gateway.chat()).status == 403
        listed = (await gateway.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["test"]
        assert (await gateway.get("/v1/models/test")).status == 200


async def test_who_is_no_key_may_ask_for_all_models() -> None:
    plugin = Keys(PluginSettings())
    exchange = call_with("tk-ann")
    exchange.model = "test"
    for principal in (exchange.principal, Principal("acme", name="jwt")):
        exchange.principal = principal
        await plugin.admit(exchange)
    exchange.principal = Principal("acme", "key_ann", models=frozenset({"other"}))
    with pytest.raises(Refused, match="'test'"):
        await plugin.admit(exchange)


async def test_new_terms_hold_once_they_are_given() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        key, gateway.key = await make(gateway)
        assert (await gateway.chat()).status == 200
        terms = KeyTerms(name="ci", models=("other",))
        changed = await store_of(gateway).change_key("default", key.id, terms)
        assert changed
        assert changed.models == ("other",)
        assert (await gateway.chat()).status == 403


async def test_a_key_is_refused_from_its_expiry_on() -> None:
    clock = JumpClock()
    async with open_gateway(toml=KEYS, clock=clock) as gateway:
        key, gateway.key = await make(gateway, expires_at=int(clock.time()) + 60)
        clock.jump(59.9)
        assert (await gateway.chat()).status == 200
        assert [each.id for each in await store_of(gateway).keys_of("default")] == [key.id]
        clock.jump(0.1)
        refused = await gateway.chat()
        assert (refused.status, refused.code) == (401, "auth_error")
        assert list(await store_of(gateway).keys_of("default")) == []


async def test_an_expiry_that_is_moved_counts_at_once() -> None:
    clock = JumpClock()
    async with open_gateway(toml=KEYS, clock=clock) as gateway:
        store, soon = store_of(gateway), int(clock.time()) + 60
        key, gateway.key = await make(gateway)
        await store.change_key("default", key.id, KeyTerms(name="ci", expires_at=soon))
        await store.change_key("default", key.id, KeyTerms(name="ci", expires_at=soon + 60))
        clock.jump(60)
        assert (await gateway.chat()).status == 200
        clock.jump(60)
        assert (await gateway.chat()).status == 401


async def test_a_rotated_key_opens_the_gateway_by_its_old_secret_until_the_grace_is_over() -> None:
    clock = JumpClock()
    async with open_gateway(toml=KEYS, clock=clock) as gateway:
        key, old = await make(gateway)
        rotated = await store_of(gateway).rotate_key("default", key.id, 60)
        assert rotated
        shown, new = rotated
        assert (shown.id, shown.prefix) == (key.id, new[: len(key.prefix)])
        clock.jump(59.9)
        assert [await status_with(gateway, f"Bearer {each}") for each in (old, new)] == [200, 200]
        clock.jump(0.1)
        assert [await status_with(gateway, f"Bearer {each}") for each in (old, new)] == [401, 200]


async def test_without_a_grace_the_old_secret_ends_at_once() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        key, old = await make(gateway)
        assert await store_of(gateway).rotate_key("default", key.id, 0)
        assert await status_with(gateway, f"Bearer {old}") == 401


async def test_a_revoked_key_ends_by_both_its_secrets() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        key, old = await make(gateway)
        rotated = await store_of(gateway).rotate_key("default", key.id, 60)
        assert rotated
        revoked = await store_of(gateway).revoke_key("default", key.id)
        assert revoked
        assert revoked.revoked_at is not None
        secrets = (old, rotated[1])
        assert [await status_with(gateway, f"Bearer {each}") for each in secrets] == [401, 401]
        assert list(await store_of(gateway).keys_of("default")) == []
        assert await store_of(gateway).revoke_key("default", key.id) is None


async def test_a_key_of_another_organization_is_as_absent_as_none() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        store, terms = store_of(gateway), KeyTerms(name="taken", models=("other",))
        key, gateway.key = await make(gateway)
        for org, key_id in (("acme", key.id), ("default", "key_none")):
            assert await store.change_key(org, key_id, terms) is None
            assert await store.rotate_key(org, key_id, 0) is None
            assert await store.revoke_key(org, key_id) is None
        assert (await gateway.chat()).status == 200
        (listed,) = await store.keys_of("default")
        assert (listed.name, listed.prefix, listed.models) == ("ci", key.prefix, None)


async def test_terms_that_cannot_be_are_refused_and_change_nothing() -> None:
    clock = JumpClock()
    async with open_gateway(toml=KEYS, clock=clock) as gateway:
        store = store_of(gateway)
        key, _ = await make(gateway)
        for name, value in (("name", "a\nb"), ("rpm", 0), ("expires_at", int(clock.time()))):
            changes: dict[str, Any] = {"name": "new", name: value}
            terms = KeyTerms(**changes)
            for call in (
                store.add_key("default", terms),
                store.change_key("default", key.id, terms),
            ):
                with pytest.raises(Refused) as refused:
                    await call
                assert (refused.value.status, refused.value.param) == (400, name)
        for grace in (-1, 10**12):
            with pytest.raises(Refused) as refused:
                await store.rotate_key("default", key.id, grace)
            assert (refused.value.status, refused.value.param) == (400, "grace_seconds")
        assert list(await store.keys_of("default")) == [key]


async def test_a_client_that_leaves_does_not_keep_a_change_from_being_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_gateway(toml=KEYS) as gateway:
        key, gateway.key = await make(gateway)
        database = gateway.generations.shared.database
        write, scope = database.write, trio.CancelScope()

        async def write_and_leave(*args: Any) -> Any:
            result = await write(*args)
            scope.cancel()
            return result

        monkeypatch.setattr(database, "write", write_and_leave)
        with scope:
            await store_of(gateway).revoke_key("default", key.id)
        assert (await gateway.chat()).status == 401


async def test_whatever_is_changed_is_told_to_other_processes_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_gateway(toml=KEYS) as gateway:
        store, told = store_of(gateway), list[str]()

        def tell_others(topic: str) -> list[str]:
            told.append(topic)
            return ["/run/my.db.7.sock"]

        monkeypatch.setattr(
            gateway.generations.shared.database.announcer, "tell_others", tell_others
        )
        key, _ = await make(gateway)
        with pytest.raises(Failed, match="did not confirm"):
            await store.change_key("default", key.id, KeyTerms(name="new"))
        assert await store.rotate_key("default", key.id, 0) is not None
        await store.keys_of("default")
        with pytest.raises(Failed, match="did not confirm"):
            await store.revoke_key("default", key.id)
        assert told == [TOPIC] * 4
        assert caplog.text.count("behind /run/my.db.7.sock did not confirm") == 4
        assert await store.revoke_key("default", key.id) is None
        assert told == [TOPIC] * 4


@pytest.mark.parametrize("ending", ["revoked", "rotated"])
async def test_a_key_that_ended_is_refused_by_the_next_request_on_a_connection_that_is_open(
    ending: str,
) -> None:
    async with raw_upstream(replying(b"")) as upstream:
        async with serve(openai_toml(upstream, plugins=KEYS)) as gateway:
            store = gateway.server.generations.current.registry.services[KeyStore]
            assert isinstance(store, KeyStore)
            key, secret = await store.add_key("default", KeyTerms(name="ci"))
            request = gateway.head("GET", "/v1/models", {"authorization": f"Bearer {secret}"})
            link = Link(await gateway.connect())
            assert await status_on(link, request) == 200
            if ending == "revoked":
                assert await store.revoke_key("default", key.id)
            else:
                assert await store.rotate_key("default", key.id, 0)
            assert await status_on(link, request) == 401
            await link.aclose()


async def status_on(link: Link, request: bytes) -> int:
    """Of a request on a connection that stays open."""
    await link.request(request)
    while await link.chunk():
        pass
    return link.status


async def test_the_store_tells_of_a_use_that_the_table_does_not_know_yet() -> None:
    clock = JumpClock()
    async with open_gateway(toml=KEYS, clock=clock) as gateway:
        key, gateway.key = await make(gateway)
        assert key.last_used_at is None
        await gateway.chat()
        minute = max(int(clock.time()) // 60 * 60, key.created_at)
        (listed,) = await store_of(gateway).keys_of("default")
        rows = await gateway.generations.shared.database.read(list_keys)
        assert (listed.last_used_at, rows[0]["last_used_at"]) == (minute, None)
        rotated = await store_of(gateway).rotate_key("default", key.id, 60)
        assert rotated
        assert rotated[0].last_used_at == minute


async def test_a_later_use_that_another_process_stored_is_told_of() -> None:
    clock = JumpClock()
    async with open_gateway(toml=KEYS, clock=clock) as gateway:
        key, gateway.key = await make(gateway)
        await gateway.chat()
        later = int(clock.time()) // 60 * 60 + 60
        await gateway.generations.shared.database.write(note_uses, {key.id: later})
        (listed,) = await store_of(gateway).keys_of("default")
        assert listed.last_used_at == later


async def test_a_use_is_in_the_table_once_the_plugin_stopped() -> None:
    clock = JumpClock()
    async with open_gateway(toml=KEYS, clock=clock) as gateway:
        _, gateway.key = await make(gateway)
        await make(gateway, name="never used")
        await gateway.chat()
        await gateway.switch("")
        database = gateway.generations.shared.database
        with trio.fail_after(5):
            while not (rows := await database.read(list_keys))[0]["last_used_at"]:
                await trio.sleep(0.005)
        assert rows[0]["last_used_at"] == int(clock.time()) // 60 * 60
        assert rows[1]["last_used_at"] is None


class Table:
    """A database whose reads can be held up after they have read."""

    def __init__(self) -> None:
        self.announcer = Announcer(None)
        self.valid: dict[str, Principal] = {}
        self.reads = 0
        self.gates: list[trio.Event] = []
        self.uses: list[dict[str, int]] = []
        self.broken = False

    def hold_next_read(self) -> trio.Event:
        gate = trio.Event()
        self.gates.append(gate)
        return gate

    async def read(self, work: Callable[..., Any], *args: Any) -> object:
        """What the work would have found at this moment, given back when the gate opens."""
        self.reads += 1
        held = {hashed: Holder(who.key or "", who, None) for hashed, who in self.valid.items()}
        found = held if work is load_holders else held.get(args[0])
        await trio.lowlevel.checkpoint()
        if self.gates:
            await self.gates.pop(0).wait()
        return found

    async def write(self, work: Callable[..., Any], uses: dict[str, int]) -> None:
        """Keep the uses that are to be stored."""
        assert work is note_uses
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise OSError("disk full")
        self.uses.append(uses)


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


async def test_uses_are_stored_once_a_minute_each_key_once(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    table = Table()
    table.valid = {hash_of("tk-ann"): ANN}
    plugin = await start(nursery, table)
    for _ in range(3):
        await plugin.authenticate(call_with("tk-ann"))
        await plugin.authenticate(call_with("tk-guess"))
    assert table.uses == []
    for _ in range(3):
        mock_clock.jump(NOTE_SECONDS)
        await trio.testing.wait_all_tasks_blocked()
        assert [list(uses) for uses in table.uses] == [["key_ann"]]


async def test_uses_that_could_not_be_stored_stop_nothing_and_are_stored_later(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    table = Table()
    table.valid = {hash_of("tk-ann"): ANN}
    plugin = await start(nursery, table)
    await plugin.authenticate(call_with("tk-ann"))
    for table.broken in (True, False):
        mock_clock.jump(NOTE_SECONDS)
        await trio.testing.wait_all_tasks_blocked()
    assert "could not be stored" in caplog.text
    assert [list(uses) for uses in table.uses] == [["key_ann"]]
    assert await plugin.authenticate(call_with("tk-ann")) == ANN


async def test_changes_of_different_terms_at_once_both_stay() -> None:
    async with open_gateway(toml=KEYS) as gateway:
        store = store_of(gateway)
        key, _ = await store.add_key("default", KeyTerms(name="ci"))
        terms = KeyTerms(name="-", rpm=7, models=("m",))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.change_key, "default", key.id, terms, {"rpm"})
            nursery.start_soon(store.change_key, "default", key.id, terms, {"models"})
        (changed,) = await store.keys_of("default")
        assert (changed.name, changed.rpm, changed.models) == ("ci", 7, ("m",))
        assert await store.change_key("default", key.id, terms, ()) == changed
