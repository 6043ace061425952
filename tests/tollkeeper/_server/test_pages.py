"""Management routes of plugins, through Quart."""

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel, ConfigDict
from quart import Response

from tollkeeper import Authorizer, Caller, Gateway, PluginSettings, Refused, hookimpl
from tollkeeper.management import Done, Write
from tollkeeper.testing import open_gateway


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    count: int = 1


class Search(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    limit: int = 10
    name: str = ""


class Shop:
    """A few routes, and who may call them."""

    writes: list[Write] = []  # noqa: RUF012 -- cleared by who looks at it

    def __init__(self, settings: PluginSettings) -> None:
        pass

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        gateway.add_route("/shop/<item>", self.item, policy="open")
        gateway.add_route("/shop", self.order, policy="owner", methods=("POST",), body=Wish)
        gateway.add_route("/broken", self.broken, policy="open")
        gateway.add_route("/stream", self.stream, policy="open")
        gateway.add_route("/empty", self.empty, policy="open")
        gateway.add_route("/search", self.search, policy="open", query=Search)
        gateway.offer(Authorizer, self)

    async def authorize(self, headers: dict[str, str], policy: frozenset[str]) -> Caller:
        assert policy == {"owner"}
        if headers.get("x-role") not in policy:
            raise Refused(403, "auth_error", "Only for owners.")
        return Caller("user_1", "o@example.org", "jti", "org_1", "owner")

    async def write(self, write: Write, act: Callable[[], Awaitable[Done]]) -> Done:
        self.writes.append(write)
        return await act()

    async def item(self, item: str) -> dict[str, Any]:
        if item == "none":
            raise Refused(404, "not_found", "No such item.")
        return {"item": item}

    async def order(self, caller: Caller, body: Wish) -> Wish:
        assert caller.role == "owner"
        if body.name == "moon":
            raise Refused(409, "conflict", "Not for sale.")
        return body

    async def search(self, query: Search) -> dict[str, Any]:
        return query.model_dump()

    async def broken(self) -> None:
        raise RuntimeError("a secret detail")

    async def empty(self) -> Response:
        return Response(b"", status=204)

    async def stream(self) -> Response:
        async def parts() -> Any:
            yield b"one "
            yield b"two"

        return Response(parts())


async def test_a_route_gets_its_path_and_answers_json() -> None:
    async with open_gateway(plugins={"shop": Shop}) as gateway:
        reply = await gateway.get("/shop/hat")
        assert (reply.status, reply.json()) == (200, {"item": "hat"})
        assert reply.headers["x-request-id"].startswith("req_")
        assert "content-length" in reply.headers
        refused = await gateway.get("/shop/none")
        assert (refused.status, refused.code) == (404, "not_found")


async def test_a_body_is_checked_and_the_field_at_fault_named() -> None:
    owner = {"x-role": "owner"}
    async with open_gateway(plugins={"shop": Shop}) as gateway:
        good = await gateway.request("POST", "/shop", b'{"name": "hat"}', owner)
        assert good.json() == {"name": "hat", "count": 1}
        for body, param in (
            (b'{"name": 1}', "name"),
            (b'{"name": "hat", "price": 0}', "price"),
            (b"not json", None),
        ):
            wrong = await gateway.request("POST", "/shop", body, owner)
            assert (wrong.status, wrong.code) == (400, "invalid_request")
            assert wrong.json()["error"]["param"] == param


async def test_a_write_goes_through_whoever_keeps_account_of_writes() -> None:
    owner = {"x-role": "owner", "idempotency-key": "once"}
    Shop.writes.clear()
    async with open_gateway(plugins={"shop": Shop}) as gateway:
        await gateway.request("POST", "/shop", b'{"name": "hat"}', owner)
        refused = await gateway.request("POST", "/shop", b'{"name": "moon"}', owner)
        await gateway.get("/shop/hat")
    assert (refused.status, refused.code) == (409, "conflict")
    assert [(w.method, w.path, w.idempotency_key) for w in Shop.writes] == [
        ("POST", "/shop", "once")
    ] * 2
    assert Shop.writes[0].body == b'{"name": "hat"}'


async def test_a_query_is_checked_as_a_body_is() -> None:
    async with open_gateway(plugins={"shop": Shop}) as gateway:
        good = await gateway.get("/search?limit=5&name=hat")
        assert good.json() == {"limit": 5, "name": "hat"}
        for query, param in (
            ("limit=x", "limit"),
            ("color=red", "color"),
            ("name=a&name=b", "name"),
        ):
            wrong = await gateway.get(f"/search?{query}")
            assert (wrong.status, wrong.code) == (400, "invalid_request")
            assert wrong.json()["error"]["param"] == param


async def test_a_role_is_asked_for_before_anything_else() -> None:
    async with open_gateway(plugins={"shop": Shop}) as gateway:
        reply = await gateway.request("POST", "/shop", b"not json")
        assert (reply.status, reply.code) == (403, "auth_error")


async def test_a_crash_is_a_500_that_tells_nothing() -> None:
    async with open_gateway(plugins={"shop": Shop}) as gateway:
        reply = await gateway.get("/broken")
        assert (reply.status, reply.code) == (500, "server_error")
        assert b"secret detail" not in reply.body


async def test_a_page_may_stream_and_a_head_request_has_no_body() -> None:
    async with open_gateway(plugins={"shop": Shop}) as gateway:
        assert (await gateway.get("/stream")).body == b"one two"
        async with gateway.open("HEAD", "/shop/hat") as link:
            assert link.status == 200


async def test_wrong_paths_and_methods_have_the_openai_shape() -> None:
    async with open_gateway(plugins={"shop": Shop}) as gateway:
        assert (await gateway.get("/nothing")).code == "not_found"
        wrong = await gateway.request("DELETE", "/shop")
        assert (wrong.status, wrong.code) == (405, "method_not_allowed")
        assert "POST" in wrong.headers["allow"]


async def test_a_connection_stays_in_step_after_replies_without_a_body() -> None:
    async with open_gateway(plugins={"shop": Shop}) as gateway:
        for method, path, status in (("HEAD", "/stream", 200), ("GET", "/empty", 204)):
            async with gateway.open(method, path) as link:
                assert link.status == status
                raw = link._stream
                await raw.send_all(b"GET /shop/hat HTTP/1.1\r\nhost: test\r\n\r\n")
                assert (await raw.receive_some(65536)).startswith(b"HTTP/1.1 200 OK")
