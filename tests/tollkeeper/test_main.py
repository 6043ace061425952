"""The command itself."""

import importlib.metadata

from click.testing import CliRunner

from tollkeeper.__main__ import main


def test_it_knows_its_commands_and_its_version() -> None:
    assert set(main.commands) == {"demo", "init", "serve", "check", "plugins", "schema"}
    result = CliRunner().invoke(main, ["--version"])
    assert importlib.metadata.version("tollkeeper") in result.output


def test_every_command_that_reads_the_configuration_takes_its_path() -> None:
    for name, command in main.commands.items():
        options = {option for param in command.params for option in param.opts}
        assert ("--config" in options) == (name != "demo"), name
