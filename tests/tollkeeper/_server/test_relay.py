"""A stream on its way to the client: every byte as it came, but those that must change."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper._server.chat import CHAT
from tollkeeper._server.pipeline import Pipeline, Taps, collect_steps
from tollkeeper._server.relay import StreamRelay, alias_of
from tollkeeper.errors import Refused, UpstreamError
from tollkeeper.exchange import Deployment, Event, Exchange, Reply, Tap
from tollkeeper.hookspecs import empty_collection, hookimpl
from tollkeeper.sse import DONE_EVENT, data_of, split_events
from tollkeeper.testing import DONE, chunk, usage_chunk

FINISH = chunk(None, finish="stop")
COMMENT = b": keep-alive\n\n"
BESIDE = (
    b'data: {"id": "1",  "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],'
    b' "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "odd":\t1}\n\n'
)


async def unsent(exchange: Exchange) -> Reply:
    raise NotImplementedError


def new_exchange(model: str = "m", upstream_model: str = "m") -> Exchange:
    exchange = Exchange(CHAT, "", {}, "test", 0.0, model=model)
    exchange.deployment = Deployment(model, "one", "toy", upstream_model)
    return exchange


def taps_of(*functions: Tap) -> Taps | None:
    """The taps of plugins that give these functions, in this order."""
    manager = empty_collection()
    for number, function in reversed(list(enumerate(functions))):
        manager.register(Tapping(function), f"tap{number}")
    return Pipeline(collect_steps(manager, {}), unsent).taps(new_exchange())


class Tapping:
    def __init__(self, function: Tap) -> None:
        self.function = function

    @hookimpl
    def tap(self, exchange: Exchange) -> Tap:
        return self.function


def new_relay(*taps: Tap, alias: str | None = None, wants_usage: bool = False) -> StreamRelay:
    quoted = None if alias is None else json.dumps(alias).encode()
    assert CHAT.dialect is not None
    reader = CHAT.dialect.reader(quoted, wants_usage=wants_usage)
    return StreamRelay(CHAT.dialect, reader, taps_of(*taps))


def run(relay: StreamRelay, *chunks: bytes) -> bytes:
    """What the client gets of a stream of these chunks that ends cleanly."""
    out = b""
    for data in chunks:
        out += relay.feed(data)
        if relay.failure is not None:
            raise relay.failure
        if relay.ended:
            break
    if not relay.ended:
        out += relay.close()
    assert relay.ended
    return out + relay.tail


def documents(stream: bytes) -> list[Any]:
    found = [data_of(event) for event in split_events(stream)]
    return [json.loads(data) for data in found if data not in (None, b"[DONE]")]


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


UNTOUCHED = [
    chunk("a") + chunk("b") + FINISH + DONE,
    COMMENT + chunk("a") + COMMENT + FINISH + COMMENT + DONE,
    b'data:{"odd":\t"\xc3\xa9\\u00e9\xe2\x80\xa8",  "choices":[]}\n\n' + FINISH + DONE,
    (chunk("a") + FINISH + DONE).replace(b"\n", b"\r\n"),
    b"event: message\nid: 1\n" + chunk("a") + b"retry: 3\n\n" + FINISH + DONE,
    chunk('the "usage": {"error" of [DONE]') + FINISH + DONE,
    b'data: {"choices": [], "usage": null}\n\n' + FINISH + DONE,
    b'data: {"choices": [{"usage": {"prompt_tokens": 1}}], "error": null}\n\n' + FINISH + DONE,
    b'data: {"choices":\ndata: []}\n\n' + FINISH + DONE,
]


@pytest.mark.parametrize("stream", UNTOUCHED)
@pytest.mark.parametrize("wants_usage", [False, True])
def test_where_nothing_must_change_every_byte_is_as_it_came(
    stream: bytes, wants_usage: bool
) -> None:
    for chunks in ([stream], bytewise(stream)):
        assert run(new_relay(wants_usage=wants_usage), *chunks) == stream


def pass_on(event: Event | None) -> Iterable[Event]:
    return [] if event is None else [event]


@pytest.mark.parametrize("stream", UNTOUCHED)
def test_a_tap_that_passes_everything_on_changes_no_byte(stream: bytes) -> None:
    assert run(new_relay(pass_on, pass_on), stream) == stream


@settings(deadline=None)
@given(st.data())
def test_what_goes_on_does_not_depend_on_how_the_stream_is_cut(data: st.DataObject) -> None:
    events = st.sampled_from([chunk("a"), COMMENT, usage_chunk(), BESIDE, chunk("b")])
    stream = b"".join(data.draw(st.lists(events, max_size=5))) + FINISH + DONE
    alias = data.draw(st.sampled_from([None, "alias"]))
    wants_usage = data.draw(st.booleans())
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = run(new_relay(alias=alias, wants_usage=wants_usage), stream)
    assert run(new_relay(alias=alias, wants_usage=wants_usage), *pieces) == whole


def test_usage_that_was_asked_for_stays_and_is_noted() -> None:
    stream = chunk("a") + FINISH + usage_chunk(7, 8) + DONE
    relay = new_relay(wants_usage=True)
    assert run(relay, stream) == stream
    assert json.loads(relay.reader.usage) == {"prompt_tokens": 7, "completion_tokens": 8}


def test_usage_that_was_not_asked_for_is_taken_out_with_its_event_and_noted() -> None:
    relay = new_relay()
    out = run(relay, chunk("a") + FINISH + usage_chunk(7, 8) + DONE)
    assert out == chunk("a") + FINISH + DONE
    assert json.loads(relay.reader.usage) == {"prompt_tokens": 7, "completion_tokens": 8}


def test_usage_beside_choices_that_was_not_asked_for_becomes_null_and_no_other_byte_changes() -> (
    None
):
    relay = new_relay()
    usage = b'{"prompt_tokens": 3, "completion_tokens": 2}'
    assert run(relay, BESIDE + DONE) == BESIDE.replace(usage, b"null") + DONE
    assert relay.reader.usage == usage
    assert run(new_relay(wants_usage=True), BESIDE + DONE) == BESIDE + DONE


def test_of_running_usage_the_last_counts() -> None:
    relay = new_relay()
    run(relay, usage_chunk(7, 1), usage_chunk(7, 2), FINISH, usage_chunk(7, 3), DONE)
    assert json.loads(relay.reader.usage)["completion_tokens"] == 3


@pytest.mark.parametrize("text", ['{"model": "real"}', '"model": "real"', "real"])
def test_the_model_is_the_one_asked_for_and_no_other_byte_changes(text: str) -> None:
    stream = chunk(text, model="real") + chunk(None, model="real", finish="stop")
    out = run(new_relay(alias='my "alias"'), stream, DONE)
    assert out == stream.replace(b'"model": "real",', b'"model": "my \\"alias\\"",') + DONE


def test_a_chunk_without_a_model_gets_none() -> None:
    stream = b'data: {"choices": []}\n\n' + FINISH.replace(b'"model": "test", ', b"")
    assert b'"model"' not in run(new_relay(alias="alias"), stream, DONE)


def test_data_of_several_lines_is_still_one_document_once_the_model_is_another() -> None:
    event = b'data: {"model":\ndata: "real",\ndata: "choices": []}\n\n'
    out = run(new_relay(alias="alias"), event + FINISH + DONE)
    assert documents(out)[0] == {"model": "alias", "choices": []}
    assert out.endswith(DONE)


def test_data_of_several_lines_made_by_a_tap_is_still_one_document() -> None:
    def pretty(event: Event | None) -> Iterable[Event]:
        if event is not None:
            yield Event(json.dumps(json.loads(event.data), indent=1).encode())

    out = run(new_relay(pretty), chunk("a") + FINISH + DONE)
    assert documents(out) == documents(chunk("a") + FINISH)


def test_a_whole_body_is_renamed_in_the_same_way() -> None:
    assert CHAT.dialect is not None
    body = b'{ "model" : "real",\n "choices": [{"model": "real"}]}'
    renamed = CHAT.dialect.rename(body, b'"alias"')
    assert renamed == body.replace(b'"real",', b'"alias",')
    assert CHAT.dialect.rename(b'{"choices": []}', b'"alias"') == b'{"choices": []}'


def test_only_an_alias_is_put_into_a_reply() -> None:
    assert alias_of(new_exchange("alias", "real")) == b'"alias"'
    assert alias_of(new_exchange("same", "same")) is None
    exchange = new_exchange()
    exchange.deployment = None
    assert alias_of(exchange) is None


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "boom", "code": 503}}\n\n',
        b'event: error\ndata: {"error": {"message": "boom", "code": 503}}\n\n',
        b'data: {"choices": [], "error": {"message": "boom", "code": 503}}\n\n',
        b'data: {"error": "boom"}\n\n',
    ],
)
def test_an_error_event_in_mid_stream_fails_behind_the_good_events_before_it(event: bytes) -> None:
    relay = new_relay()
    assert relay.feed(chunk("a")) == chunk("a")
    assert relay.feed(chunk("b") + event + chunk("never")) == chunk("b")
    assert isinstance(relay.failure, UpstreamError)
    assert (relay.failure.fault, relay.failure.status) == ("status", 200)
    assert relay.failure.body == data_of(event)
    assert not relay.ended


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [chunk("a")],
        [chunk("a"), COMMENT],
        [chunk("a"), usage_chunk()],
        [chunk('"finish_reason": "stop"')],
        [chunk("a", finish="")],
        [chunk("a"), FINISH[:-9]],
        [chunk("a"), FINISH, usage_chunk()[:30]],
        [chunk("a"), FINISH, b"data: [DO"],
    ],
    ids=[
        "nothing",
        "no finish",
        "comment last",
        "usage without finish",
        "finish in words",
        "empty finish",
        "half a finish",
        "half an event behind finish",
        "half a DONE",
    ],
)
def test_a_stream_that_was_cut_is_a_broken_reply(chunks: list[bytes]) -> None:
    relay = new_relay()
    for data in chunks:
        relay.feed(data)
    with pytest.raises(UpstreamError) as caught:
        relay.close()
    assert caught.value.fault == "broken"
    assert not relay.ended
    assert relay.tail == b""


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b"\n",
        COMMENT,
        b": keep-al",
        b"data: [DONE]",
        b"data: [DONE]\n",
        b"data: [DONE]\r\n",
        b"data:[DONE]",
    ],
)
def test_a_stream_that_only_lacks_its_last_event_or_a_part_of_it_is_completed(end: bytes) -> None:
    out = run(new_relay(), chunk("a") + FINISH + end)
    assert documents(out) == documents(chunk("a") + FINISH)
    assert data_of(list(split_events(out))[-1]) == b"[DONE]"
    assert out.count(b"[DONE]") == 1


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_a_stream_of_other_line_ends_is_completed(end: bytes) -> None:
    stream = (chunk("a") + FINISH + DONE).replace(b"\n", end)
    out = run(new_relay(), *bytewise(stream))
    assert documents(out) == documents(chunk("a") + FINISH)
    assert data_of(list(split_events(out))[-1]) == b"[DONE]"


def test_what_ends_the_stream_is_kept_back_to_be_sent_after_settling() -> None:
    relay = new_relay()
    assert relay.feed(chunk("a") + FINISH + DONE + chunk("never")) == chunk("a") + FINISH
    assert relay.ended
    assert relay.tail == DONE


def holding() -> Tap:
    """A tap that lets nothing go before the end."""
    held: list[Event] = []

    def hold(event: Event | None) -> Iterable[Event]:
        if event is None:
            return held
        held.append(event)
        return []

    return hold


def test_a_tap_may_hold_events_and_gives_them_back_before_the_end() -> None:
    relay = new_relay(holding())
    assert relay.feed(chunk("a") + chunk("b") + FINISH) == b""
    assert relay.feed(DONE) == b""
    assert relay.tail == chunk("a") + chunk("b") + FINISH + DONE


def test_what_a_tap_holds_is_given_back_where_the_upstream_forgot_to_say_done() -> None:
    assert run(new_relay(holding()), chunk("a") + FINISH) == chunk("a") + FINISH + DONE_EVENT


def test_a_tap_may_replace_and_multiply_events_and_comments_pass_it_by() -> None:
    seen: list[bytes] = []

    def double(event: Event | None) -> Iterable[Event]:
        if event is None:
            return []
        seen.append(event.data)
        return [event, Event(b'{"choices": []}')]

    out = run(new_relay(double), COMMENT + chunk("a") + FINISH + DONE)
    made = b'data: {"choices": []}\n\n'
    assert out == COMMENT + chunk("a") + made + FINISH + made + DONE
    assert seen == [data_of(chunk("a")), data_of(FINISH)]


def test_a_tap_sees_what_the_client_would_and_no_usage_that_was_not_asked_for() -> None:
    seen: list[Event] = []

    def look(event: Event | None) -> Iterable[Event]:
        if event is None:
            return []
        seen.append(event)
        return [event]

    stream = chunk("a", model="real") + chunk(None, model="real", finish="stop")
    run(new_relay(look, alias="alias"), stream, usage_chunk(model="real"), DONE)
    assert [json.loads(event.data)["model"] for event in seen] == ["alias", "alias"]
    assert all(event.raw == b"" for event in seen)
    seen.clear()
    run(new_relay(look), chunk("a"), FINISH, DONE)
    assert [event.raw for event in seen] == [chunk("a"), FINISH]


def test_a_tap_that_refuses_ends_the_stream_behind_what_it_let_through() -> None:
    refusal = Refused(400, "content_filter", "no such words")

    def refuse(event: Event | None) -> Iterable[Event]:
        if event is not None and b"bad" in event.data:
            raise refusal
        return [] if event is None else [event]

    relay = new_relay(refuse)
    assert relay.feed(chunk("good") + chunk("bad") + chunk("never")) == chunk("good")
    assert relay.failure is refusal


@pytest.mark.parametrize("ending", [b'data: {"error": {"message": "boom"}}\n\n', b""])
def test_what_a_tap_holds_is_dropped_after_an_error(ending: bytes) -> None:
    asked: list[None] = []

    def hold(event: Event | None) -> Iterable[Event]:
        if event is None:
            asked.append(None)
        return []

    relay = new_relay(hold)
    out = relay.feed(chunk("a") + ending)
    if not ending:
        with pytest.raises(UpstreamError):
            relay.close()
    assert (out, relay.tail, asked) == (b"", b"", [])


def test_taps_run_in_the_order_of_their_plugins() -> None:
    def adding(word: str) -> Tap:
        def add(event: Event | None) -> Iterable[Event]:
            if event is not None:
                document = json.loads(event.data)
                document["seen"] = [*document.get("seen", []), word]
                yield Event(json.dumps(document).encode())

        return add

    out = run(new_relay(adding("first"), adding("second")), chunk("a") + FINISH + DONE)
    assert [document["seen"] for document in documents(out)] == [["first", "second"]] * 2
