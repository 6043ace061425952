"""A demo gateway in a process of its own, for the SDKs to talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import CONFIG, Demo, free_port, running_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder: Path = tmp_path_factory.mktemp("demo")
    with running_demo(folder) as running:
        yield running


@pytest.fixture
def other_demo(tmp_path: Path) -> Iterator[Demo]:
    """One whose rate window belongs to the test."""
    with running_demo(tmp_path) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a configuration to serve."""
    (tmp_path / "tollkeeper.toml").write_text(CONFIG.format(port=free_port()))
    return tmp_path
