"""What a plugin registers at the gateway, and how a name taken twice is told."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import click
import pytest
import trio
import trio.testing

from tollkeeper.catalogue import Catalogue
from tollkeeper.config import parse_config
from tollkeeper.errors import ConfigError, PluginError
from tollkeeper.exchange import Operation
from tollkeeper.gateway import Gateway, KeyIssuer, NewKey, Registry
from tollkeeper.hookspecs import hookimpl
from tollkeeper.management import Authorizer, Caller, Done, Write
from tollkeeper.provider import Clock
from tollkeeper.settings import DeploymentSettings, ModelSettings, PluginSettings
from tollkeeper.storage import make_database
from tollkeeper.testing import open_gateway

MODEL = ModelSettings(deployments=(DeploymentSettings(provider="scripted", model="m"),))


class Issuer:
    """Offers what keys offers."""

    async def create_key(self, name: str, org: str, rpm: int | None = None) -> NewKey:
        return NewKey("key_1", "tk-1", "tk-", name, org, rpm, 0)


class Doorkeeper:
    async def authorize(self, headers: Mapping[str, str], policy: frozenset[str]) -> Caller:
        return Caller("user_1", "o@example.org", "jti")

    async def write(self, write: Write, act: Callable[[], Awaitable[Done]]) -> Done:
        return await act()


async def page(caller: Caller | None = None) -> dict[str, str]:
    return {}


def registry() -> Registry:
    database = make_database("sqlite:///:memory:", Path("/"))
    return Registry(parse_config("", Catalogue()), database, Clock())


REGISTRATIONS: dict[str, Callable[[Gateway], None]] = {
    "provider kind toy": lambda g: g.add_provider("toy", lambda context: None),  # type: ignore[arg-type,return-value]
    "operation POST /v1/toy": lambda g: g.add_operation(Operation("toy", "POST", "/v1/toy")),
    "route GET /toy": lambda g: g.add_route("/toy", page, policy="open"),
    "command toy": lambda g: g.add_command(click.Command("toy")),
    "model toy": lambda g: g.add_models({"toy": MODEL}),
    "service KeyIssuer": lambda g: g.offer(KeyIssuer, Issuer()),  # type: ignore[type-abstract]
}


@pytest.mark.parametrize("what", REGISTRATIONS)
def test_a_name_taken_twice_is_an_error_that_names_both_plugins(what: str) -> None:
    register, shared = REGISTRATIONS[what], registry()
    register(Gateway(shared, "first"))
    with pytest.raises(PluginError) as caught:
        register(Gateway(shared, "second"))
    assert "first and second" in str(caught.value)
    assert what in str(caught.value)


@pytest.mark.parametrize("what", REGISTRATIONS)
def test_a_plugin_cannot_take_a_name_twice_either(what: str) -> None:
    register, gateway = REGISTRATIONS[what], Gateway(registry(), "first")
    register(gateway)
    with pytest.raises(PluginError, match="first"):
        register(gateway)


def test_a_plugin_cannot_take_an_operation_of_the_core_by_another_name_for_its_value() -> None:
    shared = registry()
    Gateway(shared, "core").add_operation(Operation("model", "GET", "/v1/models/{id}"))
    with pytest.raises(PluginError, match="core and mine"):
        Gateway(shared, "mine").add_operation(Operation("mine", "GET", "/v1/models/{name}"))


def test_the_same_path_may_have_another_method() -> None:
    shared = registry()
    Gateway(shared, "first").add_route("/toy", page, policy="open", methods=("GET", "DELETE"))
    Gateway(shared, "second").add_route("/toy", page, policy="open", methods=("POST",))
    assert set(shared.routes) == {("GET", "/toy"), ("DELETE", "/toy"), ("POST", "/toy")}


@pytest.mark.parametrize(
    "policy",
    ["", "everyone", frozenset(), frozenset({"owner", "root"}), frozenset({"user", "owner"})],
)
def test_a_route_without_a_known_policy_is_refused(policy: str | frozenset[str]) -> None:
    with pytest.raises(PluginError, match=r"plugin mine: route /toy needs a policy of: .*open"):
        Gateway(registry(), "mine").add_route("/toy", page, policy=policy)


def test_a_route_cannot_be_open_and_for_a_role_at_once() -> None:
    with pytest.raises(PluginError, match="/toy"):
        Gateway(registry(), "mine").add_route("/toy", page, policy=frozenset({"open", "owner"}))


def test_models_of_plugins_are_added_beside_those_of_the_file_which_win() -> None:
    shared = registry()
    of_the_file = MODEL.model_copy(update={"owned_by": "file"})
    shared.models["m"] = of_the_file
    Gateway(shared, "mine").add_models({"m": MODEL, "n": MODEL})
    assert shared.models == {"m": of_the_file, "n": MODEL}


def plugin(register: Callable[[Gateway], None]) -> type[Any]:
    class Plugin:
        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        def register(self, gateway: Gateway) -> None:
            register(gateway)

    return Plugin


async def problem_of(**plugins: type[Any]) -> str:
    """The one problem for which a gateway with these plugins does not start."""
    with pytest.raises(ConfigError) as caught:
        async with open_gateway(plugins=plugins):
            pass
    (problem,) = caught.value.problems
    return str(problem)


async def test_a_service_that_nobody_offers_stops_the_start_with_one_line() -> None:
    needy = plugin(lambda gateway: gateway.need(KeyIssuer, "keys"))
    problem = await problem_of(needy=needy)
    assert problem.startswith("<test>:1: ")
    assert "needy" in problem
    assert "KeyIssuer" in problem


async def test_a_route_for_roles_needs_somebody_who_knows_roles() -> None:
    managed = plugin(lambda g: g.add_route("/toy", page, policy=frozenset({"owner", "admin"})))
    problem = await problem_of(managed=managed)
    assert "managed" in problem
    assert "Authorizer" in problem
    offering = plugin(lambda g: g.offer(Authorizer, Doorkeeper()))  # type: ignore[type-abstract]
    async with open_gateway(plugins={"managed": managed, "offering": offering}) as gateway:
        assert (await gateway.get("/toy")).status == 200


async def test_a_name_taken_by_two_plugins_stops_the_start() -> None:
    register = REGISTRATIONS["operation POST /v1/toy"]
    assert "one and two" in await problem_of(one=plugin(register), two=plugin(register))


async def test_what_is_offered_is_found_in_whatever_order_plugins_stand() -> None:
    gateways: list[Gateway] = []
    issuer = Issuer()

    def use(gateway: Gateway) -> None:
        gateway.need(KeyIssuer, "keys")
        gateways.append(gateway)

    def give(gateway: Gateway) -> None:
        gateway.offer(KeyIssuer, issuer)  # type: ignore[type-abstract]

    async with open_gateway(plugins={"using": plugin(use), "giving": plugin(give)}):
        assert gateways[0].find(KeyIssuer) is issuer  # type: ignore[type-abstract]
        assert gateways[0].find(Authorizer) is None  # type: ignore[type-abstract]


def test_what_is_offered_must_be_what_it_is_offered_as() -> None:
    with pytest.raises(PluginError, match=r"mine.*KeyIssuer"):
        Gateway(registry(), "mine").offer(KeyIssuer, object())


@runtime_checkable
class Ledger(Protocol):
    def book(self) -> None: ...


def test_a_service_that_is_not_offered_is_not_found() -> None:
    assert Gateway(registry(), "mine").find(Ledger) is None  # type: ignore[type-abstract]


async def test_the_clock_counts_as_trio_does(autojump_clock: trio.testing.MockClock) -> None:
    clock = Clock()
    before = clock.monotonic()
    await trio.sleep(90)
    assert clock.monotonic() - before == 90
