"""Signatures and deliveries."""

import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import stripe
import trio

from tollkeeper.testing.stripe import webhooks
from tollkeeper.testing.stripe.webhooks import Deliveries, post, sign


def test_a_signature_is_one_that_stripe_takes() -> None:
    stripe.WebhookSignature.verify_header("{}", sign(b"{}", 7, "whsec"), "whsec")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header("{ }", sign(b"{}", 7, "whsec"), "whsec")


Serve = Callable[[bytes], Awaitable[tuple[str, list[bytes]]]]


@pytest.fixture
async def listening(nursery: trio.Nursery) -> Serve:
    """A webhook that answers every request with the same bytes."""

    async def listen(reply: bytes) -> tuple[str, list[bytes]]:
        got: list[bytes] = []

        async def answer(stream: trio.SocketStream) -> None:
            async with stream:
                got.append(await stream.receive_some())
                await stream.send_all(reply)

        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        port = listeners[0].socket.getsockname()[1]
        return f"http://127.0.0.1:{port}/hook?x=1", got

    return listen


async def test_an_event_is_posted(listening: Serve) -> None:
    url, got = await listening(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert await post(url, b"{}", "t=1,v1=x") == 204
    assert got[0].startswith(b"POST /hook?x=1 HTTP/1.1\r\n")
    assert b"stripe-signature: t=1,v1=x\r\n" in got[0]
    assert got[0].endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", 500),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nno", 0),
        (b"", 0),
        (b"nonsense\r\n\r\n", 0),
    ],
)
async def test_a_reply_that_is_none_is_status_0(
    listening: Serve, reply: bytes, status: int
) -> None:
    url, _ = await listening(reply)
    assert await post(url, b"{}", "") == status


async def test_nobody_there_is_status_0_and_no_url_a_mistake(unused: str) -> None:
    assert await post(unused, b"{}", "") == 0
    for url in ("", "https://x.test", "http:///x"):
        with pytest.raises(ValueError, match="plain http"):
            await post(url, b"{}", "")


@pytest.fixture
def unused() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_events_are_delivered_in_order_until_each_is_taken(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    got: list[tuple[float, str]] = []
    statuses = [500] * 10 + [200, 302, 204]

    async def deliver(event: dict[str, Any]) -> int:
        got.append((trio.current_time(), event["id"]))
        return statuses.pop(0)

    deliveries = Deliveries(deliver)
    nursery.start_soon(deliveries.run)
    deliveries.add({"id": "a"})
    deliveries.add({"id": "b"})
    await trio.sleep(1)
    assert got == []
    deliveries.turn(True)
    await deliveries.wait_empty()
    assert [name for _, name in got] == ["a"] * 11 + ["b"] * 2
    times = [at for at, _ in got]
    pauses = [round(after - at, 6) for at, after in pairwise(times)]
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert pauses[8:] == [30, 30, 0, 0.2]
    assert webhooks.LONGEST_PAUSE == 30


async def test_deliveries_can_be_turned_off(autojump_clock: object, nursery: trio.Nursery) -> None:
    got = []

    async def deliver(event: dict[str, Any]) -> int:
        got.append(event["id"])
        deliveries.turn(False)
        return 200

    deliveries = Deliveries(deliver)
    deliveries.turn(True)
    deliveries.add({"id": "a"})
    deliveries.add({"id": "b"})
    nursery.start_soon(deliveries.run)
    await trio.sleep(1)
    assert got == ["a"]
