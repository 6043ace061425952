"""`serve` and `demo` before they serve; that they do is told in the stories."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tollkeeper.__main__ import main
from tollkeeper._cli.serving import DEMO_CONFIG, version
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import parse_config


def test_the_demos_configuration_has_every_plugin_that_needs_no_account() -> None:
    config = parse_config(DEMO_CONFIG, Catalogue())
    assert [e.plugin.name for e in config.plugins] == ["keys", "limits", "routing", "demo"]
    assert config.storage.url.endswith(":memory:")
    assert version()


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1:99999", "203.0.113.1:80"])
def test_an_address_that_cannot_be_had_is_one_line_and_exit_code_1(bind: str) -> None:
    result = CliRunner().invoke(main, ["demo", "--bind", bind])
    assert result.exit_code == 1
    assert bind in result.output
    assert len(result.output.splitlines()) == 1


def test_a_database_that_cannot_be_opened_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    config = tmp_path / "t.toml"
    config.write_text(
        '[server]\nbind = "127.0.0.1:0"\n[storage]\nurl = "sqlite:///no/such/folder/t.db"\n'
    )
    result = CliRunner().invoke(main, ["serve", "--config", str(config)])
    assert result.exit_code == 1
    assert "cannot open the database" in result.output
