"""Installed plugins, found through entry points of made-up distributions."""

import sys
from pathlib import Path

import pytest

from tollkeeper.catalogue import Catalogue, PluginClass
from tollkeeper.errors import PluginError
from tollkeeper.hookspecs import hookimpl
from tollkeeper.settings import PluginSettings


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, where `install` puts distributions."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, name: str, source: str, target: str = "Plugin") -> None:
    """A distribution `toy-<name>` with a plugin `name` in a module of the same name."""
    info = site / f"toy_{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: toy-{name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[tollkeeper]\n{name} = toy_{name}:{target}\n")
    (site / f"toy_{name}.py").write_text(source)


def test_an_installed_plugin_is_listed_with_its_origin_and_not_imported(site: Path) -> None:
    install(site, "listed", "raise RuntimeError('imported')")
    catalogue = Catalogue()
    assert catalogue["listed"] == "toy-listed 1.5"
    assert set(catalogue) >= {"listed", "keys", "limits", "routing", "openai", "demo"}
    assert len(catalogue) == len(list(catalogue))
    assert "toy_listed" not in sys.modules


def test_loading_a_plugin_gives_its_class_and_what_it_says_of_itself(site: Path) -> None:
    source = """
from tollkeeper import PluginSettings, hookimpl

class Settings(PluginSettings):
    word: str = "no"

class Plugin:
    Settings = Settings
    policy = "observer"

    @hookimpl
    def settle(self): ...

    @hookimpl
    async def admit(self): ...
"""
    install(site, "whole", source)
    plugin = Catalogue().load("whole")
    assert (plugin.name, plugin.policy, plugin.package) == ("whole", "observer", "toy_whole")
    assert plugin.settings.model_fields.keys() == {"enabled", "word"}
    assert plugin.hooks() == ["admit", "settle"]


def test_what_a_plugin_does_not_say_is_guard_and_no_settings() -> None:
    class Plugin:
        pass

    plugin = PluginClass.of("bare", Plugin)
    assert (plugin.policy, plugin.settings) == ("guard", PluginSettings)
    assert plugin.hooks() == []


def test_a_method_that_is_named_like_a_hook_and_is_none_is_refused() -> None:
    class Plugin:
        async def admit(self) -> None:
            """Never called: it lacks its mark."""

        @hookimpl
        def settle(self) -> None:
            pass

    with pytest.raises(PluginError, match="plugin own: admit is named like a hook"):
        PluginClass.of("own", Plugin)


@pytest.mark.parametrize(
    ("name", "source", "cause"),
    [
        ("raises", "raise ValueError('first line\\nsecond line')", "ValueError: first line"),
        ("misses", "import no_such_module_anywhere", "no_such_module_anywhere"),
        ("lacks", "Other = 1", "Plugin"),
        ("garbled", "def broken(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line_that_says_why(
    site: Path, name: str, source: str, cause: str
) -> None:
    install(site, name, source)
    with pytest.raises(PluginError) as caught:
        Catalogue().load(name)
    assert f"plugin {name}" in str(caught.value)
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_policy_that_does_not_exist_is_refused() -> None:
    class Plugin:
        policy = "gard"

    with pytest.raises(PluginError, match=r"plugin odd.*guard.*observer.*'gard'"):
        PluginClass.of("odd", Plugin)


@pytest.mark.parametrize("settings", [dict, {"rpm": 3}])
def test_settings_that_are_no_settings_are_refused(settings: object) -> None:
    plugin = type("Plugin", (), {"Settings": settings})
    with pytest.raises(PluginError, match=r"plugin odd.*PluginSettings"):
        PluginClass.of("odd", plugin)


def test_a_class_given_by_hand_wins_over_an_installed_one_of_its_name() -> None:
    class Mine:
        pass

    catalogue = Catalogue({"keys": Mine, "mine": Mine})
    assert catalogue.load("keys").cls is Mine
    assert catalogue["mine"] == catalogue["keys"] == "given to the gateway"
    assert len(catalogue) == len(Catalogue()) + 1
