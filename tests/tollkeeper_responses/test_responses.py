"""`/v1/responses` in front of a gateway: translated, native, kept and continued."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

import tollkeeper_responses
from tollkeeper.exchange import Exchange, Principal
from tollkeeper.hookspecs import hookimpl
from tollkeeper.settings import PluginSettings
from tollkeeper.storage import Database, make_database
from tollkeeper.testing import (
    Answered,
    JumpClock,
    ScriptedUpstream,
    TestGateway,
    chunk,
    completion,
    open_gateway,
    usage_chunk,
)
from tollkeeper_responses import DAY, Responses, models, service
from tollkeeper_responses.settings import ResponsesSettings

PATH = "/v1/responses"
STORE = "[plugins.responses]\nstore = true\n"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class Orgs:
    """The org is what a header says."""

    def __init__(self, settings: PluginSettings) -> None:
        pass

    @hookimpl
    async def authenticate(self, exchange: Exchange) -> Principal | None:
        return Principal(exchange.headers.get("x-org", "default"))


@asynccontextmanager
async def gateway_with(
    upstream: ScriptedUpstream | None = None, toml: str = STORE, **fields: Any
) -> AsyncIterator[TestGateway]:
    plugins = {"orgs": Orgs, "responses": Responses}
    async with open_gateway(upstream, toml, plugins=plugins, **fields) as gateway:
        yield gateway


async def ask(gateway: TestGateway, text: Any = "hi", **fields: Any) -> Any:
    """The response to a request, checked as OpenAI's SDK would."""
    answered = await gateway.post(PATH, {"model": "test", "input": text, **fields})
    assert answered.status == 200, answered.body
    if not fields.get("stream"):
        Response.model_validate_json(answered.body, strict=True)
        return answered.json()
    events = answered.events()
    for event in events:
        EVENT.validate_json(event, strict=True)
    return json.loads(events[-1])["response"]


async def as_org(gateway: TestGateway, org: str, method: str, path: str) -> Answered:
    return await gateway.request(method, path, headers={"x-org": org})


def native(**fields: Any) -> dict[str, Any]:
    """A response as an upstream that speaks the dialect makes it."""
    return {
        "id": "resp_up",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "model": "test",
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8},
        **fields,
    }


def native_upstream() -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    upstream.dialects = {"chat", "responses"}
    return upstream


def event(kind: str, response: dict[str, Any]) -> bytes:
    data = json.dumps({"type": kind, "response": response, "sequence_number": 0})
    return f"event: {kind}\ndata: {data}\n\n".encode()


async def test_a_model_behind_a_chat_answers_with_a_response() -> None:
    upstream = ScriptedUpstream()
    async with gateway_with(upstream, "") as gateway:
        response = await ask(gateway, instructions="Be brief.")
        (exchange,) = gateway.settled
    assert response["output"][0]["content"][0]["text"] == "hello"
    assert response["usage"]["total_tokens"] == 5
    assert json.loads(upstream.bodies[0])["messages"][0]["content"] == "Be brief."
    usage = exchange.attempts[0].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (3, 2)


async def test_a_model_behind_a_chat_streams_events() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("hel"), chunk("lo"), chunk(None, finish="stop"), usage_chunk())
    async with gateway_with(upstream, "") as gateway:
        response = await ask(gateway, stream=True)
        (exchange,) = gateway.settled
    assert response["output"][0]["content"][0]["text"] == "hello"
    assert json.loads(upstream.bodies[0])["stream_options"] == {"include_usage": True}
    assert exchange.attempts[0].usage is not None
    assert exchange.outcome is not None
    assert exchange.outcome.kind == "completed"


async def test_a_chat_stream_that_is_cut_ends_with_an_error_event() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("hel"))
    async with gateway_with(upstream, STORE) as gateway:
        answered = await gateway.post(PATH, {"model": "test", "input": "hi", "stream": True})
        first, *_, last = map(json.loads, answered.events())
        kept = await gateway.get(f"{PATH}/{first['response']['id']}")
    assert (last["type"], last["code"]) == ("error", "server_error")
    assert answered.body.rpartition(b"event: ")[2].startswith(b"error\n")
    assert kept.status == 404


async def test_what_chat_cannot_express_is_refused_before_anything_is_sent() -> None:
    upstream = ScriptedUpstream()
    async with gateway_with(upstream, "") as gateway:
        body = {"model": "test", "input": "hi", "tools": [{"type": "web_search"}]}
        answered = await gateway.post(PATH, body)
    assert (answered.status, answered.json()["error"]["param"]) == (400, "tools[0].type")
    assert upstream.bodies == []


async def test_native_bodies_pass_as_they_are() -> None:
    upstream = native_upstream()
    upstream.reply(native(extra=1))
    raw = b'{"model": "test",  "input": [], "tools": [{"type": "web_search"}], "store": true}'
    async with gateway_with(upstream, "") as gateway:
        answered = await gateway.request("POST", PATH, raw)
    assert upstream.bodies == [raw]
    assert answered.body == json.dumps(native(extra=1)).encode()


@pytest.mark.parametrize("toml", ["", STORE])
async def test_native_events_pass_up_to_the_last_response(toml: str) -> None:
    upstream = native_upstream()
    parts = [
        event("response.created", native(status="in_progress")),
        b'event: x\ndata: {"type": "response.output_text.delta", "delta": "\\"response\\""}\n\n',
        event("response.completed", native()),
    ]
    upstream.stream(*parts, b"data: never\n\n")
    async with gateway_with(upstream, toml) as gateway:
        answered = await gateway.post(PATH, {"model": "test", "input": "hi", "stream": True})
        (exchange,) = gateway.settled
        kept = await gateway.get(f"{PATH}/resp_up")
    assert answered.body == b"".join(parts)
    assert exchange.attempts[0].usage is not None
    assert kept.status == (200 if toml else 404)


async def test_a_native_stream_without_its_last_response_was_cut() -> None:
    upstream = native_upstream()
    upstream.stream(event("response.created", native(status="in_progress")))
    async with gateway_with(upstream, "") as gateway:
        answered = await gateway.post(PATH, {"model": "test", "input": "hi", "stream": True})
    assert json.loads(answered.events()[-1])["type"] == "error"


async def test_a_native_error_event_is_mapped() -> None:
    upstream = native_upstream()
    flat = b'{"type": "error", "code": "rate_limit_exceeded", "message": "slow"}'
    upstream.stream(b"event: error\ndata: " + flat + b"\n\n")
    async with gateway_with(upstream, "") as gateway:
        answered = await gateway.post(PATH, {"model": "test", "input": "hi", "stream": True})
    assert (answered.status, answered.code) == (429, "rate_limit")


async def test_with_storing_off_nothing_is_found_and_the_message_says_why() -> None:
    async with gateway_with(toml="") as gateway:
        response = await ask(gateway)
        assert response["store"] is False
        for method in ("GET", "DELETE"):
            answered = await gateway.request(method, f"{PATH}/{response['id']}")
            assert (answered.status, answered.code) == (404, "not_found")
            assert "storing is off" in answered.json()["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_kept_response_is_read_as_the_client_got_it_at_once_and_later(
    stream: bool,
) -> None:
    upstream = ScriptedUpstream()
    if stream:
        upstream.stream(chunk("hello"), chunk(None, finish="length"))
    async with gateway_with(upstream) as gateway:
        response = await ask(gateway, stream=stream)
        assert response["store"] is True
        path = f"{PATH}/{response['id']}"
        at_once = await gateway.get(path)
        await written(gateway)
        later = await gateway.get(path)
        assert at_once.json() == later.json() == response
        Response.model_validate_json(later.body, strict=True)
        page = (await gateway.get(f"{path}/input_items")).json()
    assert [item["content"] for item in page["data"]] == [[{"type": "input_text", "text": "hi"}]]


async def written(gateway: TestGateway) -> None:
    """Wait until the table holds what was kept."""
    (plugin,) = [
        instance.plugin
        for instance in gateway.generations.current.instances
        if isinstance(instance.plugin, Responses)
    ]
    while plugin._pending.batch():
        await trio.sleep(0.001)


async def test_a_response_is_its_orgs_alone() -> None:
    async with gateway_with() as gateway:
        response = await ask(gateway)
        path = f"{PATH}/{response['id']}"
        for _ in range(2):
            assert (await as_org(gateway, "acme", "GET", path)).status == 404
            assert (await as_org(gateway, "acme", "DELETE", path)).status == 404
            body = {"model": "test", "input": "x", "previous_response_id": response["id"]}
            continued = await gateway.request(
                "POST", PATH, json.dumps(body).encode(), {"x-org": "acme"}
            )
            assert continued.status == 400
            assert (await gateway.get(path)).status == 200
            await written(gateway)


@pytest.mark.parametrize("waits", [True, False])
async def test_a_deleted_response_is_gone(waits: bool) -> None:
    async with gateway_with() as gateway:
        path = f"{PATH}/{(await ask(gateway))['id']}"
        if not waits:
            await written(gateway)
        deleted = await gateway.request("DELETE", path)
        assert deleted.json() == {
            "id": path.rpartition("/")[2],
            "object": "response",
            "deleted": True,
        }
        await written(gateway)
        assert (await gateway.get(path)).status == 404
        assert (await gateway.request("DELETE", path)).status == 404


@pytest.mark.parametrize("rest", ["/other", "/input_items/x", "x", "/"])
async def test_what_is_not_offered_is_not_found(rest: str) -> None:
    async with gateway_with() as gateway:
        path = f"{PATH}/{(await ask(gateway))['id']}"
        found = await gateway.get(path + rest)
        assert found.status == (200 if rest == "/" else 404)
        assert (await gateway.request("DELETE", f"{path}/input_items")).status == 404
        assert (await gateway.get(path)).status == 200


async def test_what_is_not_to_be_stored_is_not() -> None:
    async with gateway_with() as gateway:
        response = await ask(gateway, store=False)
        assert response["store"] is False
        assert (await gateway.get(f"{PATH}/{response['id']}")).status == 404


async def test_a_native_response_that_is_not_over_is_not_kept() -> None:
    upstream = native_upstream()
    upstream.reply(native(status="queued"))
    async with gateway_with(upstream) as gateway:
        await gateway.post(PATH, {"model": "test", "input": "hi", "background": True})
        assert (await gateway.get(f"{PATH}/resp_up")).status == 404


@pytest.mark.parametrize("waits", [True, False])
async def test_a_conversation_is_continued_by_its_last_responses_id(waits: bool) -> None:
    upstream = ScriptedUpstream()
    for text in ("one", "two", "three"):
        upstream.reply(completion(text))
    async with gateway_with(upstream) as gateway:
        previous, responses = None, []
        for number in range(3):
            response = await ask(gateway, f"to {number}", previous_response_id=previous)
            assert response["previous_response_id"] == previous
            responses.append(response)
            previous = response["id"]
            if not waits:
                await written(gateway)
        page = await gateway.get(f"{PATH}/{previous}/input_items")
        assert [item["content"][0]["text"] for item in page.json()["data"]] == ["to 2"]
        assert (await gateway.get(f"{PATH}/{previous}")).json() == responses[-1]
    said = [m["content"] for m in json.loads(upstream.bodies[-1])["messages"]]
    assert said == ["to 0", "one", "to 1", "two", "to 2"]


async def test_a_stream_shows_what_it_builds_on_from_its_first_event() -> None:
    upstream = ScriptedUpstream()
    upstream.reply(completion("one"))
    upstream.stream(chunk("two"), chunk(None, finish="stop"))
    async with gateway_with(upstream) as gateway:
        first = (await ask(gateway))["id"]
        body = {"model": "test", "input": "x", "previous_response_id": first, "stream": True}
        answered = await gateway.post(PATH, {**body, "store": False})
    events = [json.loads(data) for data in answered.events()]
    shown = [e["response"]["previous_response_id"] for e in events if "response" in e]
    assert shown == [first] * 3
    assert answered.body.startswith(b"event: response.created\n")


async def test_a_native_request_is_continued_here_too() -> None:
    upstream = native_upstream()
    upstream.reply(native(output=[{"type": "reasoning", "id": "rs_1", "summary": []}]))
    upstream.reply(native(id="resp_2"))
    async with gateway_with(upstream) as gateway:
        await gateway.post(PATH, {"model": "test", "input": [{"role": "user", "content": "a"}]})
        body = {"model": "test", "input": "b", "previous_response_id": "resp_up", "x": 1}
        answered = await gateway.post(PATH, body)
    assert answered.json()["previous_response_id"] == "resp_up"
    assert json.loads(upstream.bodies[1]) == {
        "model": "test",
        "previous_response_id": None,
        "x": 1,
        "input": [
            {"role": "user", "content": "a"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "user", "content": "b"},
        ],
    }


async def test_what_is_not_kept_cannot_be_continued() -> None:
    upstream = ScriptedUpstream()
    async with gateway_with(upstream) as gateway:
        first = await ask(gateway)
        second = await ask(gateway, previous_response_id=first["id"])
        await gateway.request("DELETE", f"{PATH}/{first['id']}")
        sent = len(upstream.bodies)
        for lost in ("resp_none", first["id"], second["id"]):
            body = {"model": "test", "input": "x", "previous_response_id": lost}
            answered = await gateway.post(PATH, body)
            assert answered.status == 400
            assert answered.json()["error"]["param"] == "previous_response_id"
    assert len(upstream.bodies) == sent


async def test_a_response_that_builds_on_itself_cannot_be_continued() -> None:
    upstream = native_upstream()
    for _ in range(3):
        upstream.reply(native())
    async with gateway_with(upstream) as gateway:
        body: dict[str, Any] = {"model": "test", "input": "x"}
        assert (await gateway.post(PATH, body)).status == 200
        body["previous_response_id"] = "resp_up"
        assert (await gateway.post(PATH, body)).status == 200
        assert (await gateway.post(PATH, body)).status == 400


def refer(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "item_reference", "id": item["id"]}


async def waited(gateway: TestGateway, waits: bool) -> None:
    if not waits:
        await written(gateway)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("waits", [True, False])
async def test_a_translated_models_items_are_known_by_their_ids(waits: bool, stream: bool) -> None:
    upstream = ScriptedUpstream()
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "let me see", "reasoning_content": "hm"}
    choice = {"index": 0, "finish_reason": "tool_calls"}
    said = {**message, "tool_calls": [{**call, "index": 0}]}
    if stream:
        whole = {"choices": [{**choice, "delta": said}]}
        upstream.stream(b"data: " + json.dumps(whole).encode() + b"\n\n", b"data: [DONE]\n\n")
    else:
        upstream.reply({**completion(""), "choices": [{**choice, "message": said}]})
    async with gateway_with(upstream) as gateway:
        first = await ask(gateway, stream=stream)
        await waited(gateway, waits)
        references = [refer(item) for item in first["output"]]
        result = {"type": "function_call_output", "call_id": "c", "output": "4"}
        items = [{"role": "user", "content": "hi"}, *references, result]
        second = await ask(gateway, items)
        page = (await gateway.get(f"{PATH}/{second['id']}/input_items")).json()["data"]
    assert [item["type"] for item in first["output"]] == ["reasoning", "message", "function_call"]
    asked = json.loads(upstream.bodies[1])["messages"]
    assert [each["role"] for each in asked] == ["user", "assistant", "tool"]
    assert asked[1] == {**message, "content": asked[1]["content"], "tool_calls": [call]}
    assert "let me see" in json.dumps(asked[1]["content"])
    assert page[1:4] == [
        {"status": "completed", **item} if item["type"] != "reasoning" else item
        for item in reversed(first["output"])
    ]


@pytest.mark.parametrize("waits", [True, False])
async def test_a_native_models_items_are_known_by_their_ids(waits: bool) -> None:
    upstream = native_upstream()
    output: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "x", "id": "x_1"},
    ]
    upstream.reply(native(output=output))
    upstream.reply(native(id="resp_2"))
    upstream.reply(native(id="resp_3"))
    async with gateway_with(upstream) as gateway:
        await gateway.post(PATH, {"model": "test", "input": "a"})
        await waited(gateway, waits)
        items = [{"id": "rs_1"}, refer(output[1]), {"role": "user", "content": "b"}]
        assert (await gateway.post(PATH, {"model": "test", "input": items})).status == 200
        await waited(gateway, waits)
        body = {"model": "test", "input": "c", "previous_response_id": "resp_2"}
        assert (await gateway.post(PATH, body)).status == 200
    whole = [*output, items[2]]
    assert json.loads(upstream.bodies[1])["input"] == whole
    asked = {"type": "message", "role": "user", "content": "c"}
    assert json.loads(upstream.bodies[2])["input"] == [*whole, asked]


@pytest.mark.parametrize("waits", [True, False])
async def test_an_item_that_is_not_kept_for_its_org_is_refused(waits: bool) -> None:
    upstream = ScriptedUpstream()
    async with gateway_with(upstream) as gateway:
        first, unkept = await ask(gateway), await ask(gateway, store=False)
        await waited(gateway, waits)

        async def refused(item: dict[str, Any], org: str = "default") -> bool:
            body = json.dumps({"model": "test", "input": [refer(item)]}).encode()
            answered = await gateway.request("POST", PATH, body, {"x-org": org})
            if answered.status == 200:
                return False
            told = answered.json()["error"]
            return (answered.status, told["param"]) == (400, "input[0].id")

        (item,) = first["output"]
        assert await refused(unkept["output"][0])
        assert await refused(item, "acme")
        assert not await refused(item)
        await waited(gateway, waits)
        await gateway.request("DELETE", f"{PATH}/{first['id']}")
        assert await refused(item)
    assert len(upstream.bodies) == 3


async def test_with_storing_off_an_items_id_passes_natively_or_is_refused() -> None:
    body = {"model": "test", "input": [{"type": "item_reference", "id": "msg_1"}]}
    upstream = native_upstream()
    upstream.reply(native())
    async with gateway_with(upstream, "") as gateway:
        assert (await gateway.post(PATH, body)).status == 200
    assert json.loads(upstream.bodies[0]) == body
    async with gateway_with(ScriptedUpstream(), "") as gateway:
        answered = await gateway.post(PATH, body)
    told = answered.json()["error"]
    assert (answered.status, told["param"]) == (400, "input[0].id")
    assert "`store = true`" in told["message"]


async def test_with_storing_off_a_conversation_is_continued_natively_or_refused() -> None:
    body = {"model": "test", "input": "x", "previous_response_id": "resp_up"}
    upstream = native_upstream()
    upstream.reply(native())
    async with gateway_with(upstream, "") as gateway:
        assert (await gateway.post(PATH, body)).status == 200
    assert json.loads(upstream.bodies[0]) == body
    async with gateway_with(ScriptedUpstream(), "") as gateway:
        answered = await gateway.post(PATH, body)
    assert (answered.status, answered.json()["error"]["param"]) == (400, "previous_response_id")


async def test_a_body_that_is_kept_is_read_strictly() -> None:
    upstream = native_upstream()
    async with gateway_with(upstream) as gateway:
        raw = b'{"model": "test", "input": "\\ud800"}'
        assert (await gateway.request("POST", PATH, raw)).status == 400
    assert upstream.bodies == []


async def test_where_too_many_wait_a_response_is_given_but_not_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(models, "MAX_PENDING", 0)
    async with gateway_with() as gateway:
        response = await ask(gateway)
        assert (await gateway.get(f"{PATH}/{response['id']}")).status == 404
    assert "not kept" in caplog.text


async def test_other_calls_are_left_alone() -> None:
    async with gateway_with() as gateway:
        assert (await gateway.chat()).text() == "hello"
        assert (await gateway.get("/v1/models")).status == 200
        assert all("responses" not in exchange.holds for exchange in gateway.settled)


async def test_old_responses_are_deleted_when_the_plugin_starts() -> None:
    clock = JumpClock()
    async with gateway_with(clock=clock, toml=STORE + "keep_days = 2\n") as gateway:
        path = f"{PATH}/{(await ask(gateway))['id']}"
        await written(gateway)
        for days, status in ((1, 200), (2, 404)):
            clock.jump(days * DAY)
            await gateway.switch("")
            await gateway.switch(STORE + "keep_days = 2\n")
            await trio.sleep(0.05)
            assert (await gateway.get(path)).status == status


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Responses, Database]]:
    """A plugin whose own task runs over a database in memory, and is stopped with the block."""
    database = make_database("sqlite:///:memory:", Path("/"))
    database.open()
    database.migrate_package("responses", "tollkeeper_responses")
    plugin = Responses(ResponsesSettings(store=True))
    plugin._database, plugin._clock = database, JumpClock()
    async with trio.open_nursery() as nursery:
        await nursery.start(plugin.run)
        yield plugin, database
        nursery.cancel_scope.cancel()
    database.close()


def row(number: int) -> models.Kept:
    return models.Kept("default", f"r{number}", None, "[]", "{}", int(JumpClock().time()))


async def test_what_waits_is_written_before_the_plugin_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved: list[models.Kept] = []
    monkeypatch.setattr(service, "save", lambda database, rows: saved.extend(rows))
    rows = [row(number) for number in range(250)]
    async with running() as (plugin, _):
        assert all(plugin._pending.add(each) for each in rows)
    assert saved == rows


async def test_a_database_that_takes_nothing_for_a_while_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save, failures = service.save, iter([models.WriteError("locked")] * 2)

    def fail_first(database: Any, rows: list[models.Kept]) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        save(database, rows)

    monkeypatch.setattr(service, "save", fail_first)
    monkeypatch.setattr(tollkeeper_responses, "RETRY_SECONDS", 0.001)
    async with running() as (plugin, database):
        plugin._pending.add(row(1))
        with trio.fail_after(5):
            while plugin._pending.batch():
                await trio.sleep(0.001)
        assert await database.read(service.find, "default", "r1") == row(1)
    assert caplog.text.count("they wait") == 2
