"""A fake upstream that notes every attempt durably before it answers. Its journal is the truth.

Each call says in its first message what is to become of it, in words:

    call:17 in:57 out:12 cached:3 reasoning:2     its number, and the usage to tell
    slow:0.2      the reply takes this many seconds, spread over its parts
    hang:1        no reply ever
    refuse:500    an error with this status
    rst:1         the connection is reset instead of a reply
    cut:123       the connection is closed behind this many bytes of the reply
    usage:W       W is negative, huge, missing, doubled or other-model

Run as `upstream.py JOURNAL`; prints its port, and ends when its standard input does.
"""

import contextlib
import os
import re
import socket
import struct
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import trio

Usage = tuple[int, int, int, int]
"""Input, output, cached input and reasoning tokens."""

UNBELIEVABLE = 10**13
"""More tokens than anybody believes."""
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ATTEMPT = re.compile(rb"\r\nx-client-request-id: *([^\r]+)", re.IGNORECASE)
_encode = msgspec.json.encode


class _Message(msgspec.Struct):
    content: str


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool = False
    stream_options: dict[str, bool] = msgspec.field(default_factory=dict)


_decode = msgspec.json.Decoder(_Body).decode


def words_of(text: str) -> dict[str, str]:
    """The words of a message, by name."""
    return {name: value for name, _, value in (word.partition(":") for word in text.split())}


def usage_asked(words: dict[str, str]) -> Usage:
    """The usage that a message asks to be told."""
    asked = (int(words.get(name, "0")) for name in ("in", "out", "cached", "reasoning"))
    spent, made, cached, reasoning = asked
    return spent, made, cached, reasoning


def is_believable(words: dict[str, str]) -> bool:
    """Whether what is told of this call is a usage at all."""
    return words.get("usage") not in ("negative", "huge", "missing")


class Journal:
    """A file of JSON lines. All lines of one pass of the loop share a flush."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lines: list[bytes] = []
        self._wanted, self._durable = trio.Event(), trio.Event()

    def note(self, **facts: object) -> None:
        """Add a line, durable a moment later."""
        self._lines.append(_encode(facts) + b"\n")
        self._wanted.set()

    async def keep(self, **facts: object) -> None:
        """Add a line, and wait until it is durable."""
        self.note(**facts)
        await self._durable.wait()

    async def run(self) -> None:
        """Write what is noted."""
        while True:
            await self._wanted.wait()
            await trio.lowlevel.checkpoint()  # what else this pass brings shares the flush
            lines, durable = self._lines, self._durable
            self._lines, self._wanted, self._durable = [], trio.Event(), trio.Event()
            os.write(self._file, b"".join(lines))
            os.fdatasync(self._file)
            durable.set()


@dataclass
class Reply:
    """A reply in the parts it is written in."""

    parts: list[bytes] = field(default_factory=list)
    told_at: int | None = None
    """Bytes behind which the usage was told in whole; None where it never is."""

    def add(self, part: bytes, told: int | None = None) -> None:
        """Add a part; with `told` the usage ends behind that many bytes of it."""
        if told is not None and self.told_at is None:
            self.told_at = sum(map(len, self.parts)) + told
        self.parts.append(part)

    def cut(self, size: int) -> list[bytes]:
        """The parts up to a number of bytes."""
        parts: list[bytes] = []
        for part in self.parts:
            parts.append(part[: max(0, size)])
            size -= len(part)
        return parts


def usage_object(words: dict[str, str]) -> dict[str, Any]:
    """OpenAI's usage object, honest or not."""
    spent, made, cached, reasoning = usage_asked(words)
    match words.get("usage"):
        case "negative":
            spent, made = -spent - 1, -made - 1
        case "huge":
            made = UNBELIEVABLE
    return {
        "prompt_tokens": spent,
        "completion_tokens": made,
        "total_tokens": spent + made,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def plain_reply(body: _Body, words: dict[str, str]) -> Reply:
    """A whole completion."""
    message = {"role": "assistant", "content": f"reply to call:{words['call']} "}
    completion: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-9" if words.get("usage") == "other-model" else body.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    usage = b',"usage":' + _encode(usage_object(words))
    usage = {"missing": b"", "doubled": usage * 2}.get(words.get("usage", ""), usage)
    data = _encode(completion)[:-1] + usage + b"}"
    reply = Reply()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    half = len(data) // 2
    whole = len(data) - half if is_believable(words) else None
    if "slow" in words or "cut" in words:
        reply.add(head % len(data))
        reply.add(data[:half])
        reply.add(data[half:], whole)
    else:
        told = None if whole is None else len(head % len(data)) + len(data)
        reply.add(head % len(data) + data, told)
    return reply


def stream_reply(body: _Body, words: dict[str, str]) -> Reply:
    """A completion in events, one part for each."""
    model = "gpt-9" if words.get("usage") == "other-model" else body.model
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    reply = Reply()
    reply.add(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    for text in ("reply", " to", f" call:{words['call']}", " "):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        reply.add(_frame(_encode({**base, "choices": [choice]})))
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    reply.add(_frame(_encode({**base, "choices": [last]})))
    if words.get("usage") != "missing" and body.stream_options.get("include_usage"):
        event = _frame(_encode({**base, "choices": [], "usage": usage_object(words)}))
        for _ in range(2 if words.get("usage") == "doubled" else 1):
            told = event.rindex(b"}") + 1 if is_believable(words) else None
            reply.add(event, told)
    reply.add(_frame(b"[DONE]") + b"0\r\n\r\n")
    return reply


def _frame(data: bytes) -> bytes:
    """An event in a chunk of its own."""
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def error_reply(status: str) -> Reply:
    """An error as OpenAI words it."""
    error = {"message": "made up", "type": "server_error", "param": None, "code": None}
    data = _encode({"error": error})
    head = b"HTTP/1.1 %b Made Up\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    reply = Reply()
    reply.add(head % (status.encode(), len(data)) + data)
    return reply


async def read_request(stream: trio.SocketStream) -> tuple[bytes, bytes] | None:
    """Head and body of the next request, None where none comes any more."""
    data = b""
    while _HEAD_END not in data:
        more = await stream.receive_some()
        if not more:
            return None
        data += more
    head, _, body = data.partition(_HEAD_END)
    length = _LENGTH.search(head)
    while len(body) < int(length.group(1) if length else 0):
        more = await stream.receive_some()
        if not more:
            return None
        body += more
    return head, bytes(body)


async def serve(journal: Journal, stream: trio.SocketStream) -> None:
    """One connection."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async with stream:
            while (request := await read_request(stream)) is not None:
                if not await answer(journal, stream, *request):
                    return


async def answer(journal: Journal, stream: trio.SocketStream, head: bytes, data: bytes) -> bool:
    """Note the attempt, then do as it says. Whether the connection may go on."""
    named = _ATTEMPT.search(head)
    attempt = named.group(1).decode() if named else "none"
    body = _decode(data)
    asked = body.messages[0].content
    words = words_of(asked)
    await journal.keep(got=attempt, call=int(words["call"]), asked=asked)
    if "hang" in words:
        await stream.receive_some()  # until the other side gives up
        return False
    if "rst" in words:
        reset(stream)
        return False
    if "refuse" in words:
        reply = error_reply(words["refuse"])
    else:
        reply = (stream_reply if body.stream else plain_reply)(body, words)
    told = partial(journal.note, told=attempt, usage=usage_asked(words))
    return await write(stream, reply, words, told)


def reset(stream: trio.SocketStream) -> None:
    """Have the close that follows send RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def write(
    stream: trio.SocketStream, reply: Reply, words: dict[str, str], told: partial[None]
) -> bool:
    """Write a reply, and note once its usage is with the kernel. Whether it was not cut."""
    whole = "cut" not in words
    parts = reply.parts if whole else reply.cut(int(words["cut"]))
    pause = float(words.get("slow", "0")) / len(parts)
    sent, noted = 0, reply.told_at is None
    for part in parts:
        if pause:
            await trio.sleep(pause)
        if not part:
            break
        await stream.send_all(part)
        sent += len(part)
        if not noted and reply.told_at is not None and sent >= reply.told_at:
            told()
            noted = True
    return whole


async def main(path: str) -> None:
    """Serve until the standard input ends."""
    journal = Journal(path)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    sys.stdout.write(f"{listeners[0].socket.getsockname()[1]}\n")
    sys.stdout.flush()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        nursery.start_soon(partial(trio.serve_listeners, partial(serve, journal), listeners))
        async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
            while await stdin.receive_some():
                pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
