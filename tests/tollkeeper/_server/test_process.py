"""What a serving process asks of its machine."""

import gc
import resource
import socket

import pytest

from tollkeeper._server.process import (
    GC_THRESHOLD,
    address_of,
    open_listener,
    raise_descriptor_limit,
    tune_garbage_collection,
)


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0"])
def test_a_listener_is_bound_and_listening(bind: str) -> None:
    if "::" in bind and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = open_listener(bind)
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with listener, socket.create_connection(listener.getsockname()[:2], timeout=5):
        assert listener.getsockname()[1] > 0


def test_the_address_shown_is_one_that_can_be_used_here() -> None:
    with open_listener("0.0.0.0:0") as listener:
        assert address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_all_descriptors_that_the_system_grants_are_taken() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_garbage_is_looked_for_less_often_and_not_in_what_was_loaded() -> None:
    before = gc.get_threshold()
    try:
        tune_garbage_collection()
        assert gc.get_threshold()[0] == GC_THRESHOLD
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
