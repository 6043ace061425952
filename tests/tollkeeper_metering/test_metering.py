"""What a call leaves in the ledger, whatever becomes of it."""

import contextlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tollkeeper import (
    Attempt,
    Exchange,
    PluginError,
    PluginSettings,
    Refused,
    UpstreamError,
    Usage,
    hookimpl,
)
from tollkeeper._server.dispatch import handle
from tollkeeper.exchange import ANONYMOUS, Head, OutcomeKind
from tollkeeper.testing import (
    DONE,
    ScriptedUpstream,
    TestGateway,
    chat_body,
    chunk,
    completion,
    open_gateway,
    usage_chunk,
)
from tollkeeper_budgets.service import Budget
from tollkeeper_metering.rows import Rows
from tollkeeper_metering.service import Ledger
from tollkeeper_metering.settings import MeteringSettings
from tollkeeper_metering.usage import ATTEMPT_FIELDS, attempts
from tollkeeper_metering.writer import Writer

METERING = "[plugins.metering]\n"
MODEL = """
[models.m]
deployments = [{ provider = "scripted", model = "m" }]
price = { input = "1", output = "2" }
max_output = 50
"""
"""1000 nano-USD for an input token, 2000 for one of output."""
BUDGET = """
[plugins.budgets]
limits = [{ scope = "gateway", amount = "1", period = "total" }]
"""
ON = MODEL + METERING
COVERED = ON + BUDGET


async def rows(gateway: TestGateway) -> list[dict[str, Any]]:
    """Every attempt in the ledger, once all that has ended is written."""
    ledger = gateway.generations.shared.lasting["metering"]
    assert isinstance(ledger, Ledger)
    ledger._hand_over()
    found = await ledger._writer.ask(lambda database: list(attempts(database)))
    return [dict(zip(ATTEMPT_FIELDS, row, strict=True)) for row in found]


async def row(gateway: TestGateway) -> dict[str, Any]:
    (found,) = await rows(gateway)
    assert found["charge_nanousd"] <= found["hold_nanousd"] or found["state"] == "posted"
    return found


def end_of(found: Mapping[str, Any]) -> tuple[str, str]:
    return found["state"], found["evidence"]


def budget_of(gateway: TestGateway) -> Budget:
    ledger = gateway.generations.shared.lasting["metering"]
    assert isinstance(ledger, Ledger)
    (budget,) = ledger._accounts.covering(ANONYMOUS)
    assert isinstance(budget, Budget)
    return budget


def held_in(gateway: TestGateway) -> int:
    return sum(spending.held for spending in budget_of(gateway)._of.values())


def broken() -> UpstreamError:
    return UpstreamError("broken", "the connection broke")


def plain_usage(**usage: object) -> dict[str, Any]:
    document = completion()
    document["usage"] = usage
    return document


# Every ending.


@pytest.mark.parametrize("toml", [ON, COVERED])
async def test_a_plain_call_is_posted_with_what_the_provider_told(toml: str) -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, toml) as gateway:
        assert (await gateway.chat(model="m")).status == 200
        found = await row(gateway)
    assert end_of(found) == ("posted", "provider")
    assert (found["input_tokens"], found["output_tokens"]) == (3, 2)
    assert (found["cost_nanousd"], found["charge_nanousd"], found["exposure_nanousd"]) == (
        7000,
        7000,
        0,
    )
    assert (found["org"], found["key"], found["model"]) == ("default", "", "m")
    assert (found["deployment"], found["number"]) == ("scripted/m", 1)
    assert found["attempt_id"] == upstream.attempts[0].id
    assert found["exchange_id"] == gateway.settled[0].id
    assert found["price"].startswith("toml:")


@pytest.mark.parametrize("wants", [False, True])
async def test_a_stream_is_posted_with_the_usage_at_its_end(wants: bool) -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("a"), chunk(None, finish="stop"), usage_chunk(30, 20), DONE)
    fields: dict[str, Any] = {"stream_options": {"include_usage": True}} if wants else {}
    async with open_gateway(upstream, ON) as gateway:
        await gateway.chat(model="m", stream=True, **fields)
        found = await row(gateway)
    assert end_of(found) == ("posted", "provider")
    assert (found["input_tokens"], found["output_tokens"]) == (30, 20)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_the_upstream_refuses_is_void(status: int, stream: bool) -> None:
    upstream = ScriptedUpstream()
    upstream.reply({"error": {"message": "no"}, "usage": {"prompt_tokens": 9}}, status=status)
    async with open_gateway(upstream, COVERED) as gateway:
        assert (await gateway.chat(model="m", stream=stream)).status >= 400
        found = await row(gateway)
        assert held_in(gateway) == 0
    assert end_of(found) == ("voided", "estimated")
    assert (found["cost_nanousd"], found["charge_nanousd"], found["exposure_nanousd"]) == (0, 0, 0)


NOTHING_SEEN: list[Callable[[ScriptedUpstream], None]] = [
    lambda upstream: upstream.fail(broken()),
    lambda upstream: upstream.fail(UpstreamError("timeout", "too late")),
    lambda upstream: upstream.raw("application/json", b'{"choices":', broken()),
    lambda upstream: upstream.raw("application/json", b"nonsense"),
    lambda upstream: upstream.raw("text/html", b"<html>"),
    lambda upstream: upstream.stream(broken()),
    lambda upstream: upstream.stream(),
    lambda upstream: upstream.stream(b'data: {"error": {"message": "no"}}\n\n', DONE),
    lambda upstream: upstream.reply({"error": {"message": "no"}}),
    lambda upstream: upstream.reply({}, status=302),
    lambda upstream: upstream.fail(RuntimeError("a bug in a provider plugin")),
]


@pytest.mark.parametrize("script", NOTHING_SEEN)
async def test_a_call_of_which_nothing_was_seen_costs_nothing_and_exposes_its_hold(
    script: Callable[[ScriptedUpstream], None],
) -> None:
    upstream = ScriptedUpstream()
    script(upstream)
    async with open_gateway(upstream, COVERED) as gateway:
        await gateway.chat(model="m")
        found = await row(gateway)
        assert held_in(gateway) == 0
    assert end_of(found) == ("estimated", "estimated")
    assert found["charge_nanousd"] == 0
    assert found["exposure_nanousd"] == found["hold_nanousd"] > 0


SOME_SEEN: list[list[bytes | Exception]] = [
    [broken()],
    [b'data: {"error": {"message": "no"}}\n\n', DONE],
    [b"data: {nonsense\n\n"],
    [b'data: {"choices'],
    [],
]


@pytest.mark.parametrize("end", SOME_SEEN)
async def test_a_stream_that_breaks_off_is_charged_for_what_was_seen(
    end: list[bytes | Exception],
) -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk(""), *[chunk("a")] * 10, *end)
    async with open_gateway(upstream, COVERED) as gateway:
        await gateway.chat("x" * 600, model="m", stream=True)
        found = await row(gateway)
        assert held_in(gateway) == 0
    assert end_of(found) == ("estimated", "counted")
    assert 8 <= found["output_tokens"] <= 10
    assert found["input_tokens"] == 100
    cost = 1000 * found["input_tokens"] + 2000 * found["output_tokens"]
    assert found["cost_nanousd"] == found["charge_nanousd"] == cost
    assert found["exposure_nanousd"] == found["hold_nanousd"] - cost


NO_USAGE: list[dict[str, Any]] = [
    {},
    {"prompt_tokens": -5, "completion_tokens": 2},
    {"prompt_tokens": 5, "completion_tokens": -2},
    {"prompt_tokens": 10**13, "completion_tokens": 2},
    {"prompt_tokens": 2**70, "completion_tokens": 2},
    {"prompt_tokens": 1.5, "completion_tokens": 2},
    {"prompt_tokens": "5", "completion_tokens": 2},
]


@pytest.mark.parametrize("usage", NO_USAGE)
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_that_is_missing_or_cannot_be_is_counted(
    usage: dict[str, Any], stream: bool
) -> None:
    upstream = ScriptedUpstream()
    if stream:
        told = json.dumps({"choices": [], "usage": usage}).encode()
        end = b"data: " + told + b"\n\n" if usage else b""
        upstream.stream(chunk(""), *[chunk("hello ")] * 10, end, DONE)
    else:
        upstream.reply({**completion("hello " * 10), "usage": usage or None})
    async with open_gateway(upstream, COVERED) as gateway:
        assert (await gateway.chat(model="m", stream=stream)).text() == "hello " * 10
        found = await row(gateway)
    assert end_of(found) == ("estimated", "counted")
    assert 9 <= found["output_tokens"] <= 12
    assert found["charge_nanousd"] <= found["hold_nanousd"]


@pytest.mark.parametrize(
    "part",
    [
        '{"x": 1e999}',
        '{"x": ' + "[" * 700 + "]" * 700 + "}",
        '{"x": ' + "9" * 400 + "}",
    ],
)
async def test_a_reply_that_tells_no_usage_passes_on_whatever_else_it_holds(part: str) -> None:
    upstream = ScriptedUpstream()
    body = json.dumps({**completion(), "usage": None}).encode()
    whole = body[:-1] + b', "extra": ' + part.encode() + b"}"
    upstream.raw("application/json", whole)
    async with open_gateway(upstream, ON) as gateway:
        reply = await gateway.chat(model="m")
        assert (reply.status, reply.body) == (200, whole.replace(b'"test"', b'"test"'))
        assert (await row(gateway))["state"] == "estimated"


async def test_of_usage_that_is_told_twice_the_last_counts() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("a"), usage_chunk(1, 1), usage_chunk(5, 4), DONE)
    async with open_gateway(upstream, ON) as gateway:
        await gateway.chat(model="m", stream=True)
        found = await row(gateway)
    assert (found["state"], found["input_tokens"], found["output_tokens"]) == ("posted", 5, 4)


async def test_usage_under_another_models_name_is_this_attempts_all_the_same() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("a", model="x"), usage_chunk(5, 4, model="m-2026-01-01"), DONE)
    async with open_gateway(upstream, ON) as gateway:
        await gateway.chat(model="m", stream=True)
        found = await row(gateway)
    assert (found["state"], found["model"], found["output_tokens"]) == ("posted", "m", 4)


async def test_a_usage_that_a_plugin_measures_is_what_counts() -> None:
    class Measure:
        def __init__(self, settings: PluginSettings) -> None:
            pass

        @hookimpl
        def measure(self, exchange: Exchange, attempt: Attempt) -> Usage:
            return Usage(10, 10, evidence="counted")

    async with open_gateway(None, ON, plugins={"measure": Measure}) as gateway:
        await gateway.chat(model="m")
        found = await row(gateway)
    assert end_of(found) == ("estimated", "counted")
    assert found["cost_nanousd"] == 30_000


class Refusing:
    """Refuses in one hook."""

    hook = ""

    def __init__(self, settings: PluginSettings) -> None:
        pass

    def _refuse(self, hook: str) -> None:
        if hook == self.hook:
            raise Refused(403, "invalid_request", "no")

    @hookimpl
    async def admit(self, exchange: Exchange) -> None:
        self._refuse("admit")

    @hookimpl(trylast=True)
    async def attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        self._refuse("attempt")


def refusing(hook: str) -> type[Refusing]:
    return type("No", (Refusing,), {"hook": hook})


async def test_a_call_that_is_not_admitted_leaves_no_row() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, COVERED, plugins={"no": refusing("admit")}) as gateway:
        assert (await gateway.chat(model="m")).status == 403
        assert await rows(gateway) == []
    assert upstream.bodies == []


async def test_a_call_that_another_plugin_refuses_behind_its_hold_is_void() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, COVERED, plugins={"no": refusing("attempt")}) as gateway:
        assert (await gateway.chat(model="m")).status == 403
        found = await rows(gateway)
        assert held_in(gateway) == 0
    assert [each["state"] for each in found] in ([], ["voided"])
    assert upstream.bodies == []


async def test_a_call_that_a_budget_refuses_leaves_no_row_and_holds_nothing() -> None:
    upstream = ScriptedUpstream()
    small = BUDGET.replace('"1"', '"0.00005"')
    async with open_gateway(upstream, ON + small) as gateway:
        refused = await gateway.chat(model="m")
        assert (refused.status, refused.code) == (429, "rate_limit")
        assert await rows(gateway) == []
        assert held_in(gateway) == 0
        assert (await gateway.chat("", model="m", max_tokens=-1)).status == 429
    assert upstream.bodies == []


async def test_a_call_that_never_becomes_one_leaves_no_row() -> None:
    async with open_gateway(None, COVERED) as gateway:
        assert (await gateway.chat(model="unknown")).status == 404
        assert (await gateway.post("/v1/chat/completions", {"model": "m"})).status == 400
        assert (await gateway.get("/v1/models")).status == 200
        assert await rows(gateway) == []


ROUTED = """
[models.m]
deployments = [{ provider = "scripted", model = "a" }, { provider = "scripted", model = "b" }]
price = { input = "1", output = "2" }
max_output = 50
[plugins.routing]
attempts = 3
retries = 1
backoff = 0.001
"""


async def test_each_attempt_is_a_row_of_its_own() -> None:
    upstream = ScriptedUpstream()
    upstream.reply({}, status=500)
    upstream.fail(broken())
    async with open_gateway(upstream, ROUTED + METERING + BUDGET) as gateway:
        assert (await gateway.chat(model="m")).status == 200
        found = await rows(gateway)
        assert held_in(gateway) == 0
    assert [each["number"] for each in found] == [1, 2, 3]
    assert [each["state"] for each in found] == ["voided", "estimated", "posted"]
    assert [each["attempt_id"] for each in found] == [attempt.id for attempt in upstream.attempts]
    assert len({each["attempt_id"] for each in found}) == 3
    assert len({each["exchange_id"] for each in found}) == 1
    first = found[0]["deployment"]
    assert [each["deployment"] == first for each in found] == [True, True, False]


async def test_a_client_that_leaves_before_a_second_attempt_is_sent_stops_it() -> None:
    reached, go_on = trio.Event(), trio.Event()

    class Slow(Refusing):
        @hookimpl
        async def attempt(self, exchange: Exchange, attempt: Attempt) -> None:
            if attempt.number == 2:
                reached.set()
                await go_on.wait()

    upstream = ScriptedUpstream()
    upstream.reply({}, status=500)
    async with open_gateway(upstream, ROUTED + METERING, plugins={"slow": Slow}) as gateway:
        link = gateway.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.request, request_bytes(chat_body(model="m")))
            await reached.wait()
            nursery.cancel_scope.cancel()
        await link.aclose()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        with trio.fail_after(10):
            while not gateway.settled:
                await trio.sleep(0.001)  # the ledger's thread needs its turns
        found = await rows(gateway)
    assert len(upstream.bodies) == 1
    assert {each["state"] for each in found} == {"voided"}


def request_bytes(document: object, path: str = "/v1/chat/completions") -> bytes:
    body = json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_many_calls_at_once_share_no_attempt_and_hold_nothing_afterwards() -> None:
    async with open_gateway(None, COVERED) as gateway:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(partial(gateway.chat, model="m", stream=number % 2 == 0))
        found = await rows(gateway)
        assert held_in(gateway) == 0
    assert len({each["attempt_id"] for each in found}) == len(found) == 100
    assert {each["state"] for each in found} <= {"posted", "estimated"}


# Clients that leave. Sockets, FIN and RST: tests/story/test_money.py.


def patient(policy: str, **more: object) -> str:
    extra = "".join(f"{name} = {value!r}\n" for name, value in more.items())
    return f"""
[providers.other]
kind = "scripted"
on_disconnect = "{policy}"
{extra}
[models.m]
deployments = [{{ provider = "other", model = "m" }}]
price = {{ input = "1", output = "2" }}
max_output = 5000
"""


async def leave_after_first(upstream: ScriptedUpstream, toml: str) -> dict[str, Any]:
    async with open_gateway(upstream, toml + METERING + BUDGET) as gateway:
        body = json.dumps(chat_body(model="m", stream=True)).encode()
        async with gateway.open("POST", "/v1/chat/completions", body) as link:
            await link.chunk()
        with trio.fail_after(10):
            while not gateway.settled:
                await trio.sleep(0.001)
        found = await row(gateway)
        assert held_in(gateway) == 0
    return found


async def test_a_stream_whose_client_left_is_read_on_for_its_usage() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("a"), 0.01, chunk("b"), 0.01, chunk("c"), usage_chunk(30, 20), DONE)
    found = await leave_after_first(upstream, patient("drain"))
    assert end_of(found) == ("posted", "provider")
    assert (found["input_tokens"], found["output_tokens"]) == (30, 20)
    assert upstream.replies[0].closed


@pytest.mark.parametrize("policy", ["cancel", "estimate"])
async def test_a_stream_whose_client_left_is_stopped_where_that_is_wanted(policy: str) -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk(""), chunk("a"), 100, usage_chunk(30, 20), DONE)
    found = await leave_after_first(upstream, patient(policy))
    assert end_of(found) == ("estimated", "counted")
    assert found["output_tokens"] <= 2
    assert upstream.replies[0].closed


async def test_a_stream_is_read_on_no_longer_than_drain_seconds() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk(""), *[chunk("a")] * 6, 1000, usage_chunk(30, 20), DONE)
    found = await leave_after_first(upstream, patient("drain", drain_seconds=0.05))
    assert end_of(found) == ("estimated", "counted")
    assert 4 <= found["output_tokens"] <= 6


async def test_a_stream_is_read_on_for_no_more_than_drain_usd() -> None:
    upstream = ScriptedUpstream()
    events = [part for _ in range(100) for part in (chunk("a"), 0.0005)]
    upstream.stream(chunk(""), *events, usage_chunk(30, 20), DONE)
    found = await leave_after_first(upstream, patient("drain", drain_usd="0.00002"))  # 10 tokens
    assert end_of(found) == ("estimated", "counted")
    assert 10 <= found["output_tokens"] <= 15


async def test_an_estimate_is_never_above_the_hold() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk(""), *[chunk("a")] * 200, broken())
    async with open_gateway(upstream, COVERED) as gateway:
        await gateway.chat(model="m", stream=True, max_tokens=3)
        found = await row(gateway)
    assert found["cost_nanousd"] > found["hold_nanousd"] == found["charge_nanousd"]
    assert found["exposure_nanousd"] == 0


# Other operations.


async def test_a_translated_call_is_posted_as_the_chat_that_it_was_turned_into() -> None:
    upstream = ScriptedUpstream()
    message = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    async with open_gateway(upstream, COVERED + "[plugins.messages]\n") as gateway:
        assert (await gateway.post("/v1/messages", message)).status == 200
        upstream.stream(chunk("a"), chunk(None, finish="stop"), usage_chunk(8, 4), DONE)
        assert (await gateway.post("/v1/messages", {**message, "stream": True})).status == 200
        plain, stream = await rows(gateway)
    assert (end_of(plain), plain["input_tokens"], plain["output_tokens"]) == (
        ("posted", "provider"),
        3,
        2,
    )
    assert (end_of(stream), stream["input_tokens"], stream["output_tokens"]) == (
        ("posted", "provider"),
        8,
        4,
    )


async def test_counting_tokens_costs_nothing() -> None:
    upstream = ScriptedUpstream()
    upstream.dialects = {"messages", "count_tokens"}
    upstream.reply({"input_tokens": 5})
    message = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with open_gateway(upstream, COVERED + "[plugins.messages]\n") as gateway:
        assert (await gateway.post("/v1/messages/count_tokens", message)).status == 200
        assert await rows(gateway) == []
    assert len(upstream.bodies) == 1


async def test_embeddings_need_no_output_bound_and_hold_their_input_only() -> None:
    upstream = ScriptedUpstream()
    upstream.dialects = {"embeddings"}
    upstream.reply({"object": "list", "data": [], "usage": {"prompt_tokens": 4, "total_tokens": 4}})
    unbounded = MODEL.replace("max_output = 50", "")
    async with open_gateway(
        upstream, unbounded + METERING + BUDGET + "[plugins.embeddings]\n"
    ) as gateway:
        document = {"model": "m", "input": "hello"}
        assert (await gateway.post("/v1/embeddings", document)).status == 200
        found = await row(gateway)
    assert (end_of(found), found["cost_nanousd"]) == (("posted", "provider"), 4000)
    assert found["hold_nanousd"] == 1000 * (len(upstream.bodies[0]) + 16)
    assert json.loads(upstream.bodies[0]) == document


@pytest.mark.parametrize("whole", [True, False])
async def test_an_opaque_reply_is_charged_for_its_input(whole: bool) -> None:
    upstream = ScriptedUpstream()
    upstream.dialects = {"audio", "speech"}
    upstream.raw("audio/mpeg", b"ID3", b"\xff" * 1000, *([] if whole else [broken()]))
    async with open_gateway(upstream, ON + "[plugins.audio]\n") as gateway:
        document = {"model": "m", "input": "x" * 600, "voice": "alloy"}
        with contextlib.suppress(UpstreamError):  # what is cut is cut
            await gateway.post("/v1/audio/speech", document)
        found = await row(gateway)
    assert end_of(found) == ("estimated", "counted")
    assert (found["input_tokens"], found["output_tokens"]) == (100, 0)


# Amounts.


TIERED = """
[models.m]
deployments = [{ provider = "scripted", model = "m" }]
max_output = 50
price = { input = "0.15", output = "0.6", cache_read = "0.075", cache_write = "0.1875", tiers = [
  { above = 1000, input = "0.3", output = "1.2", cache_read = "0.15" },
] }
"""


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 0}, 150),
        ({"prompt_tokens": 1000, "completion_tokens": 1}, 150_600),
        ({"prompt_tokens": 1001, "completion_tokens": 1}, 301_500),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 0,
                "prompt_tokens_details": {"cached_tokens": 40},
            },
            60 * 150 + 40 * 75,
        ),
        (
            {
                "prompt_tokens": 101,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 1},
            },
            99 * 150 + 75 + 188 + 7 * 600,  # 187.5 is rounded once, and up
        ),
        (
            {
                "prompt_tokens": 1002,
                "completion_tokens": 0,
                "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 1},
            },
            1000 * 300 + 150 + 300,
        ),
    ],
)
async def test_a_cost_is_exact_to_the_nano_usd(usage: dict[str, Any], cost: int) -> None:
    upstream = ScriptedUpstream()
    upstream.reply(plain_usage(**usage))
    async with open_gateway(upstream, TIERED + METERING) as gateway:
        await gateway.chat(model="m")
        found = await row(gateway)
    assert (found["cost_nanousd"], found["charge_nanousd"]) == (cost, cost)
    details = usage.get("prompt_tokens_details", {})
    assert found["cache_read_tokens"] == details.get("cached_tokens", 0)
    assert found["cache_write_tokens"] == details.get("cache_write_tokens", 0)


@pytest.mark.parametrize(
    ("markup", "cost", "charge"),
    [("0.20", 150, 180), ("0.01", 150, 152), ("0.0033", 150, 150), ("0.00334", 150, 151)],
)
async def test_a_markup_is_rounded_half_up(markup: str, cost: int, charge: int) -> None:
    upstream = ScriptedUpstream()
    upstream.reply(plain_usage(prompt_tokens=1, completion_tokens=0))
    toml = TIERED + f'[plugins.metering]\nmarkup = "{markup}"\n'
    async with open_gateway(upstream, toml) as gateway:
        await gateway.chat(model="m")
        found = await row(gateway)
    assert (found["cost_nanousd"], found["charge_nanousd"]) == (cost, charge)


@pytest.mark.parametrize("covered", [False, True])
async def test_an_upstream_that_overruns_its_bound_is_charged_to_the_hold_only_where_it_is_covered(
    covered: bool,
) -> None:
    upstream = ScriptedUpstream()
    upstream.reply(plain_usage(prompt_tokens=10, completion_tokens=100_000))
    async with open_gateway(upstream, COVERED if covered else ON) as gateway:
        await gateway.chat(model="m", max_tokens=1)
        found = await row(gateway)
        spent = sum(s.spent for s in budget_of(gateway)._of.values()) if covered else None
    assert (found["state"], found["cost_nanousd"]) == ("posted", 200_010_000)
    if covered:
        assert found["charge_nanousd"] == found["hold_nanousd"] == spent
        assert found["exposure_nanousd"] == 200_010_000 - found["hold_nanousd"]
    else:
        assert (found["charge_nanousd"], found["exposure_nanousd"]) == (200_010_000, 0)


async def test_the_hold_bounds_all_answers_that_are_asked_for() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, COVERED) as gateway:
        await gateway.chat(model="m", max_tokens=7, n=5)
        found = await row(gateway)
    body = len(upstream.bodies[0])
    assert found["hold_nanousd"] == 1000 * (body + 16) + 2000 * 7 * 5


@pytest.mark.parametrize("seed", range(3))
async def test_spent_and_held_never_pass_the_amount(seed: int) -> None:
    """200 calls at once, on a budget for some ten of them."""
    upstream, seen = ScriptedUpstream(), []
    toml = ON + BUDGET.replace('"1"', '"0.0025"')
    async with open_gateway(upstream, toml) as gateway:
        budget = budget_of(gateway)
        reserve = budget.reserve

        def watched(hold: Any) -> None:
            reserve(hold)
            (spending,) = budget._of.values()
            seen.append(spending.spent + spending.held)

        budget.reserve = watched  # type: ignore[method-assign]
        statuses: list[int] = []

        async def call(number: int) -> None:
            for _ in range((number * 7 + seed) % 5):
                await trio.lowlevel.checkpoint()
            statuses.append((await gateway.chat(model="m", stream=number % 3 == 0)).status)

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(call, number)
        found = await rows(gateway)
        assert held_in(gateway) == 0
    assert max(seen) <= 2_500_000
    assert sum(each["charge_nanousd"] for each in found) <= 2_500_000
    assert set(statuses) == {200, 429}
    assert len(found) == statuses.count(200) == len(upstream.bodies)


UNPRICED = '[models.m]\ndeployments = [{ provider = "scripted", model = "m" }]\nmax_output = 50\n'


@pytest.mark.parametrize(
    ("policy", "covered", "status"),
    [
        ("", False, 200),
        ("", True, 500),
        ("refuse", False, 500),
        ("refuse", True, 500),
        ("zero", False, 200),
        ("zero", True, 200),
    ],
)
async def test_a_model_without_a_price_is_refused_or_free_as_the_operator_says(
    policy: str, covered: bool, status: int
) -> None:
    upstream = ScriptedUpstream()
    metering = METERING + (f'unknown_price = "{policy}"\n' if policy else "")
    toml = UNPRICED + metering + (BUDGET if covered else "")
    async with open_gateway(upstream, toml) as gateway:
        reply = await gateway.chat(model="m")
        assert reply.status == status
        found = await rows(gateway)
    if status == 500:
        assert "has no price" in reply.json()["error"]["message"]
        assert reply.headers["x-should-retry"] == "false"
        assert (found, upstream.bodies) == ([], [])
    else:
        (only,) = found
        assert (only["state"], only["cost_nanousd"], only["charge_nanousd"]) == ("posted", 0, 0)
        assert (only["input_tokens"], only["hold_nanousd"]) == (3, 0)
        assert only["price"].startswith("unknown:")


BUNDLED = """
[providers.openai]
kind = "openai"
base_url = "https://api.openai.com/v1"
[models.mini]
deployments = [{ provider = "openai", model = "gpt-4o-mini" }]
[models.house]
deployments = [{ provider = "openai", model = "nobody-knows-this" }]
[models.own]
deployments = [{ provider = "openai", model = "gpt-4o-mini" }]
price = { input = "7", output = "8" }
[plugins.openai]
"""


async def test_models_without_a_price_of_their_own_show_that_of_the_bundled_data() -> None:
    async with open_gateway(None, BUNDLED + METERING) as gateway:
        listed = (await gateway.get("/v1/models")).json()["data"]
        single = (await gateway.get("/v1/models/mini")).json()
    shown = {model["id"]: model.get("pricing") for model in listed}
    assert shown["mini"] == {"input": 0.15, "output": 0.6, "cache_read": 0.075}
    assert single["pricing"] == shown["mini"]
    assert shown["house"] is None
    assert shown["own"] == {"input": 7.0, "output": 8.0}


async def test_without_metering_models_show_the_prices_of_the_toml_only() -> None:
    async with open_gateway(None, BUNDLED) as gateway:
        listed = (await gateway.get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed if "pricing" in model] == ["own"]


# Output bounds.


async def sent(toml: str, path: str, document: dict[str, Any], dialect: str) -> bytes:
    """What the upstream gets."""
    upstream = ScriptedUpstream()
    upstream.dialects = {dialect}
    plugin = "" if dialect == "chat" else f"[plugins.{dialect}]\n"
    async with open_gateway(upstream, toml + plugin) as gateway:
        await gateway.post(path, {"model": "m", **document})
        await rows(gateway)
    (body,) = upstream.bodies
    return body


MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
OPERATIONS = [
    ("/v1/chat/completions", MESSAGES, "chat", "max_completion_tokens"),
    ("/v1/completions", {"prompt": "hi"}, "completions", "max_tokens"),
    ("/v1/messages", MESSAGES, "messages", "max_tokens"),
    ("/v1/responses", {"input": "hi", "store": False}, "responses", "max_output_tokens"),
]


@pytest.mark.parametrize(("path", "document", "dialect", "bound"), OPERATIONS)
async def test_a_covered_call_without_a_bound_is_bound_by_the_models_own(
    path: str, document: dict[str, Any], dialect: str, bound: str
) -> None:
    body = json.loads(await sent(COVERED, path, document, dialect))
    assert body == {"model": "m", **document, bound: 50}


@pytest.mark.parametrize(("path", "document", "dialect", "bound"), OPERATIONS)
@pytest.mark.parametrize("tokens", [1, 50, 51, 4_000])
async def test_a_bound_that_the_client_names_is_left_as_it_is(
    path: str, document: dict[str, Any], dialect: str, bound: str, tokens: int
) -> None:
    asked = {**document, bound: tokens}
    body = await sent(COVERED, path, asked, dialect)
    assert body == json.dumps({"model": "m", **asked}).encode()


@pytest.mark.parametrize(("path", "document", "dialect", "bound"), OPERATIONS)
@pytest.mark.parametrize("nothing", [None, 0, -1])
async def test_a_bound_that_binds_nothing_is_replaced(
    path: str, document: dict[str, Any], dialect: str, bound: str, nothing: int | None
) -> None:
    body = json.loads(await sent(COVERED, path, {**document, bound: nothing}, dialect))
    assert body[bound] == 50


@pytest.mark.parametrize(("path", "document", "dialect", "bound"), OPERATIONS)
async def test_a_call_that_no_budget_covers_goes_out_byte_for_byte(
    path: str, document: dict[str, Any], dialect: str, bound: str
) -> None:
    body = await sent(ON, path, document, dialect)
    assert body == json.dumps({"model": "m", **document}).encode()


async def test_a_call_that_a_budget_does_not_cover_goes_out_byte_for_byte() -> None:
    other = BUDGET.replace('scope = "gateway"', 'scope = "key", id = "key_other"')
    body = await sent(ON + other, "/v1/chat/completions", MESSAGES, "chat")
    assert body == json.dumps({"model": "m", **MESSAGES}).encode()


async def test_where_nothing_bounds_a_covered_call_it_is_refused_and_nothing_sent() -> None:
    upstream = ScriptedUpstream()
    toml = MODEL.replace("max_output = 50", "") + METERING + BUDGET
    async with open_gateway(upstream, toml) as gateway:
        refused = await gateway.chat(model="m")
        error = refused.json()["error"]
        assert (refused.status, error["param"]) == (400, "max_output")
        assert "max_output" in error["message"]
        assert (await gateway.chat(model="m", max_tokens=5)).status == 200
        assert len(await rows(gateway)) == 1
    assert len(upstream.bodies) == 1


async def test_where_the_toml_names_no_bound_the_context_window_of_the_price_data_is_one() -> None:
    upstream = ScriptedUpstream()
    toml = """
[providers.openai]
kind = "scripted"
base_url = "https://api.openai.com/v1"
[models.m]
deployments = [{ provider = "openai", model = "gpt-4o-mini" }]
"""
    async with open_gateway(upstream, toml + METERING + BUDGET) as gateway:
        assert (await gateway.chat(model="m")).status == 200
        found = await row(gateway)
    assert json.loads(upstream.bodies[0])["max_completion_tokens"] == 128_000
    assert found["price"].startswith("genai-prices:")
    assert found["hold_nanousd"] == 150 * (len(upstream.bodies[0]) + 16) + 600 * 128_000
    assert found["cost_nanousd"] == 3 * 150 + 2 * 600


async def test_a_translated_call_is_bound_in_the_dialect_that_goes_upstream() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, COVERED + "[plugins.responses]\n") as gateway:
        document = {"model": "m", "input": "hi", "store": False}
        assert (await gateway.post("/v1/responses", document)).status == 200
        assert (await row(gateway))["state"] == "posted"
    body = json.loads(upstream.bodies[0])
    assert body["max_completion_tokens"] == 50


async def test_the_output_of_each_prompt_and_each_try_is_held() -> None:
    upstream = ScriptedUpstream()
    upstream.dialects = {"completions"}
    async with open_gateway(upstream, COVERED + "[plugins.completions]\n") as gateway:
        document = {"model": "m", "prompt": ["a", "b", "c"], "best_of": 4, "max_tokens": 10}
        await gateway.post("/v1/completions", document)
        found = await row(gateway)
    assert found["hold_nanousd"] == 1000 * (len(upstream.bodies[0]) + 16) + 2000 * 120


# Changes while calls run.


class Gate:
    """Keeps calls in `admit` until they may go on."""

    reached: trio.Event
    go_on: trio.Event

    def __init__(self, settings: PluginSettings) -> None:
        pass

    @hookimpl
    async def admit(self, exchange: Exchange) -> None:
        self.reached.set()
        await self.go_on.wait()


def gate() -> type[Gate]:
    return type("OwnGate", (Gate,), {"reached": trio.Event(), "go_on": trio.Event()})


ELSEWHERE = """
[providers.other]
kind = "scripted"
[models.m]
deployments = [{ provider = "other", model = "m" }]
price = { input = "1", output = "2" }
max_output = 50
"""


@pytest.mark.parametrize("switches", [1, 2, 3])
async def test_a_call_outlasts_the_provider_that_it_is_for(switches: int) -> None:
    waiting, statuses = gate(), []

    async def call(gateway: TestGateway) -> None:
        statuses.append((await gateway.chat(model="m")).status)

    async with open_gateway(None, ELSEWHERE + METERING, plugins={"gate": waiting}) as gateway:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, gateway)
            await waiting.reached.wait()
            for number in range(switches):
                await gateway.switch(ON + f"[plugins.limits]\nrpm = {number + 100}\n")
            waiting.go_on.set()
        found = await row(gateway)
    assert statuses == [200]
    assert (found["state"], found["cost_nanousd"]) == ("posted", 7000)


@pytest.mark.parametrize("reloads", [1, 2])
@pytest.mark.parametrize("used", [False, True])
async def test_a_reload_that_fails_leaves_calls_their_prices(reloads: int, used: bool) -> None:
    wrong = ON + '[providers.wrong]\nkind = "nobody speaks this"\n'
    async with open_gateway(None, ELSEWHERE + METERING) as gateway:
        if used:
            assert (await gateway.chat(model="m")).status == 200
        for _ in range(reloads):
            with pytest.raises(Exception, match="unknown provider kind"):
                await gateway.switch(wrong)
        assert (await gateway.chat(model="m")).status == 200
        found = await rows(gateway)
    assert {each["cost_nanousd"] for each in found} == {7000}


async def test_a_change_of_settings_keeps_the_ledger_and_its_holds() -> None:
    upstream, done = ScriptedUpstream(), trio.Event()
    upstream.reply(delay=0.05)

    async def call(gateway: TestGateway) -> None:
        await gateway.chat(model="m")
        done.set()

    async with open_gateway(upstream, COVERED) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(call, gateway)
        while not upstream.bodies:
            await trio.lowlevel.checkpoint()
        dear = ON.replace("[plugins.metering]\n", '[plugins.metering]\nmarkup = "0.5"\n')
        await gateway.switch(dear + BUDGET.replace('"1"', '"2"'))
        ledger = gateway.generations.shared.lasting["metering"]
        assert isinstance(ledger, Ledger)
        assert ledger.held > 0
        await done.wait()
        assert (await gateway.chat(model="m")).status == 200
        first, second = await rows(gateway)
        assert ledger.held == 0
    assert (first["charge_nanousd"], second["charge_nanousd"]) == (7000, 10_500)
    assert (first["state"], second["state"]) == ("posted", "posted")


async def test_a_raised_budget_counts_at_once_although_an_old_call_still_runs() -> None:
    upstream, done = ScriptedUpstream(), trio.Event()
    upstream.reply(delay=0.2)
    small = BUDGET.replace('"1"', '"0.0003"')

    async def call(gateway: TestGateway) -> None:
        await gateway.chat(model="m")
        done.set()

    async with open_gateway(upstream, ON + small) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(call, gateway)
        while not upstream.bodies:
            await trio.lowlevel.checkpoint()
        assert (await gateway.chat(model="m")).status == 429
        await gateway.switch(COVERED)
        assert not done.is_set()
        assert (await gateway.chat(model="m")).status == 200
        await done.wait()


class LateSettings(PluginSettings):
    """Whether it can be started."""

    fails: bool = False


class Sometimes:
    """Can be started where its settings say so."""

    Settings = LateSettings

    def __init__(self, settings: LateSettings) -> None:
        self.fails = settings.fails

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        if self.fails:
            raise RuntimeError("no")
        task_status.started()
        await trio.sleep_forever()


@pytest.mark.parametrize("last", [False, True])
async def test_a_reload_that_fails_late_leaves_its_budgets_in_force(last: bool) -> None:
    small = ON + BUDGET.replace('"1"', '"0.0003"')
    fails = "\n[plugins.late]\nfails = true\n"
    wrong = COVERED + fails if last else fails + COVERED
    async with open_gateway(None, small, plugins={"late": Sometimes}) as gateway:
        assert (await gateway.chat(model="m")).status == 200
        with pytest.raises(PluginError, match="late could not start"):
            await gateway.switch(wrong)
        statuses = [(await gateway.chat(model="m")).status for _ in range(50)]
        assert statuses[-1] == 429
        charged = sum(each["charge_nanousd"] for each in await rows(gateway))
    assert charged <= 300_000


async def test_a_retry_need_not_fit_beside_the_hold_that_came_to_nothing() -> None:
    upstream = ScriptedUpstream()
    upstream.reply({}, status=500)
    budget = BUDGET.replace('"1"', '"0.0003"')  # a call holds 0.0002
    async with open_gateway(upstream, ROUTED + METERING + budget) as gateway:
        assert (await gateway.chat(model="m")).status == 200
        found = await rows(gateway)
        assert held_in(gateway) == 0
    assert [each["state"] for each in found] == ["voided", "posted"]


async def test_the_order_of_plugins_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[MeteringSettings] = []
    opening = Writer.open

    def noted(writer: Writer, now: int) -> int:
        opened.append(writer.settings)
        return opening(writer, now)

    monkeypatch.setattr(Writer, "open", noted)
    toml = MODEL + BUDGET + METERING + "ballast = 123456\n"
    async with open_gateway(None, toml) as gateway:
        assert (await gateway.chat(model="m")).status == 200
    assert [settings.ballast for settings in opened] == [123_456]


async def test_a_usage_that_is_told_before_the_end_is_no_proof() -> None:
    """As vLLM tells it in every chunk where a client wants that."""
    told = json.loads(chunk("a").removeprefix(b"data: "))
    told["usage"] = {"prompt_tokens": 3, "completion_tokens": 1}
    upstream = ScriptedUpstream()
    upstream.stream(chunk(""), b"data: " + json.dumps(told).encode() + b"\n\n", broken())
    async with open_gateway(upstream, COVERED) as gateway:
        await gateway.chat(model="m", stream=True)
        found = await row(gateway)
    assert found["state"] == "estimated"
    assert found["charge_nanousd"] + found["exposure_nanousd"] == found["hold_nanousd"]


async def test_metering_may_be_switched_off_and_on_under_load_and_loses_nothing() -> None:
    stopping, sent_while_on = trio.Event(), []
    upstream = ScriptedUpstream()

    async def calls(gateway: TestGateway, number: int) -> None:
        while not stopping.is_set():
            stream = number % 2 == 0
            assert (await gateway.chat(model="m", stream=stream)).status == 200

    async with open_gateway(upstream, COVERED) as gateway:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(calls, gateway, number)
            for toml in (MODEL, COVERED, ON, MODEL, ON, COVERED) * 3:
                await trio.sleep(0.01)
                await gateway.switch(toml)
            stopping.set()
        found = await rows(gateway)
        sent_while_on = [
            exchange.attempts[0].id
            for exchange in gateway.settled
            if exchange.attempts and exchange.attempts[0].drain_tokens is not None
        ]
        assert held_in(gateway) == 0
    assert sorted(each["attempt_id"] for each in found) == sorted(sent_while_on)
    assert {each["state"] for each in found} <= {"posted", "estimated"}
    assert len(upstream.bodies) > len(found) > 0


async def test_budgets_without_metering_are_refused_with_one_clear_line() -> None:
    with pytest.raises(Exception, match="budgets needs a plugin that offers Ledger"):
        async with open_gateway(None, MODEL + BUDGET):
            pass


async def test_a_crash_of_the_ledgers_thread_stops_the_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("bug")

    async def run() -> None:
        async with open_gateway(None, ON) as gateway:
            with monkeypatch.context() as patch:
                patch.setattr(Rows, "write", crash)
                with trio.move_on_after(5):
                    await gateway.chat(model="m")
                    await trio.sleep_forever()

    with pytest.raises(RuntimeError, match="a guard's own task crashed"):
        await run()


# A handler that is cancelled wherever it waits.


class FakeWire:
    """A client that takes everything, one checkpoint for each write."""

    cut: OutcomeKind = "stopped"

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.ended = False

    async def read_body(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.body

    async def send(self, head: Head, body: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.ended = True

    async def begin(self, head: Head, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def end(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.ended = True


class CancelAt(trio.abc.Instrument):
    """Cancels a task just before its n-th step, or where it waits after that."""

    def __init__(self, step: int, *, waiting: bool) -> None:
        self.left = step
        self.waiting = waiting
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0 and not self.waiting:
                self.scope.cancel()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task and self.left == 0 and self.waiting:
            self.scope.cancel()


async def cancelled_at(
    gateway: TestGateway, step: int, body: bytes, *, waiting: bool
) -> tuple[Exchange, bool]:
    """One call whose handler is cancelled at its n-th step; whether it was over before that."""
    generation = gateway.generations.current
    found = generation.find_operation("POST", "/v1/chat/completions")
    assert found is not None
    exchange = Exchange(
        operation=found[0], path_value="", headers={}, client="memory", arrived=trio.current_time()
    )
    wire, instrument = FakeWire(body), CancelAt(step, waiting=waiting)
    trio.lowlevel.add_instrument(instrument)
    instrument.task = trio.lowlevel.current_task()
    generation.enter()
    try:
        with instrument.scope:
            await handle(exchange, wire, generation)
    finally:
        generation.leave()
        trio.lowlevel.remove_instrument(instrument)
    return exchange, instrument.left > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("toml", [COVERED, ROUTED + METERING + BUDGET])
@pytest.mark.parametrize("waiting", [False, True])
async def test_a_call_cancelled_at_any_of_its_checkpoints_leaves_nothing_open(
    waiting: bool, stream: bool, toml: str
) -> None:
    body = json.dumps(chat_body(model="m", stream=stream)).encode()
    upstream = ScriptedUpstream()
    states: list[str] = []
    async with open_gateway(upstream, toml) as gateway:
        for step in range(1, 200):
            upstream._script.clear()
            if "routing" in toml:
                upstream.reply({}, status=500)
            if stream:
                events = [chunk(""), chunk("a"), chunk("b"), usage_chunk(), DONE]
                upstream.stream(*events)
            else:
                upstream.reply()
            exchange, over = await cancelled_at(gateway, step, body, waiting=waiting)
            found = [each for each in await rows(gateway) if each["exchange_id"] == exchange.id]
            numbers = [each["number"] for each in found]
            assert len(numbers) == len(set(numbers))
            assert "open" not in {each["state"] for each in found}
            sent = {attempt.id for attempt in exchange.attempts if attempt.sent}
            assert sent <= {each["attempt_id"] for each in found}
            unsent = [each for each in found if each["attempt_id"] not in sent]
            assert {each["state"] for each in unsent} <= {"voided"}
            assert held_in(gateway) == 0
            states += [each["state"] for each in found]
            if over:
                break
        else:
            raise AssertionError("it never came to its end")
        spent = sum(spending.spent for spending in budget_of(gateway)._of.values())
        assert spent == sum(each["charge_nanousd"] for each in await rows(gateway))
    assert {"estimated", "posted"} <= set(states)
    assert step > 5
