"""What stops a start, and what it says."""

from pathlib import Path
from typing import Any

import click
import pytest

from tollkeeper import Gateway, PluginSettings, hookimpl
from tollkeeper._server.generation import Shared
from tollkeeper._server.loading import build_generation, find_all_problems, is_loopback
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import parse_config
from tollkeeper.errors import ConfigError
from tollkeeper.storage import make_database


def shared() -> Shared:
    return Shared(make_database("sqlite:///:memory:", Path("/")))


def problems_of(toml: str, **plugins: type[Any]) -> list[str]:
    try:
        config = parse_config(toml, Catalogue(plugins), name="t")
        build_generation(config, shared())
    except ConfigError as error:
        return [str(problem) for problem in find_all_problems(error, shared()).problems]
    return []


class Plain:
    def __init__(self, settings: PluginSettings) -> None:
        pass


def test_an_empty_configuration_is_fine() -> None:
    assert problems_of("") == []


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ('[providers.x]\nkind = "demo"\n', 't:2: unknown provider kind "demo"'),
        ('[providers.x]\nkind = "demi"\n[plugins.demo]\n', 'did you mean "demo"?'),
        ('[providers.x]\nkind = "openai"\n[plugins.openai]\n', "needs a base_url"),
        ('[storage]\nurl = "postgresql://a/b"\n', "t:2: PostgreSQL"),
        ('[storage]\nurl = "mysql://a/b"\n', "t:2: a storage URL is"),
        ('[server]\nbind = "0.0.0.0:80"\n', "t:2: server.bind"),
        ('[server]\nbind = "[::]:80"\n', "server.open = true"),
    ],
)
def test_what_nothing_can_serve_is_an_error_that_says_so(toml: str, told: str) -> None:
    (problem,) = problems_of(toml)
    assert told in problem


@pytest.mark.parametrize(
    "toml",
    [
        '[server]\nbind = "0.0.0.0:80"\nopen = true\n',
        '[server]\nbind = "0.0.0.0:80"\n[plugins.keys]\n',
        '[server]\nbind = "[::1]:80"\n',
        '[server]\nbind = "localhost:80"\n',
        '[server]\nbind = "127.9.9.9:80"\n',
    ],
)
def test_a_gateway_is_open_to_others_only_with_authentication_or_on_purpose(toml: str) -> None:
    assert problems_of(toml) == []


def test_loopback_is_told_from_the_rest() -> None:
    assert is_loopback("127.0.0.1:1")
    assert not is_loopback("10.0.0.1:1")


def test_problems_of_reading_and_of_building_come_together() -> None:
    told = problems_of('[server]\nx = 1\n[providers.p]\nkind = "nobody"\n')
    assert [problem.split(": ")[0] for problem in told] == ["t:2", "t:4"]


def test_a_plugin_with_mistakes_makes_no_second_complaint_about_its_kind() -> None:
    (told,) = problems_of('[providers.p]\nkind = "demo"\n[plugins.demo]\nx = 1\n')
    assert told.startswith("t:4: unknown key")


class Misspelt(Plain):
    @hookimpl
    async def admitt(self) -> None:
        pass


class WrongColour(Plain):
    @hookimpl
    def admit(self) -> None:
        pass


class WrongArgument(Plain):
    @hookimpl
    async def admit(self, request: object) -> None:
        pass


class Crashing:
    def __init__(self, settings: PluginSettings) -> None:
        raise ValueError("no licence")


class Needy(Plain):
    @hookimpl
    def register(self, gateway: Gateway) -> None:
        async def page() -> dict[str, str]:
            return {}

        gateway.add_route("/x", page, policy="owner")


class Doubled(Plain):
    @hookimpl
    def register(self, gateway: Gateway) -> None:
        gateway.add_command(click.Command("keys"))


@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        (Misspelt, "admitt"),
        (WrongColour, "`async def`"),
        (WrongArgument, "request"),
        (Crashing, "no licence"),
        (Needy, "Authorizer"),
        (Doubled, "plugins keys and mine both add command keys"),
    ],
)
def test_a_plugin_that_breaks_its_contract_stops_the_start_and_is_named(
    plugin: type[Any], told: str
) -> None:
    (problem,) = problems_of("[plugins.keys]\n[plugins.mine]\n", mine=plugin)
    assert told in problem
    assert "mine" in problem


def test_a_second_deployment_without_a_router_is_a_warning() -> None:
    toml = (
        '[providers.d]\nkind = "demo"\n[models.m]\ndeployments = [{ provider = "d", model = "a" }'
    )
    toml += ', { provider = "d", model = "b" }]\n[plugins.demo]\n'
    (warning,) = build_generation(parse_config(toml, Catalogue(), name="t"), shared()).warnings
    assert str(warning).startswith("t:4: ")
    assert "the first is used" in str(warning)
    routed = parse_config(toml + "[plugins.routing]\n", Catalogue())
    assert build_generation(routed, shared()).warnings == []
