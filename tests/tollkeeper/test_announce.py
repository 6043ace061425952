"""Changes told to other processes: played by a subprocess, and by sockets made by hand."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tollkeeper.announce import Announcer

OTHER_PROCESS = """
import sys, trio
from pathlib import Path
from tollkeeper.announce import Announcer

async def main():
    announcer = Announcer(Path(sys.argv[1]))

    async def apply():
        if sys.argv[2] == "crashes":
            raise RuntimeError("no")
        with open(sys.argv[1] + ".log", "a") as log:
            log.write("applied\\n")

    with announcer.subscribed("keys", apply):
        async with announcer.listening():
            print("ready", flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)

trio.run(main)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "my.db"


@contextlib.contextmanager
def other_process(database: Path, how: str = "works") -> Iterator["subprocess.Popen[str]"]:
    """A process that listens beside `database` until the block is left."""
    command = [sys.executable, "-c", OTHER_PROCESS, str(database), how]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            if process.stdin:
                process.stdin.close()
            process.wait()


@contextlib.contextmanager
def stranger(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[Path]:
    """A listener made by hand, which treats one caller as `answer` does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


def applied(database: Path) -> int:
    log = Path(f"{database}.log")
    return log.read_text().count("applied\n") if log.exists() else 0


def test_a_change_is_in_force_in_another_process_once_it_was_told(database: Path) -> None:
    with other_process(database):
        announcer = Announcer(database)
        assert announcer.tell_others("keys") == []
        assert applied(database) == 1
        assert announcer.tell_others("keys") == []
        assert applied(database) == 2


def test_another_topic_is_confirmed_and_applied_by_nobody(database: Path) -> None:
    with other_process(database):
        assert Announcer(database).tell_others("other") == []
    assert applied(database) == 0


def test_a_process_that_cannot_apply_the_change_is_named(database: Path) -> None:
    with other_process(database, "crashes") as process:
        announcer = Announcer(database)
        (silent,) = announcer.tell_others("keys")
        assert silent.startswith(f"{database}.{process.pid}-")
        assert announcer.tell_others("keys") == [silent], "it goes on serving"


def test_a_process_that_ends_leaves_nothing_behind(database: Path) -> None:
    with other_process(database):
        (path,) = database.parent.glob("*.sock")
        assert path.stat().st_mode & 0o077 == 0
    assert list(database.parent.glob("*.sock")) == []


def test_a_process_that_was_killed_holds_nobody_up(database: Path) -> None:
    with other_process(database) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(database.parent.glob("*.sock"))
        assert Announcer(database).tell_others("keys") == []
        assert list(database.parent.glob("*.sock")) == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda client: None,
        lambda client: client.sendall(b"what\n"),
        lambda client: [*iter(lambda: client.recv(64), b"")],
    ],
    ids=["hangs up", "says something else", "says nothing"],
)
def test_a_listener_that_does_not_confirm_is_named(
    database: Path, answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollkeeper.announce.ACKNOWLEDGE_SECONDS", 0.2)
    with stranger(Path(f"{database}.1.sock"), answer) as path:
        assert Announcer(database).tell_others("keys") == [str(path)]


def test_a_listener_that_takes_no_more_callers_is_named(database: Path) -> None:
    path = Path(f"{database}.1.sock")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(path))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                client.setblocking(False)
                client.connect(str(path))
        assert Announcer(database).tell_others("keys") == [str(path)]


async def test_a_process_does_not_wait_for_itself(database: Path) -> None:
    announcer = Announcer(database)
    calls: list[str] = []

    async def apply() -> None:
        calls.append("applied")

    with announcer.subscribed("keys", apply):
        async with announcer.listening():
            assert len(list(database.parent.glob(f"my.db.{os.getpid()}-*.sock"))) == 1
            assert announcer.tell_others("keys") == []
    assert calls == []


async def test_within_a_process_every_subscriber_applies_until_it_leaves(database: Path) -> None:
    announcer = Announcer(database)
    calls: list[str] = []

    async def first() -> None:
        calls.append("first")

    async def second() -> None:
        calls.append("second")

    with announcer.subscribed("keys", first):
        with announcer.subscribed("keys", second):
            await announcer.apply("keys")
        await announcer.apply("keys")
        await announcer.apply("other")
    await announcer.apply("keys")
    assert calls == ["first", "second", "first"]


@pytest.mark.parametrize("name", ["data[prod].db", "what?*.db", "a b.db"])
def test_a_database_may_have_any_name(tmp_path: Path, name: str) -> None:
    with other_process(tmp_path / name):
        assert Announcer(tmp_path / name).tell_others("keys") == []
        assert applied(tmp_path / name) == 1


def test_a_folder_may_have_a_name_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    database = folder / "my.db"
    with other_process(database):
        assert Announcer(database).tell_others("keys") == []
        assert applied(database) == 1
    assert list(folder.glob("*.sock")) == []


def test_a_database_beside_it_is_another_one(tmp_path: Path) -> None:
    with other_process(tmp_path / "other.db"):
        assert Announcer(tmp_path / "my.db").tell_others("keys") == []
    assert applied(tmp_path / "other.db") == 0


async def test_data_in_memory_has_nobody_to_tell() -> None:
    announcer = Announcer(None)
    async with announcer.listening():
        assert announcer.tell_others("keys") == []
