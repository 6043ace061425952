"""The processes of a scenario: the upstream, which outlives everything, and the gateway."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from processes import free_port

HERE = Path(__file__).parent
REQUEST_ID = re.compile(rb"\r\nx-request-id: *req_([0-9a-f]{16})", re.IGNORECASE)
"""Names the process that a reply comes from."""
START_SECONDS = 30.0
STOP_SECONDS = 60.0
PRICE = {"input": "0.1501", "output": "0.6005", "cache_read": "0.0751"}
"""US dollars per million tokens; odd ones, so that sums have to be rounded."""
TENTHS = {name: int(price.replace(".", "")) for name, price in PRICE.items()}
"""The same in tenths of a nano-USD per token."""
_CONFIG = """
[server]
bind = "127.0.0.1:{port}"
grace = 10

[storage]
url = "sqlite:///{database}"

[providers.up]
kind = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
timeout = 20
first_byte_timeout = 3
idle_timeout = 3
drain_seconds = 5
{provider}

[models.m]
deployments = [{{ provider = "up", model = "m" }}]
price = {{ {price} }}

[plugins.openai]

[plugins.metering]
{plugins}
"""


@dataclass
class Stage:
    """One gateway before one upstream, and the folder that both write to."""

    folder: Path
    port: int
    database: Path
    slowest_start: float = 0.0
    """Seconds."""
    clean: set[str] = field(default_factory=set)
    """Which gateway processes were stopped, not killed."""
    process: "subprocess.Popen[bytes] | None" = None
    upstream: "subprocess.Popen[bytes] | None" = None
    _identity: str = ""
    _attempts: int = 0
    _read: int = 0

    @property
    def journal(self) -> Path:
        """What the upstream was asked and told."""
        return self.folder / "journal.jsonl"

    @property
    def log(self) -> Path:
        """What the gateway printed, over all its lives."""
        return self.folder / "gateway.log"

    async def start(self, failpoint: str = "") -> bool:
        """Start the gateway and wait until it answers; False where it died before it did."""
        self.spawn(failpoint)
        began = trio.current_time()
        while not (identity := await identity_at(self.port)):
            if self.has_died():
                return False
            if trio.current_time() - began > START_SECONDS:
                raise RuntimeError(f"the gateway does not start:\n{self.last_words()}")
            await trio.sleep(0.01)
        self._identity = identity
        self.slowest_start = max(self.slowest_start, trio.current_time() - began)
        return True

    def spawn(self, failpoint: str = "") -> None:
        """Start the gateway and do not wait for it."""
        environment = {**os.environ, "TOLLKEEPER_FAILPOINT": failpoint}
        program = str(HERE / "gateway.py") if failpoint else "-m"
        name = [] if failpoint else ["tollkeeper"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, program, *name, "serve", "--config", "tollkeeper.toml"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def has_died(self) -> bool:
        """Whether the gateway is no more."""
        return self.process is None or self.process.poll() is not None

    def was_killed(self) -> bool:
        """Whether the gateway died by SIGKILL, and of nothing else."""
        return self.process is not None and self.process.poll() == -signal.SIGKILL

    def last_words(self) -> str:
        """The end of what the gateway printed."""
        return self.log.read_text(errors="replace")[-3000:]

    def send(self, number: signal.Signals) -> None:
        """Signal the gateway."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    async def stop(self) -> int:
        """Stop the gateway as an operator does. Its exit code."""
        self.send(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS):
            while not self.has_died():
                await trio.sleep(0.02)
        if self.process is None or self.process.returncode is None:
            raise RuntimeError(f"the gateway does not stop:\n{self.last_words()}")
        self.clean.add(self._identity)
        return self.process.returncode

    async def wait_dead(self, seconds: float) -> bool:
        """Whether the gateway dies within some seconds."""
        with trio.move_on_after(seconds):
            while not self.has_died():
                await trio.sleep(0.005)
            return True
        return False

    def attempts(self) -> int:
        """How many attempts the journal holds by now."""
        with self.journal.open("rb") as journal:
            journal.seek(self._read)
            data = journal.read()
        self._read += len(data)
        self._attempts += data.count(b'{"got":')
        return self._attempts

    def command(self, *args: str) -> "subprocess.CompletedProcess[str]":
        """One tollkeeper command on the same file."""
        return subprocess.run(
            [sys.executable, "-m", "tollkeeper", *args],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )


async def identity_at(port: int) -> str:
    """What the ids of the gateway process begin with; empty while none answers."""
    request = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    reply = b""
    with contextlib.suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request)
            async for data in stream:
                reply += data
    found = REQUEST_ID.search(reply)
    return found.group(1).decode() if found else ""


@contextmanager
def staged(
    folder: Path, provider: str = "", plugins: str = "", database: Path | None = None
) -> Iterator[Stage]:
    """A stage with its upstream running and no gateway yet. Whatever still runs is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stage(folder, free_port(), database or folder / "tollkeeper.db")
    if stage.journal.exists():
        raise RuntimeError(f"{folder} holds an earlier run")
    with _spawn_upstream(stage) as upstream:
        assert upstream.stdout is not None
        stage.upstream = upstream
        port = upstream.stdout.readline().decode().strip()
        _configure(stage, upstream=port, provider=provider, plugins=plugins)
        try:
            yield stage
        finally:
            stage.kill()
            upstream.kill()


def _configure(stage: Stage, **parts: str) -> None:
    price = ", ".join(f'{name} = "{value}"' for name, value in PRICE.items())
    config = _CONFIG.format(port=stage.port, database=stage.database, price=price, **parts)
    (stage.folder / "tollkeeper.toml").write_text(config)


def _spawn_upstream(stage: Stage) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, str(HERE / "upstream.py"), str(stage.journal)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
