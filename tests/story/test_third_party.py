"""A plugin in a distribution of its own, installed with pip: the one of the tutorial."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import address, run, running

PLUGIN = Path(__file__).parent.parent.parent / "docs" / "tutorial" / "first_plugin"
IS_IMPORTED = """
import sys, pathlib
from tollkeeper._cli.project import build, load_config
build(load_config(pathlib.Path("tollkeeper.toml")))
print("tollkeeper_wordguard" in sys.modules)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The value of PYTHONPATH under which the plugin is installed."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(target), str(PLUGIN)],
        check=True,
        timeout=120,
    )
    return str(target)


def enable(project: Path, more: str = "") -> None:
    config = project / "tollkeeper.toml"
    config.write_text(f"{config.read_text()}[plugins.wordguard]\n{more}")


def is_imported(project: Path, installed: str) -> bool:
    result = subprocess.run(
        [sys.executable, "-c", IS_IMPORTED],
        cwd=project,
        env={**os.environ, "PYTHONPATH": installed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return result.stdout.strip() == "True"


def test_it_is_listed_and_never_imported_while_it_is_off(project: Path, installed: str) -> None:
    listed = json.loads(run("plugins", "--json", cwd=project, PYTHONPATH=installed).stdout)
    (row,) = [row for row in listed["data"] if row["name"] == "wordguard"]
    assert not row["enabled"]
    assert not is_imported(project, installed)
    enable(project, "enabled = false\nnonsense = 1\n")
    assert not is_imported(project, installed)


def test_it_is_turned_on_by_the_toml_and_its_settings_are_checked(
    project: Path, installed: str
) -> None:
    enable(project)
    assert is_imported(project, installed)
    listed = json.loads(run("plugins", "--json", cwd=project, PYTHONPATH=installed).stdout)
    (row,) = [row for row in listed["data"] if row["name"] == "wordguard"]
    assert row["enabled"]
    schema = json.loads(run("schema", cwd=project, PYTHONPATH=installed).stdout)
    assert "words" in schema["properties"]["plugins"]["properties"]["wordguard"]["properties"]
    enable_twice = (project / "tollkeeper.toml").read_text() + "wurds = []\n"
    (project / "tollkeeper.toml").write_text(enable_twice)
    wrong = run("check", cwd=project, PYTHONPATH=installed)
    assert wrong.returncode == 1
    assert 'unknown key "wurds" in [plugins.wordguard] - did you mean "words"?' in wrong.stderr


def test_it_adds_its_header_and_refuses_its_word(
    project: Path, installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openai

    monkeypatch.setenv("PYTHONPATH", installed)
    enable(project, 'words = ["forbidden"]\n')
    key = json.loads(run("keys", "create", "--name", "x", "--json", cwd=project).stdout)["key"]
    with running("serve", cwd=project) as (_, printed):
        base_url = f"{address(printed)}/v1"
        with openai.OpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
            create = client.chat.completions.with_raw_response.create
            good = create(model="demo", messages=[{"role": "user", "content": "fine"}])
            assert "x-wordguard" in good.headers
            with pytest.raises(openai.BadRequestError) as refused:
                create(model="demo", messages=[{"role": "user", "content": "a forbidden word"}])
            assert "x-wordguard" in refused.value.response.headers
