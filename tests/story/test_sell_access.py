"""The tutorial on selling access, pasted line by line as it is written."""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processes import TOLLKEEPER, free_port, need

PAGE = Path(__file__).parent.parent.parent / "docs" / "tutorial" / "sell-access.md"
FENCE = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END = "-- that was all --"


class Reader:
    """Somebody with the page open, in a folder and with ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"8080": str(free_port()), "4242": str(free_port())}
        self.blocks = FENCE.findall(PAGE.read_text())
        (folder / "bin").mkdir()
        for name, command in (("tollkeeper", TOLLKEEPER), ("python", TOLLKEEPER[:1])):
            script = folder / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
            script.chmod(0o755)
        self.shells: list[subprocess.Popen[str]] = []

    def terminal(self) -> "subprocess.Popen[str]":
        """Open one."""
        shell = subprocess.Popen(
            ["bash"],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.shells.append(shell)
        return shell

    def next(self, language: str) -> str:
        """The next block of the page, which must be in this language."""
        found, _, text = self.blocks.pop(0)
        assert found == language, f"the page goes on with {found}: {text}"
        for port, mine in self.ports.items():
            text = text.replace(port, mine)
        return str(text)

    def begin(self, shell: "subprocess.Popen[str]", port: str, path: str = "") -> None:
        """Paste a block whose last command goes on, until it serves at a port of the page."""
        block = self.next("bash")
        if port == "4242":
            block = block.replace("--webhook", f"--port {self.ports[port]} --webhook")
        assert shell.stdin is not None
        shell.stdin.write(block)
        shell.stdin.flush()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                opener.open(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=2).close()
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"nothing serves: {block}")

    def paste(self, shell: "subprocess.Popen[str]") -> list[Any]:
        """Paste the next block; the JSON that it prints."""
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write(f'{self.next("bash")}\necho; echo "{END}"\n')
        shell.stdin.flush()
        printed = ""
        while END not in printed:
            line = shell.stdout.readline()
            assert line, f"the terminal closed: {printed}"
            printed += line
        decoder, text, found = json.JSONDecoder(), printed.strip(), []
        while text.startswith("{"):
            document, end = decoder.raw_decode(text)
            found.append(document)
            text = text[end:].lstrip()
        return found or [printed.replace(END, "").strip()]

    def shown(self) -> Any:
        """What the page says that comes out."""
        return json.loads(self.next("json"))


@contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    reader = Reader(folder)
    try:
        yield reader
    finally:
        for shell in reader.shells:
            os.killpg(shell.pid, 9)
            shell.communicate()


def until(reader: Reader, ann: "subprocess.Popen[str]", expected: Any) -> Any:
    """The last answer of the next block, asked for again until it is what the page shows."""
    block = reader.blocks[0]
    answer = None
    for _ in range(50):
        answer = reader.paste(ann)[-1]
        if answer == expected:
            break
        reader.blocks.insert(0, (block[0], block[1], block[2].strip().splitlines()[-1] + "\n"))
        time.sleep(0.1)
    return answer


def test_a_stranger_buys_credit_uses_it_up_and_subscribes_as_the_page_says(
    tmp_path: Path,
) -> None:
    need("bash")
    need("curl")
    with reading(tmp_path) as reader:
        stripe, operator, ann = (reader.terminal() for _ in range(3))
        reader.begin(stripe, "4242")
        (tmp_path / "tollkeeper.toml").write_text(reader.next("toml"))
        reader.begin(operator, "8080", "/healthz")
        registered, org = reader.paste(ann)
        assert registered["email"] == "ann@example.com"
        assert org["role"] == "owner"
        assert reader.paste(ann) == [reader.shown()]
        (opened,) = reader.paste(ann)
        assert opened.startswith(f"Open http://127.0.0.1:{reader.ports['4242']}/pay/")
        reader.paste(ann)
        assert reader.paste(ann) == [reader.shown()]  # pasted at once, as a reader does
        completion, status = reader.paste(ann)
        assert completion["usage"]["completion_tokens"] == 9
        assert status == reader.shown()
        assert [each["object"] for each in reader.paste(ann)] == ["chat.completion"] * 2
        assert reader.paste(ann) == [reader.shown()]
        usage = next(json.loads(text) for kind, _, text in reader.blocks if kind == "json")
        assert until(reader, ann, usage) == reader.shown()
        (portal,) = reader.paste(ann)
        assert portal["url"].startswith(reader.shown()["url"].rstrip("."))
        subscribed = next(json.loads(text) for kind, _, text in reader.blocks if kind == "json")
        assert until(reader, ann, subscribed) == reader.shown()
        (books,) = reader.paste(reader.terminal())
        assert org["id"] in books
        assert books.endswith("All agree.")
        check_production(reader)


def check_production(reader: Reader) -> None:
    """The lines that change make a file that is fine."""
    config = reader.folder / "tollkeeper.toml"
    text = config.read_text()
    text = re.sub(r"(?s)\[plugins\.billing\]\n.*?\n\n", "", text, count=1)
    text = re.sub(r"(?s)\[plugins\.billing\.plans\.pro\]\n.*?\n\n", "", text, count=1)
    config.write_text(text + reader.next("toml"))
    secrets = {"STRIPE_SECRET_KEY": "sk_live_x", "STRIPE_WEBHOOK_SECRET": "whsec_x"}
    checked = subprocess.run(
        [*TOLLKEEPER, "check"],
        cwd=reader.folder,
        env={**os.environ, **secrets},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr
    assert "real money moves" in checked.stdout
    assert not reader.blocks
