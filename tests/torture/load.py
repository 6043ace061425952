"""Clients: connections that call as fast as they are answered, and note what they saw.

What a call asks for follows from the seed and its number alone, however the clients take turns.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import trio

from torture.stage import REQUEST_ID
from torture.upstream import reset

MAX_TOKENS = 64
PAUSE_SECONDS = 0.01
PATIENCE_SECONDS = 60.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PADDING = "pad:" + "x" * 80


@dataclass(frozen=True, slots=True)
class Call:
    """One call: what is asked of the upstream, and when its client leaves."""

    number: int
    words: str
    stream: bool = False
    wants_usage: bool = True
    leave_after: float | None = None
    """Seconds behind which the client leaves; None stays to the end."""

    def request(self) -> bytes:
        """As it goes over the wire."""
        content = f"call:{self.number} {self.words} {_PADDING}"
        body: dict[str, object] = {
            "model": "m",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": MAX_TOKENS,
        }
        if self.stream:
            body["stream"] = True
            if self.wants_usage:
                body["stream_options"] = {"include_usage": True}
        data = json.dumps(body).encode()
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(data), data)
        )


Mix = Callable[[Random, int], Call]
"""Makes the call of a number."""


def usage_words(random: Random) -> str:
    """A usage that the hold of a call covers, mostly."""
    spent = random.randint(1, 90)
    made = random.randint(1, MAX_TOKENS) if random.random() < 0.97 else random.randint(500, 9000)
    cached = random.randint(0, spent) if random.random() < 0.3 else 0
    return f"in:{spent} out:{made} cached:{cached} reasoning:{random.randint(0, made)}"


ODD = ("negative", "huge", "missing", "doubled", "other-model")


def mixed(random: Random, number: int) -> Call:
    """Mostly good calls, whole or streamed; some slow, refused, cut, reset, odd or abandoned."""
    words, stream = usage_words(random), random.random() < 0.5
    wants_usage, leave = random.random() < 0.7, None
    chance = random.random()
    if chance < 0.10:
        words += f" slow:{random.uniform(0.01, 0.3):.3f}"
    elif chance < 0.13:
        words += f" refuse:{random.choice([400, 429, 500, 503])}"
    elif chance < 0.15:
        words += " rst:1"
    elif chance < 0.18:
        words += f" cut:{random.randint(1, 1800)}"
    elif chance < 0.22:
        words += f" usage:{random.choice(ODD)}"
    elif chance < 0.24:
        words += f" slow:{random.uniform(0.05, 0.3):.3f}"
        leave = random.uniform(0.0, 0.3)
    elif chance < 0.241:
        words, leave = words + " hang:1", random.uniform(0.0, 0.3)
    return Call(number, words, stream, wants_usage, leave)


def good(random: Random, number: int) -> Call:
    """Calls that go well, slow ones among them."""
    words = usage_words(random)
    if random.random() < 0.3:
        words += f" slow:{random.uniform(0.05, 0.5):.3f}"
    return Call(number, words, stream=random.random() < 0.5)


def odd(random: Random, number: int) -> Call:
    """Calls whose usage is negative, huge, missing, doubled or for another model."""
    words = f"{usage_words(random)} usage:{ODD[number % len(ODD)]}"
    return Call(number, words, stream=random.random() < 0.5)


@dataclass
class Seen:
    """What all clients saw."""

    sent: int = 0
    """Calls whose request was handed to the kernel."""
    completed: dict[int, str] = field(default_factory=dict)
    """Calls whose reply came to its clean end, with the gateway process that gave it."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Of replies; 0 counts those that were cut, 1 those that were left."""
    garbled: list[str] = field(default_factory=list)
    """Replies that belong to another call, or are none."""
    slowest: dict[int, float] = field(default_factory=dict)
    """The longest wait for a reply of each status, in seconds."""

    def note(self, call: Call, reply: bytes, seconds: float) -> None:
        """A reply that came to its end."""
        status = int(found.group(1)) if (found := _STATUS.match(reply)) else 0
        self.statuses[status] += 1
        self.slowest[status] = max(self.slowest.get(status, 0.0), seconds)
        if status != 200:
            return
        whole = not call.stream or b"data: [DONE]" in reply
        if b'"error"' in reply:
            return
        if not whole or f"call:{call.number} ".encode() not in _joined(reply, call):
            self.garbled.append(f"call:{call.number} {reply[:2000]!r}")
        elif (process := REQUEST_ID.search(reply)) is not None:
            self.completed[call.number] = process.group(1).decode()


def _joined(reply: bytes, call: Call) -> bytes:
    """The text of a reply, near enough: of a stream its contents, one after the other."""
    if not call.stream:
        return reply
    return b"".join(re.findall(rb'"content":"([^"]*)"', reply))


class Load:
    """Some clients that call until they are told to stop."""

    def __init__(self, port: int, seed: int, mix: Mix = mixed, key: str = "") -> None:
        self.seen = Seen()
        self.stopping = trio.Event()
        self._port = port
        self._seed = seed
        self._mix = mix
        self._host = b"host: x\r\n"
        if key:
            self._host += f"authorization: Bearer {key}\r\n".encode()
        self._numbers = itertools.count(1)

    async def run(self, clients: int) -> None:
        """Call with this many connections; ends when each has had its last reply."""
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(self._client)

    async def stop_at(self, attempts: Callable[[], int], calls: int) -> None:
        """Stop once the upstream has got so many."""
        while attempts() < calls:
            await trio.sleep(0.1)
        self.stopping.set()

    def next_call(self) -> Call:
        """The next in line."""
        number = next(self._numbers)
        return self._mix(Random(f"{self._seed} {number}"), number)

    async def _client(self) -> None:
        while not self.stopping.is_set():
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            except OSError:
                await trio.sleep(PAUSE_SECONDS)
                continue
            async with stream:
                while not self.stopping.is_set() and await self._call(stream, self.next_call()):
                    pass

    async def _call(self, stream: trio.SocketStream, call: Call) -> bool:
        """One call. Whether another can follow on this connection."""
        began, seen = trio.current_time(), self.seen
        patience = PATIENCE_SECONDS if call.leave_after is None else call.leave_after
        with trio.move_on_after(patience):
            try:
                await stream.send_all(call.request().replace(b"host: x\r\n", self._host, 1))
                seen.sent += 1
                reply, follows = await read_reply(stream)
            except (trio.BrokenResourceError, EOFError):
                seen.statuses[0] += 1
                return False
            seen.note(call, reply, trio.current_time() - began)
            return follows
        if call.leave_after is None:
            seen.garbled.append(f"call:{call.number} was never answered")
        seen.statuses[1] += 1
        if call.number % 2:
            reset(stream)
        return False


async def read_reply(stream: trio.SocketStream) -> tuple[bytes, bool]:
    """A reply to its end, and whether the connection lives on. Raises EOFError for a cut one."""
    data = await _more(stream)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += await _more(stream)
    head = data[:end].lower()
    if (length := _LENGTH.search(head)) is not None:
        while len(data) < end + 4 + int(length.group(1)):
            data += await _more(stream)
    else:
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += await _more(stream)
    return data, b"\r\nconnection: close" not in head


async def _more(stream: trio.SocketStream) -> bytes:
    data = bytes(await stream.receive_some())
    if not data:
        raise EOFError
    return data
