"""From TOML to settings: all mistakes at once, each at its line, and no secret in any message."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, model_validator

from tollkeeper.catalogue import Catalogue
from tollkeeper.config import Config, parse_config, read_config
from tollkeeper.errors import ConfigError
from tollkeeper.settings import PluginSettings, Seconds, Secret, Table

SECRET = "sk-hunter2"


class Rule(Table):
    word: str
    weight: int = 1


class ToySettings(PluginSettings):
    pause: Seconds = 1.0
    rules: tuple[Rule, ...] = Field(default=(), strict=False)
    webhook: Secret | None = None
    passphrases: tuple[Secret, ...] = Field(default=(), strict=False)
    minimum: int = 0
    maximum: int = 10

    @model_validator(mode="after")
    def _in_order(self) -> "ToySettings":
        if self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        return self


class Toy:
    Settings = ToySettings

    def __init__(self, settings: ToySettings) -> None:
        self.settings = settings


def parse(text: str, *, root: Path | None = None, **plugins: type[Any]) -> Config:
    return parse_config(text, Catalogue({"toy": Toy, **plugins}), name="t.toml", root=root)


def problems_of(text: str, *, root: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, root=root)
    return [str(problem) for problem in caught.value.problems]


def the_problem_of(text: str, *, root: Path | None = None) -> str:
    (problem,) = problems_of(text, root=root)
    return problem


def test_an_empty_file_is_a_whole_configuration() -> None:
    config = parse("")
    assert config.server.bind == "127.0.0.1:8080"
    assert config.storage.url == "sqlite:///tollkeeper.db"
    assert (config.providers, config.models, config.plugins) == ({}, {}, ())


def test_all_problems_are_told_at_once_each_at_its_line() -> None:
    text = """\
[sever]
[server]
bnid = "127.0.0.1:80"
max_connections = 0
body_timeout = -1
open = "yes"
[providers.one]
base_url = "ftp://x"
[models.m]
deployments = [
  { provider = "one", model = "m" },
  { provider = "one", model = "m", wieght = 1 },
]
[models.empty]
deployments = []
[plugins.toi]
[plugins.toy]
puase = 1
[[plugins.toy.rules]]
word = "a"
[[plugins.toy.rules]]
weight = 2
"""
    found = problems_of(text)
    wanted = {
        1: ("[sever]", "server"),
        3: ("bnid", "bind"),
        4: ("max_connections", "0"),
        5: ("body_timeout", "-1"),
        6: ("open", "yes"),
        7: ("providers.one.kind is missing", ""),
        8: ("base_url", "ftp://x"),
        12: ("wieght", "weight"),
        15: ("deployments", "at least 1"),
        16: ("toi", "toy"),
        18: ("puase", "pause"),
        21: ("word is missing", "plugins.toy.rules[1]"),
    }
    assert sorted(p.split(" ")[0] for p in found) == sorted(f"t.toml:{n}:" for n in wanted)
    for line, (first, second) in wanted.items():
        (problem,) = (p for p in found if p.startswith(f"t.toml:{line}: "))
        assert first.strip("[]") in problem
        assert second in problem


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("[server]\nkeepalive_timeout = 1", "keep_alive_timeout"),
        ('[providers.x]\nkind = "demo"\nbaseurl = ""', "base_url"),
        ("[plugins.toy]\nmaxmum = 1", "maximum"),
        ("[plugins.toy]\nrules = [{ wrod = 'a', word = 'a' }]", "word"),
        ("[plugins.limit]", "limits"),
        ("[modles]", "models"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest_valid_one(text: str, nearest: str) -> None:
    assert f'did you mean "{nearest}"?' in the_problem_of(text)


def test_a_provider_that_does_not_exist_is_told_at_the_deployment_that_names_it() -> None:
    text = """\
[providers.openai]
kind = "demo"
[[models.m.deployments]]
provider = "openai"
model = "m"
[[models.m.deployments]]
model = "m"
provider = "openia"
"""
    problem = the_problem_of(text)
    assert problem.startswith("t.toml:8: ")
    assert '"openia"' in problem
    assert 'did you mean "openai"?' in problem


def test_an_unknown_provider_is_told_beside_another_mistake_of_the_same_deployment() -> None:
    found = problems_of('[models.m]\ndeployments = [{ provider = "x", wieght = 1 }]\n')
    assert sum('unknown provider "x"' in problem for problem in found) == 1
    assert len(found) == 3


def test_a_provider_with_a_mistake_of_its_own_still_counts_as_known() -> None:
    text = """\
[providers.one]
[models.m]
deployments = [{ provider = "one", model = "m" }]
"""
    assert "kind is missing" in the_problem_of(text)


@pytest.mark.parametrize(
    "text", ["server = 3", "providers = 3", "models = 3", "plugins = 3", "[plugins]\ntoy = true"]
)
def test_what_should_be_a_table_and_is_none_is_one_problem(text: str) -> None:
    assert "must be a table" in the_problem_of(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [("[server]\nbind = \n", 2), ("a = 1\na = 2\n", 2), ("[server]\n\n[server]\n", 3)],
)
def test_what_is_no_toml_is_told_with_the_line(text: str, line: int) -> None:
    problem = the_problem_of(text)
    assert problem.startswith(f"t.toml:{line}: is not TOML: ")
    assert "at line" not in problem


def test_what_is_open_at_the_end_of_the_text_is_told_without_a_line() -> None:
    assert the_problem_of('[server]\nbind = """').startswith("t.toml: is not TOML: ")


def test_plugins_run_in_the_order_of_the_file() -> None:
    text = "[plugins.routing]\n[plugins.toy]\n[plugins.limits]\n[plugins.demo]\n"
    names = [enabled.plugin.name for enabled in parse(text).plugins]
    assert names == ["routing", "toy", "limits", "demo"]


def test_a_plugin_that_is_off_is_neither_imported_nor_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "toy_off-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-off\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tollkeeper]\noff = toy_off:Plugin\n")
    (tmp_path / "toy_off.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    off = '[plugins.off]\nenabled = false\nnonsense = "${NO_SUCH_VARIABLE}"\n'
    assert parse(off).plugins == ()
    assert "RuntimeError: imported" in the_problem_of("[plugins.off]\nenabled = true\n")


@pytest.mark.parametrize("value", ['"false"', "0", '"no"', "[]"])
def test_a_plugin_is_switched_by_true_and_false_only(value: str) -> None:
    assert "plugins.toy.enabled" in the_problem_of(f"[plugins.toy]\nenabled = {value}")


def test_references_are_expanded_in_every_string_however_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text(f"  {SECRET}\n")
    monkeypatch.setenv("HOST_NAME", "h.example")
    monkeypatch.delenv("UNSET_NAME", raising=False)
    text = """\
[providers.one]
kind = "${UNSET_NAME:-demo}"
base_url = "https://${HOST_NAME}/${UNSET_NAME:-}v1"
credential = "${file:secret}"
[plugins.toy]
rules = [{ word = "$HOST_NAME ${HOST_NAME:-x}" }]
"""
    config = parse(text, root=tmp_path)
    provider = config.providers["one"]
    assert provider.kind == "demo"
    assert provider.base_url == "https://h.example/v1"
    assert provider.credential == Secret(SECRET)
    assert config.plugins[0].settings.model_dump()["rules"][0]["word"] == "$HOST_NAME h.example"


def test_what_a_variable_holds_is_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTER", "${INNER}")
    monkeypatch.setenv("INNER", "demo")
    assert parse('[providers.one]\nkind = "${OUTER}"').providers["one"].kind == "${INNER}"


def test_a_missing_variable_is_a_problem_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET_NAME", raising=False)
    text = '[providers.one]\nkind = "demo"\ncredential = "${UNSET_NAME}"'
    problem = the_problem_of(text)
    assert problem.startswith("t.toml:3: ")
    assert "UNSET_NAME is not set" in problem


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_a_problem_that_names_it(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    text = '[providers.one]\nkind = "demo"\ncredential = "${file:secret}"'
    problem = the_problem_of(text, root=tmp_path)
    assert problem.startswith("t.toml:3: file secret cannot be read: ")


@pytest.mark.parametrize(
    "text",
    [
        '[providers.one]\nkind = "demo"\ncredential = ["${SECRET}"]',
        '[providers.one]\nkind = "demo"\nbase_url = "${SECRET}"',
        '[server]\nbind = "${SECRET}"',
        '[server]\nbind = "${file:secret}"',
        '[plugins.toy]\nwebhook = { url = "${SECRET}" }',
        '[plugins.toy]\nwebhook = "${SECRET}"\nminimum = 11',
        '[plugins.toy]\npassphrases = [["sk-hunter2"]]',
        '[plugins.toy]\nwebhook = ["sk-hunter2"]',
    ],
)
def test_no_message_shows_what_a_reference_or_a_secret_field_holds(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    (tmp_path / "secret").write_text(SECRET)
    assert SECRET not in the_problem_of(text, root=tmp_path)


def test_a_secret_shows_in_no_repr_of_the_configuration() -> None:
    config = parse(f'[providers.one]\nkind = "demo"\ncredential = "{SECRET}"')
    assert SECRET not in repr(config)
    assert SECRET not in str(config.providers["one"].model_dump())
    assert SECRET not in config.providers["one"].model_dump_json()


def test_money_is_exact_as_text_and_as_a_number() -> None:
    text = """\
[providers.one]
kind = "demo"
[models.m]
deployments = [{ provider = "one", model = "m" }]
price = { input = 0.1, output = "0.30000000000000000001", cache_read = 3, tiers = [
  { above = 200000, input = 1.10, output = "2" },
] }
"""
    price = parse(text).models["m"].price
    assert price is not None
    assert (price.input, price.output) == (Decimal("0.1"), Decimal("0.30000000000000000001"))
    assert (price.cache_read, price.cache_write) == (Decimal(3), None)
    assert price.tiers[0].input == Decimal("1.10")


@pytest.mark.parametrize("value", ['"much"', '"NaN"', "nan", "inf", "-1", '"-0.01"', "true"])
def test_money_that_is_none_is_a_problem(value: str) -> None:
    text = f"""\
[providers.one]
kind = "demo"
[models.m]
deployments = [{{ provider = "one", model = "m" }}]
price = {{ input = {value}, output = 1 }}
"""
    problem = the_problem_of(text)
    assert problem.startswith("t.toml:5: models.m.price.input = ")


@pytest.mark.parametrize(
    ("value", "size"), [("512", 512), ('"512"', 512), ('"2KiB"', 2048), ('"1 GiB"', 1024**3)]
)
def test_sizes_are_bytes_or_have_a_unit(value: str, size: int) -> None:
    assert parse(f"[server]\nmax_body = {value}").server.max_body == size


@pytest.mark.parametrize("value", ['"16MB"', '"-1"', '"1.5MiB"', "0", "1.5", '""'])
def test_sizes_of_another_kind_are_problems(value: str) -> None:
    assert the_problem_of(f"[server]\nmax_body = {value}").startswith("t.toml:2: server.max_body")


def test_seconds_may_be_whole_or_not_but_never_text_nor_nothing() -> None:
    assert parse("[server]\ngrace = 3\nbody_timeout = 0.5").server.grace == 3.0
    for value in ("0", "-1", '"3"', "true", "nan"):
        assert the_problem_of(f"[server]\ngrace = {value}").startswith("t.toml:2: server.grace")


@pytest.mark.parametrize("bind", ["127.0.0.1", ":80", "h:", "h:x", "h:65536", "[::1]", "h:-1"])
def test_an_address_without_host_or_port_is_a_problem(bind: str) -> None:
    assert f'"{bind}"' in the_problem_of(f'[server]\nbind = "{bind}"')


@pytest.mark.parametrize("bind", ["0.0.0.0:80", "[::1]:8080", "localhost:0", "h:65535"])
def test_an_address_has_host_and_port(bind: str) -> None:
    assert parse(f'[server]\nbind = "{bind}"').server.bind == bind


def test_a_file_is_read_with_its_path_in_every_message(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[server]\nbnid = 1\n")
    with pytest.raises(ConfigError) as caught:
        read_config(path, Catalogue())
    assert str(caught.value).startswith(f"{path}:2: ")


def test_relative_names_in_a_file_are_relative_to_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('[providers.one]\nkind = "${file:kind}"\n')
    (tmp_path / "kind").write_text("demo\n")
    config = read_config(path, Catalogue())
    assert config.providers["one"].kind == "demo"
    assert config.source.root == tmp_path.resolve()


def test_a_file_that_is_not_there_comes_with_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file.*tollkeeper init --config"):
        read_config(tmp_path / "none.toml", Catalogue())


def test_a_file_that_is_no_text_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(path, Catalogue())
