"""What a serving process asks of its machine: a socket, descriptors, memory."""

import contextlib
import gc
import logging
import resource
import socket

import trio

from tollkeeper.settings import split_bind

log = logging.getLogger("tollkeeper")

BACKLOG = 1024
GC_THRESHOLD = 20_000


def open_listener(bind: str) -> socket.socket:
    """A bound socket. Raises OSError with the reason."""
    host, port = split_bind(bind)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def address_of(listener: socket.socket) -> str:
    """Where people and programs on this machine reach it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- for people to use
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def peer_of(stream: trio.SocketStream) -> str:
    """The address of the client."""
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return "unknown"


def raise_descriptor_limit() -> None:
    """Take as many descriptors as the system grants: each call needs one on either side."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.debug("file descriptors: %s, of them granted at first: %s", hard, soft)


def tune_garbage_collection() -> None:
    """What was loaded stays; requests make few cycles, so look for them less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
