"""Clients that end their side behind every byte of a stream: by FIN, by RST, by a byte too many."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import trio

from torture.invariants import Verdict, check
from torture.load import Call, Seen, read_reply
from torture.stage import Stage, staged
from torture.upstream import reset

CLIENTS = 16
WAYS = ("fin", "rst", "pipelined")
POLICIES = ("drain", "cancel", "estimate")
WORDS = "in:40 out:9 cached:7 reasoning:2 slow:0.02"
QUIET_SECONDS = 1.0


async def disconnects(folder: Path, policy: str, stride: int) -> Verdict:
    """Every way at every `stride`-th byte, under one `on_disconnect`."""
    seen = Seen()
    with staged(folder, provider=f'on_disconnect = "{policy}"') as stage:
        await stage.start()
        size = await _length_of_a_reply(stage, seen)
        plan = enumerate(itertools.product(range(0, size, stride), WAYS), 2)
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(_leave_all, stage, plan, seen)
        await trio.sleep(QUIET_SECONDS)
        await stage.stop()
        verdict = check(stage, seen)
        if policy == "drain" and verdict.states["posted"] != verdict.attempts:
            verdict.faults.append("not every stream was read to its usage")
        verdict.notes = f"{size} offsets by {stride}, {policy}, {verdict.notes}"
        return verdict


async def _length_of_a_reply(stage: Stage, seen: Seen) -> int:
    async with await trio.open_tcp_stream("127.0.0.1", stage.port) as stream:
        call = Call(1, WORDS, stream=True)
        await stream.send_all(call.request())
        reply, _ = await read_reply(stream)
        seen.sent += 1
        seen.note(call, reply, 0)
        return len(reply)


async def _leave_all(stage: Stage, plan: Iterator[tuple[int, tuple[int, str]]], seen: Seen) -> None:
    for number, (offset, way) in plan:
        call = Call(number, WORDS, stream=True)
        async with await trio.open_tcp_stream("127.0.0.1", stage.port) as stream:
            await stream.send_all(call.request())
            seen.sent += 1
            reply = b""
            while len(reply) < offset:
                reply += await stream.receive_some(offset - len(reply))
            await _leave(stream, way)
        seen.statuses[1] += 1


async def _leave(stream: trio.SocketStream, way: str) -> None:
    if way == "rst":
        reset(stream)
    elif way == "fin":
        await stream.send_eof()
        await _read_to_end(stream)  # closed with bytes unread it would send RST
    else:
        await stream.send_all(b"G")
        await trio.sleep(0.005)
        await _read_to_end(stream, until=b"\r\n0\r\n\r\n")


async def _read_to_end(stream: trio.SocketStream, until: bytes = b"") -> None:
    data = b""
    with trio.move_on_after(5):
        try:
            while more := await stream.receive_some():
                data = data[-8:] + more
                if until and data.endswith(until):
                    return
        except trio.BrokenResourceError:
            return
