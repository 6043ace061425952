"""What a self-hoster types, and what the running gateway makes of it. Real processes."""

import json
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from processes import CONFIG, address, free_port, need, read_until, run, running


def call(base: str, key: str, path: str = "/v1/models") -> int:
    request = Request(base + path, headers={"authorization": f"Bearer {key}"})
    try:
        with urlopen(request, timeout=10) as reply:
            return int(reply.status)
    except HTTPError as error:
        with error:
            return error.code


def test_the_demos_curl_line_works_when_pasted_and_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    need("curl")
    with running("demo", cwd=tmp_path, until="Ctrl-C") as (process, printed):
        assert process.stdout is not None
        line = next(line for line in printed.splitlines() if line.lstrip().startswith("curl "))
        pasted = subprocess.run(
            ["bash", "-c", line.replace("curl ", "curl -sS ", 1)],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert pasted.stderr == ""
        reply = json.loads(pasted.stdout)
        assert reply["choices"][0]["message"]["content"].endswith("You said: hello")
        assert "keys, limits, routing, demo" in printed
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert "Traceback" not in process.stdout.read()
    assert list(tmp_path.iterdir()) == []


def test_the_demo_takes_the_next_port_when_its_own_is_taken(tmp_path: Path) -> None:
    with running("demo", cwd=tmp_path) as (_, first), running("demo", cwd=tmp_path) as (_, second):
        assert address(first) != address(second)


def test_from_init_to_the_first_answer(tmp_path: Path) -> None:
    written = run("init", "--provider", "demo", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    config = tmp_path / "tollkeeper.toml"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    config.write_text(config.read_text().replace("8080", str(free_port())))
    checked = run("check", cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "tollkeeper.toml is fine.\n")
    made = json.loads(run("keys", "create", "--name", "me", "--json", cwd=tmp_path).stdout)
    with running("serve", cwd=tmp_path) as (_, printed):
        assert call(address(printed), made["key"]) == 200
    again = run("init", cwd=tmp_path)
    assert again.returncode == 1
    assert "was left alone" in again.stderr


def test_a_key_is_a_document_with_its_secret_once(project: Path) -> None:
    args = ("keys", "create", "--name", "ci", "--org", "acme", "--rpm", "7", "--json")
    made = run(*args, "--config", "tollkeeper.toml", cwd=project)
    key = json.loads(made.stdout)
    assert {name: type(value) for name, value in key.items()} == {
        "id": str,
        "key": str,
        "prefix": str,
        "name": str,
        "org": str,
        "rpm": int,
        "created_at": int,
        "models": type(None),
        "expires_at": type(None),
    }
    assert (key["name"], key["org"], key["rpm"]) == ("ci", "acme", 7)
    assert key["key"].startswith(key["prefix"])
    assert abs(key["created_at"] - time.time()) < 60
    listed = run("keys", "list", "--json", cwd=project)
    (row,) = json.loads(listed.stdout)["data"]
    assert row["id"] == key["id"]
    stored = b"".join(path.read_bytes() for path in project.glob("tollkeeper.db*"))
    assert key["key"].encode() not in stored
    assert key["key"] not in listed.stdout
    assert stat.S_IMODE((project / "tollkeeper.db").stat().st_mode) == 0o600


def test_keys_made_and_revoked_count_before_the_command_returns(project: Path) -> None:
    with running("serve", cwd=project) as (process, printed):
        base = address(printed)
        for _ in range(5):
            key = json.loads(run("keys", "create", "--name", "x", "--json", cwd=project).stdout)
            assert call(base, key["key"]) == 200
            revoked = run("keys", "revoke", key["id"], "--json", cwd=project)
            assert json.loads(revoked.stdout) == {"id": key["id"], "revoked": True}
            assert call(base, key["key"]) == 401
        twice = run("keys", "revoke", key["id"], cwd=project)
        assert twice.returncode == 1
        assert "no valid key" in twice.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_a_killed_gateway_leaves_nothing_that_the_next_command_stumbles_over(project: Path) -> None:
    with running("serve", cwd=project) as (process, _):
        process.kill()
        process.wait()
    assert list(project.glob("*.sock"))
    made = run("keys", "create", "--name", "after", "--json", cwd=project)
    assert (made.returncode, made.stderr) == (0, "")
    assert not list(project.glob("*.sock"))
    with running("serve", cwd=project) as (_, printed):
        assert call(address(printed), json.loads(made.stdout)["key"]) == 200


def test_sighup_reads_the_file_again_or_says_why_not(project: Path) -> None:
    key = json.loads(run("keys", "create", "--name", "x", "--json", cwd=project).stdout)["key"]
    config = project / "tollkeeper.toml"
    with running("serve", cwd=project) as (process, printed):
        assert process.stdout is not None
        good = config.read_text()
        config.write_text(good.replace("[models.demo]", '[models."other/name"]'))
        process.send_signal(signal.SIGHUP)
        read_until(process, "in force")
        assert call(address(printed), key, "/v1/models/other%2Fname") == 200
        config.write_text(good + "\n[plugins.limits]\nrpmm = 3\n")
        process.send_signal(signal.SIGHUP)
        line = read_until(process, "tollkeeper.toml:")
        assert call(address(printed), key, "/v1/models/other%2Fname") == 200
    assert "limits" in line


def test_check_shows_every_problem_at_once_with_its_line(project: Path) -> None:
    (project / "tollkeeper.toml").write_text(
        """[server]
prot = 1
[providers.openai]
kind = "opanai"
credential = "${NOT_SET_ANYWHERE}"
[models.m]
deployments = [{ provider = "opena", model = "m" }]
[plugins.limts]
[plugins.limits]
rpm = "many"
[plugins.demo]
enabled = false
whatever = 1
[plugins.openai]
"""
    )
    checked = run("check", cwd=project)
    assert checked.returncode == 1
    assert checked.stdout == ""
    lines = checked.stderr.splitlines()
    assert {line.split(" ")[0] for line in lines} == {
        f"tollkeeper.toml:{number}:" for number in (2, 4, 5, 7, 8, 10)
    }
    assert 'unknown key "prot" in [server]' in checked.stderr
    assert 'did you mean "limits"?' in checked.stderr
    assert '"many"' in checked.stderr
    document = json.loads(run("check", "--json", cwd=project).stdout)
    assert not document["ok"]
    assert len(document["problems"]) == len(lines)


def test_check_finds_a_kind_that_nobody_speaks_and_a_needless_deployment(project: Path) -> None:
    text = (project / "tollkeeper.toml").read_text()
    (project / "tollkeeper.toml").write_text(text.replace('kind = "demo"', 'kind = "dem"'))
    wrong = run("check", cwd=project)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert 'tollkeeper.toml:5: unknown provider kind "dem"' in wrong.stderr
    assert 'did you mean "demo"?' in wrong.stderr
    two = '[{ provider = "demo", model = "demo" }, { provider = "demo", model = "other" }]'
    (project / "tollkeeper.toml").write_text(
        text.replace('[{ provider = "demo", model = "demo" }]', two)
    )
    warned = run("check", cwd=project)
    assert warned.returncode == 0
    assert "the first is used" in warned.stderr


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ('[storage]\nurl = "postgresql://x/y"\n', "PostgreSQL"),
        ('[server]\nbind = "0.0.0.0:8080"\n[plugins.keys]\nenabled = false\n', "server.open"),
    ],
)
def test_check_refuses_what_nothing_can_serve(project: Path, more: str, word: str) -> None:
    (project / "tollkeeper.toml").write_text(more)
    checked = run("check", cwd=project)
    assert checked.returncode == 1
    assert word in checked.stderr
    assert "Traceback" not in checked.stderr


def test_exit_codes_tell_a_wrong_configuration_from_a_wrong_call(project: Path) -> None:
    (project / "empty").mkdir()
    missing = run("serve", cwd=project / "empty")
    assert missing.returncode == 1
    assert "tollkeeper init" in missing.stderr
    assert run("no-such-command", cwd=project).returncode == 2
    assert run("keys", "create", cwd=project).returncode == 2
    assert run("check", "--no-such-option", cwd=project).returncode == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (project / "tollkeeper.toml").write_text(CONFIG.format(port=port))
        busy = run("serve", cwd=project)
    assert busy.returncode == 1
    assert "another process" in busy.stderr
    assert "Traceback" not in busy.stderr


def test_a_command_of_a_plugin_that_is_off_says_what_to_turn_on(project: Path) -> None:
    text = (project / "tollkeeper.toml").read_text()
    (project / "tollkeeper.toml").write_text(text.replace("[plugins.keys]\n", ""))
    result = run("keys", "list", cwd=project)
    assert result.returncode == 1
    assert "[plugins.keys]" in result.stderr


def test_config_may_stand_after_any_part_of_a_command(project: Path, tmp_path: Path) -> None:
    (project / "tollkeeper.toml").rename(project / "else.toml")
    for args in (
        ("--config", "else.toml", "keys", "list", "--json"),
        ("keys", "--config", "else.toml", "list", "--json"),
        ("keys", "list", "--json", "--config", "else.toml"),
        ("keys", "list", "--config=else.toml", "--json"),
        ("plugins", "--json", "--config", "else.toml"),
        ("schema", "--config", "else.toml"),
    ):
        result = run(*args, cwd=project)
        assert result.returncode == 0, (args, result.stderr)
        json.loads(result.stdout)
    help_text = run("keys", "create", "--help", "--config", "else.toml", cwd=project).stdout
    assert "--config" in help_text
