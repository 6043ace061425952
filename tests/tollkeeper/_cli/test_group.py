"""Finding the configuration, and the commands it brings along."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tollkeeper import ConfigError
from tollkeeper.__main__ import main
from tollkeeper._cli.group import errors_shown, find_config_path
from tollkeeper.errors import Problem

TOML = '[storage]\nurl = "sqlite:///{folder}/t.db"\n[plugins.keys]\n'


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ([], "tollkeeper.toml"),
        (["keys", "list"], "tollkeeper.toml"),
        (["--config", "a.toml", "keys", "list"], "a.toml"),
        (["keys", "--config=b.toml", "list"], "b.toml"),
        (["keys", "list", "--config", "c.toml"], "c.toml"),
        (["keys", "list", "--config"], "tollkeeper.toml"),
        (["keys", "list", "--", "--config", "d.toml"], "tollkeeper.toml"),
    ],
)
def test_the_path_is_found_wherever_it_stands(args: list[str], path: str) -> None:
    assert find_config_path(args) == Path(path)


def test_help_lists_the_commands_of_enabled_plugins(tmp_path: Path) -> None:
    config = tmp_path / "t.toml"
    config.write_text(TOML.format(folder=tmp_path))
    shown = CliRunner().invoke(main, ["--config", str(config), "--help"]).output
    assert "keys" in shown
    assert not (tmp_path / "t.db").exists(), "looking around must not create the database"
    missing = CliRunner().invoke(main, ["--config", str(tmp_path / "none.toml"), "--help"])
    assert missing.exit_code == 0
    assert "keys" not in missing.output


def test_a_plugins_command_gets_the_open_database_and_its_tables(tmp_path: Path) -> None:
    config = tmp_path / "t.toml"
    config.write_text(TOML.format(folder=tmp_path))
    result = CliRunner().invoke(main, ["keys", "list", "--json", "--config", str(config)])
    assert (result.exit_code, result.output) == (0, '{"object": "list", "data": []}\n')


def test_a_configuration_with_mistakes_is_one_line_each_and_exit_code_1(tmp_path: Path) -> None:
    config = tmp_path / "t.toml"
    config.write_text("[server]\na = 1\nb = 2\n[plugins.keys]\n")
    result = CliRunner().invoke(main, ["keys", "list", "--config", str(config)])
    assert result.exit_code == 1
    assert [line.split(" ")[0] for line in result.output.splitlines()] == [
        f"{config}:2:",
        f"{config}:3:",
    ]


def test_our_errors_are_shown_out_of_groups_and_others_pass(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = ConfigError([Problem("f:1", "one"), Problem("f:2", "two")])
    with pytest.raises(SystemExit) as stopped, errors_shown():
        raise ExceptionGroup("a nursery", [ExceptionGroup("inner", [ours])])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "f:1: one\nf:2: two\n"
    with pytest.raises(KeyError), errors_shown():
        raise KeyError
