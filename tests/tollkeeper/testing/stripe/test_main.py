"""The fake as a program."""

import os
import re
import signal
import subprocess
import sys
import tomllib
import urllib.request

import pytest
from click.testing import CliRunner

from tollkeeper.testing.stripe.__main__ import main


def test_it_serves_until_it_is_interrupted() -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tollkeeper.testing.stripe", "--port", "0"),
            *("--price", "price_pro=2000", "--price", "price_used=1@tokens"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        printed = ""
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        block = printed[printed.index("[plugins") : printed.index("\n\nPrice")]
        billing = tomllib.loads(block)["plugins"]["billing"]
        assert billing["secret_key"] == "sk_test_fake"
        assert billing["webhook_secret"] == "whsec_fake"
        assert "price_used: 1 cents a unit, by the meter tokens" in printed
        request = urllib.request.Request(
            billing["api_base"] + "/v1/prices/price_used",
            headers={"authorization": "Bearer sk_test_fake"},
        )
        with urllib.request.urlopen(request, timeout=5) as reply:
            assert re.search(rb'"meter": "mtr_', reply.read())
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    "options",
    [
        ["--price", "price_pro"],
        ["--price", "price_pro=x"],
        ["--price", "=1"],
        ["--webhook", "https://x.test"],
    ],
)
def test_what_it_cannot_use_is_said(options: list[str]) -> None:
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert "Error" in result.output
