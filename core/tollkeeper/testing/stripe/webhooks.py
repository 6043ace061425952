"""How events reach a webhook: signed, posted, and tried again."""

import hashlib
import hmac
from collections import deque
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import trio

from tollkeeper._server.link import Link
from tollkeeper.errors import UpstreamError
from tollkeeper.testing.stripe.state import Thing

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
PATIENCE = 10.0
"""How long a webhook may take to answer."""


def sign(body: bytes, timestamp: int, secret: str) -> str:
    """The `Stripe-Signature` header of a body."""
    signed = f"{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


async def post(url: str, body: bytes, signature: str) -> int:
    """Post an event to a plain http URL. The status, 0 where there was no reply."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"a webhook is a plain http URL, not {url!r}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = {
        "host": parts.netloc,
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(body)),
        "stripe-signature": signature,
        "user-agent": "tollkeeper fake stripe",
        "connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    request = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
    with trio.move_on_after(PATIENCE):
        try:
            return await _exchange(
                await trio.open_tcp_stream(parts.hostname, parts.port or 80), request
            )
        except OSError:
            pass  # nobody is there
    return 0


async def _exchange(stream: trio.SocketStream, request: bytes) -> int:
    link = Link(stream)
    try:
        await link.request(request)
        while await link.chunk():
            pass  # the webhook is to have said all it wanted before it is left
    except UpstreamError:
        return 0
    else:
        return link.status
    finally:
        await link.aclose()


class Deliveries:
    """Events that are to be delivered, one after the other, each until it is taken."""

    def __init__(self, deliver: Callable[[Thing], Awaitable[int]]) -> None:
        self._deliver = deliver
        self._waiting: deque[Thing] = deque()
        self._on = False
        self._changed = trio.Event()

    def add(self, event: Thing) -> None:
        """Deliver this too."""
        self._waiting.append(event)
        self._change()

    def turn(self, on: bool) -> None:
        """Go on, or stop with the next event."""
        self._on = on
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Deliver for good."""
        pause = FIRST_PAUSE
        while True:
            while not (self._on and self._waiting):
                await self._changed.wait()
            if 200 <= await self._deliver(self._waiting[0]) < 300:
                self._waiting.popleft()
                self._change()
                pause = FIRST_PAUSE
            else:
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def wait_empty(self) -> None:
        """Until all that was to be delivered is."""
        while self._waiting:
            await self._changed.wait()
