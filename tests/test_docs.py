"""The documentation, checked against the code: names, signatures, settings, links, commands."""

import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tollkeeper.__main__ import main
from tollkeeper._server.generation import Shared
from tollkeeper._server.loading import build_generation
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import Config, parse_config
from tollkeeper.errors import OTHER_CODES, TABLE_CODES, ConfigError
from tollkeeper.hookspecs import Hooks
from tollkeeper.schema import CORE_TABLES
from tollkeeper.settings import Table
from tollkeeper.storage import make_database
from tollkeeper.testing import open_gateway

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
TUTORIAL = DOCS / "tutorial" / "first_plugin"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("plugins/*/README.md")])
PLUGINS = sorted(
    path.name.removeprefix("tollkeeper_") for path in ROOT.glob("plugins/tollkeeper_*")
)
HOOKS = [name for name in vars(Hooks) if not name.startswith("_")]

# Commands of others that the pages may show.
FOREIGN = {"pip", "python", "curl", "export", "kill"}
STRIPE = {"STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_WEBHOOK_SECRET": "whsec_x"}
# The example leaves `tiers` empty, so their options do not stand in it.
NOT_IN_EXAMPLE = {"models.<name>.price.tiers[]"}

_FENCE = re.compile(r"^```(\w+)(?: ([\w.]+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    note: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, text[: match.start()].count("\n") + 1, match[1], match[2] or "", match[3])
        for match in _FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(language: str, note: str = "") -> list[Block]:
    return [block for block in BLOCKS if (block.language, block.note) == (language, note)]


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of any level."""
    _, found, rest = text.partition(f"{heading}\n")
    assert found, f"no heading {heading}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def wordguard() -> Any:
    path = TUTORIAL / "tollkeeper_wordguard" / "__init__.py"
    spec = importlib.util.spec_from_file_location("tollkeeper_wordguard", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Wordguard


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Config]:
    """Reads a configuration whose environment variables and secret files exist."""

    def parse(text: str) -> Config:
        for name in re.findall(r"\$\{([A-Z_]+)\}", text):
            value = STRIPE.get(name, "sk-test-that-is-long-enough-to-sign")
            monkeypatch.setenv(name, value)
        for name in re.findall(r"\$\{file:([^}]+)\}", text):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("sk-test-that-is-long-enough-to-sign\n")
        return parse_config(text, Catalogue({"wordguard": wordguard()}), root=tmp_path)

    return parse


def build(config: Config) -> None:
    build_generation(config, Shared(make_database("sqlite:///:memory:", config.source.root)))


def settings_tables() -> list[tuple[str, type[Table]]]:
    catalogue = Catalogue()
    plugins = [(f"plugins.{name}", catalogue.load(name).settings) for name in PLUGINS]
    return [*CORE_TABLES, *plugins]


def shown_name(table: str) -> str:
    return f"[[{table[:-2]}]]" if table.endswith("[]") else f"[{table}]"


def test_what_is_generated_is_up_to_date() -> None:
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_heading_with_its_exact_signature(name: str) -> None:
    hook = vars(Hooks)[name]
    word = "async def" if inspect.iscoroutinefunction(hook) else "def"
    signature = f"{word} {name}{inspect.signature(hook)}".replace("'", "")
    text = section((REFERENCE / "hooks.md").read_text(), f"### `{signature}`")
    promise, _, _ = (inspect.getdoc(hook) or "").partition("\n\n")
    assert promise
    assert promise in text


def test_hooks_are_documented_in_the_order_of_a_request() -> None:
    headings = re.findall(
        r"^### `(?:async )?def (\w+)\(self", (REFERENCE / "hooks.md").read_text(), re.MULTILINE
    )
    assert headings == HOOKS


@pytest.mark.parametrize(("name", "table"), settings_tables())
def test_every_setting_is_in_the_reference(name: str, table: type[Table]) -> None:
    text = section((REFERENCE / "config.md").read_text(), f"### `{shown_name(name)}`")
    for option, field in table.model_fields.items():
        (row,) = re.findall(rf"^\| `{option}` \|.*\|$", text, re.MULTILINE)
        assert field.description, f"{name}.{option} has no description"
        assert " ".join(field.description.split()) in row


@pytest.mark.parametrize(("name", "table"), settings_tables())
def test_every_setting_is_in_the_example(name: str, table: type[Table]) -> None:
    if name in NOT_IN_EXAMPLE:
        return
    section_of = {"providers": "providers.openai", "models": 'models."gpt-4o-mini"'}
    header = section_of.get(name.partition(".")[0], name)
    example = (ROOT / "config.example.toml").read_text()
    text = example.partition(f"[{header}]\n")[2].partition("\n[")[0]
    for option in table.model_fields:
        assert re.search(rf"(^|[{{,] |# ){option} =", text, re.MULTILINE), f"{name}.{option}"


def test_the_example_can_be_served(read: Callable[[str], Config]) -> None:
    config = read((ROOT / "config.example.toml").read_text())
    build(config)
    assert sorted(enabled.plugin.name for enabled in config.plugins) == PLUGINS


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_every_toml_block_can_be_read(block: Block, read: Callable[[str], Config]) -> None:
    read(block.text)


@pytest.mark.parametrize("block", blocks("toml", "bad"), ids=str)
def test_a_mistake_shown_on_purpose_is_one(block: Block, read: Callable[[str], Config]) -> None:
    with pytest.raises(ConfigError):
        build(read(block.text))


def test_every_toml_block_is_marked_by_a_known_word() -> None:
    notes = {block.note for block in BLOCKS if block.language == "toml"}
    assert notes <= {"", "bad", "fragment", "pyproject.toml"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert path.is_file(), f"{page.name}: {target}"
        if anchor:
            assert anchor in map(slug, _HEADING.findall(path.read_text())), f"{target}#{anchor}"


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_first_tutorial_shows_what_init_writes(tmp_path: Path) -> None:
    config = tmp_path / "tollkeeper.toml"
    arguments = ["init", "--provider", "demo", "--config", str(config)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    shown = next(block for block in blocks("toml") if block.page.name == "first-gateway.md")
    assert tomllib.loads(shown.text) == tomllib.loads(config.read_text())


def test_the_code_of_the_plugin_tutorial_is_that_of_its_folder() -> None:
    code = "\n".join(path.read_text() for path in sorted(TUTORIAL.rglob("*.py")))
    shown = [block for block in blocks("python") if block.page.name == "first-plugin.md"]
    assert shown
    for block in shown:
        assert block.text in code, str(block)
    for block in blocks("toml", "pyproject.toml"):
        assert block.text in (TUTORIAL / "pyproject.toml").read_text(), str(block)


def test_the_plugin_of_the_tutorial_passes_its_own_tests() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=TUTORIAL,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_every_command_exists(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", "x" * 32)
    for name, value in STRIPE.items():
        monkeypatch.setenv(name, value)
    config = tmp_path / "tollkeeper.toml"
    config.write_text((ROOT / "config.example.toml").read_text())
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in filter(None, block.text.splitlines()):
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert words[1] in targets, line
        elif words[0] == "tollkeeper":
            check_command(words[1:], click.Context(main, obj=config))
        else:
            assert words[0] in FOREIGN, line


def check_command(words: list[str], context: click.Context) -> None:
    """Follow a command line through the groups; each option must be one of the command's."""
    command: click.Command = main
    for word in words:
        if word.startswith("-"):
            known = [option for param in command.params for option in param.opts]
            assert word.partition("=")[0] in known, word
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            assert found is not None, word
            command = found


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_is_documented(name: str) -> None:
    text = (ROOT / "plugins" / f"tollkeeper_{name}" / "README.md").read_text()
    for wanted in (f"# {name}: ", "**Hooks**", "**Tables**", "**Failure policy**"):
        assert wanted in text, wanted
    for hook in Catalogue().load(name).hooks():
        assert f"`{hook}`" in text, hook
    link = f"plugins/tollkeeper_{name}/README.md"
    assert link in (ROOT / "README.md").read_text()
    assert link in (DOCS / "index.md").read_text()
    assert f"### `[plugins.{name}]`" in (REFERENCE / "config.md").read_text()


def test_every_error_code_is_documented() -> None:
    text = (REFERENCE / "errors.md").read_text()
    known = {"## The codes of the API": TABLE_CODES, "## The other codes": OTHER_CODES}
    for heading, codes in known.items():
        assert set(re.findall(r"^\| `(\w+)` \|", section(text, heading), re.MULTILINE)) == codes


async def test_every_endpoint_is_documented() -> None:
    text = (REFERENCE / "http.md").read_text()
    async with open_gateway() as gateway:
        registry = gateway.generations.current.registry
        for method, path in (*registry.operations, *registry.routes):
            assert f"`{method} {path}`" in text, path
