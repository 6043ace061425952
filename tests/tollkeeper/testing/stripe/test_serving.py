"""The socket."""

from typing import Any

import pytest

from tollkeeper import UpstreamError
from tollkeeper.testing.stripe import FakeStripe, fake_stripe


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/surprises"), ("DELETE", "/v1/customers"), ("GET", "/"), ("GET", "/static/x")],
)
async def test_what_is_not_served_is_told_so(shop: Any, method: str, path: str) -> None:
    reply = await shop.raw(method, path)
    assert reply.status == 404
    assert f"({method}: {path})" in reply.json()["error"]["message"]


async def test_replies_are_json_with_an_id(shop: Any) -> None:
    reply = await shop.raw(
        "POST", "/v1/customers", b"name=Ada", {"authorization": "Bearer sk_test_fake"}
    )
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["request-id"].startswith("req_")
    assert reply.json()["name"] == "Ada"


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
async def test_a_dropped_request_gets_no_reply(shop: Any, fake: FakeStripe, fault: str) -> None:
    fake.fault = lambda _method, _path: fault
    with pytest.raises(UpstreamError, match="without a reply"):
        await shop.raw("POST", "/v1/customers", b"name=Ada")


async def test_two_serve_side_by_side_and_a_port_that_is_taken_is_an_error() -> None:
    async with fake_stripe() as one, fake_stripe() as two:
        assert one.url != two.url
        assert one.url.startswith("http://127.0.0.1:")
        port = int(one.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            async with fake_stripe(port=port):
                pass
