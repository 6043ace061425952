"""Conversations: items as messages of a chat, and kept responses in the table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tollkeeper import Refused
from tollkeeper.storage import Database, make_database
from tollkeeper_responses import service
from tollkeeper_responses.models import Item, Kept
from tollkeeper_responses.reply import Carried
from tollkeeper_responses.service import Holding, kept_of, read_items

BLOCK = {"type": "thinking", "thinking": "t", "signature": "s"}
EXTRA = {"google": {"thought_signature": "g"}}


def messages_of(*items: dict[str, Any]) -> Any:
    read = read_items(msgspec.convert(items, list[Item]))
    return msgspec.to_builtins(read)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(content: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": content}


def call(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}", **fields}


def result(call_id: str, output: Any = "4") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def thought(text: str | None = None, **carried: Any) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning", "summary": []}
    if text is not None:
        item["summary"] = [{"type": "summary_text", "text": text}]
    if carried:
        item["encrypted_content"] = Carried(**carried).seal().decode()
    return item


def called(*ids: str, **fields: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": i, "type": "function", "function": function} for i in ids]
    return {"role": "assistant", **fields, "tool_calls": calls}


TEXT = {"type": "output_text", "text": "a", "annotations": [], "logprobs": []}


@pytest.mark.parametrize(
    ("content", "becomes"),
    [
        ("hi", "hi"),
        ("", ""),
        ([], ""),
        ([{"type": "input_text", "text": "hi"}], "hi"),
        (
            [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        ),
        (
            [{"type": "input_image", "image_url": "data:x", "detail": "low", "file_id": None}],
            [{"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}],
        ),
        (
            [{"type": "input_file", "file_data": "data:y", "filename": "a.pdf"}],
            [{"type": "file", "file": {"file_data": "data:y", "filename": "a.pdf"}}],
        ),
        (
            [{"type": "input_file", "file_data": "data:y"}],
            [{"type": "file", "file": {"file_data": "data:y"}}],
        ),
        (
            [{"type": "input_audio", "input_audio": {"data": "z", "format": "wav"}}],
            [{"type": "input_audio", "input_audio": {"data": "z", "format": "wav"}}],
        ),
    ],
)
def test_what_users_and_tools_say_is_a_chats_content(content: Any, becomes: Any) -> None:
    assert messages_of(user(content)) == [user(becomes)]
    if isinstance(content, str) or content:
        tool = {"role": "tool", "content": becomes, "tool_call_id": "a"}
        assert messages_of(call("a"), result("a", content)) == [called("a"), tool]


@pytest.mark.parametrize("role", ["user", "system", "developer", "assistant"])
def test_a_message_keeps_its_role(role: str) -> None:
    for kind in ({}, {"type": "message"}):
        item = {**kind, "role": role, "content": "x", "id": "msg_1", "status": "completed"}
        assert messages_of(item) == [{"role": role, "content": "x"}]


def test_what_the_assistant_said_and_refused_are_parts() -> None:
    assert messages_of(said([TEXT])) == [{"role": "assistant", "content": "a"}]
    refusal = {"type": "refusal", "refusal": "no"}
    assert messages_of(said([TEXT, refusal])) == [
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, refusal]}
    ]


TOOL = {"role": "tool", "content": "4"}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([call("a"), call("b")], [called("a", "b")]),
        ([said("x"), call("a")], [called("a", content="x")]),
        ([call("a"), said("x")], [called("a", content="x")]),
        (
            [said("x"), call("a"), said([TEXT])],
            [called("a", content=[{"type": "text", "text": "x"}, {"type": "text", "text": "a"}])],
        ),
        (
            [call("a"), result("a"), call("b"), result("b")],
            [
                called("a"),
                {**TOOL, "tool_call_id": "a"},
                called("b"),
                {**TOOL, "tool_call_id": "b"},
            ],
        ),
        (
            [call("a"), call("b"), result("a"), result("b")],
            [called("a", "b"), {**TOOL, "tool_call_id": "a"}, {**TOOL, "tool_call_id": "b"}],
        ),
        (
            [said("x"), said("y")],
            [{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}],
        ),
        (
            [thought("t"), said("x")],
            [{"role": "assistant", "content": "x", "reasoning_content": "t"}],
        ),
        (
            [
                thought("t", thinking_blocks=[BLOCK]),
                call("a"),
                result("a"),
                thought("u"),
                said("x"),
            ],
            [
                called("a", reasoning_content="t", thinking_blocks=[BLOCK]),
                {**TOOL, "tool_call_id": "a"},
                {"role": "assistant", "content": "x", "reasoning_content": "u"},
            ],
        ),
        (
            [thought("t"), thought("u"), said("x"), thought("v"), call("a")],
            [called("a", content="x", reasoning_content="t\n\nu\n\nv")],
        ),
        (
            [said("x"), thought(thinking_blocks=[BLOCK]), user("y")],
            [{"role": "assistant", "content": "x", "thinking_blocks": [BLOCK]}, user("y")],
        ),
        (
            [user("y"), thought("t")],
            [user("y"), {"role": "assistant", "content": "", "reasoning_content": "t"}],
        ),
        ([thought(), thought(calls={"z": EXTRA}), said("x")], [said("x") | {"type": ""}]),
    ],
)
def test_what_an_assistant_does_in_one_go_is_one_message(items: Any, messages: Any) -> None:
    def ordered(each: Any) -> Any:
        return [{k: v for k, v in sorted(m.items()) if k != "type"} for m in each]

    assert ordered(messages_of(*items)) == ordered(messages)


def test_thoughts_told_as_text_win_over_their_summary() -> None:
    content = [{"type": "reasoning_text", "text": "long"}]
    (message,) = messages_of({**thought("short"), "content": content}, said("x"))
    assert message["reasoning_content"] == "long"


def test_a_signature_goes_to_the_next_call_of_its_id_alone() -> None:
    items = [thought(calls={"a": EXTRA}), call("b"), call("a"), result("a"), call("a")]
    first, _, second = messages_of(*items)
    assert [call.get("extra_content") for call in first["tool_calls"]] == [None, EXTRA]
    assert "extra_content" not in second["tool_calls"][0]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "critic", "content": "x"}, "input[1].role"),
        ({"content": "x"}, "input[1].role"),
        ({"role": "user"}, "input[1].content"),
        (user([{"type": "text", "text": "x"}]), "input[1].content[0].type"),
        (user([{"type": "refusal", "refusal": "x"}]), "input[1].content[0].type"),
        (said([TEXT, {"type": "input_image"}]), "input[1].content[1].type"),
        (user([{"type": "input_text"}]), "input[1].content[0].text"),
        (said([{"type": "refusal"}]), "input[1].content[0].refusal"),
        (user([{"type": "input_image", "file_id": "f"}]), "input[1].content[0].file_id"),
        (user([{"type": "input_image"}]), "input[1].content[0].image_url"),
        (user([{"type": "input_file", "file_id": "f"}]), "input[1].content[0].file_id"),
        (user([{"type": "input_file", "file_url": "u"}]), "input[1].content[0].file_url"),
        (user([{"type": "input_file"}]), "input[1].content[0].file_data"),
        (user([{"type": "input_audio"}]), "input[1].content[0].input_audio"),
        ({"type": "function_call", "name": "f"}, "input[1].call_id"),
        ({"type": "function_call", "call_id": "a"}, "input[1].name"),
        ({"type": "function_call_output", "output": "4"}, "input[1].call_id"),
        ({"type": "function_call_output", "call_id": "a"}, "input[1].output"),
        (result("a", [{"type": "x"}]), "input[1].output[0].type"),
        ({"type": "reasoning", "encrypted_content": "gAAA"}, "input[1].encrypted_content"),
    ],
)
def test_an_item_that_a_chat_cannot_hold_is_refused_by_its_place(item: Any, param: str) -> None:
    with pytest.raises(Refused) as caught:
        messages_of(user("hi"), item)
    assert (caught.value.status, caught.value.param) == (400, param)


def response(response_id: str = "resp_1", status: str = "completed", *output: Any) -> str:
    document = {"object": "response", "id": response_id, "status": status, "output": list(output)}
    return json.dumps(document)


def row(response_id: str, previous: str | None = None, org: str = "default", at: int = 5) -> Kept:
    asked = json.dumps([user(f"to {response_id}")])
    return Kept(org, response_id, previous, asked, response(response_id), at)


HELD = Holding(keeps=True, previous="r0", prepended=1)
ASKED = json.dumps({"input": [user("old"), user("new")]}).encode()


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_a_response_that_is_over_is_kept_with_what_is_new_in_its_request(status: str) -> None:
    text = response("resp_1", status)
    kept = kept_of("acme", HELD, ASKED, text.encode(), 9)
    assert kept is not None
    assert json.loads(kept.input) == [user("new")]
    assert kept._replace(input="") == Kept("acme", "resp_1", "r0", "", text, 9)


@pytest.mark.parametrize(
    "data",
    [
        response("r", "in_progress").encode(),
        response("r", "queued").encode(),
        b'{"status": "completed"}',
        b'{"id": 5, "status": "completed"}',
        b'{"id": "r", "status": "completed", "x": "\xff"}',
        b"{",
    ],
)
def test_what_is_not_over_or_no_response_is_not_kept(data: bytes) -> None:
    assert kept_of("acme", HELD, ASKED, data, 9) is None


def test_items_are_kept_by_the_ids_that_they_have() -> None:
    items = [{"id": "a", "n": 1}, {"id": None}, {"id": 5}, {"id": ""}, {}, 5, {"id": "b"}]
    kept = kept_of("acme", HELD, ASKED, response("r", "failed", *items).encode(), 9)
    assert kept is not None
    assert kept.items == (("a", '{"id": "a", "n": 1}'), ("b", '{"id": "b"}'))
    assert kept.size == len(kept.input) + len(kept.response) + 30


@pytest.fixture
def connection() -> Iterator[Any]:
    """A database in memory with the plugin's table, inside a transaction."""
    database: Database = make_database("sqlite:///:memory:", Path("/"))
    database.open()
    database.migrate_package("responses", "tollkeeper_responses")
    with database.transaction() as connection:
        yield connection
    database.close()


def test_what_was_saved_is_found_by_its_org_alone(connection: Any) -> None:
    rows = [row("r1"), row("r2", "r1"), row("r1", org="acme")]
    service.save(connection, rows)
    assert service.find(connection, "default", "r1") == rows[0]
    assert service.find(connection, "default", "r2") == rows[1]
    assert service.find(connection, "acme", "r1") == rows[2]
    assert service.find(connection, "acme", "r2") is None
    assert service.find(connection, "default", "r3") is None


def test_a_response_of_the_same_id_takes_the_place_of_the_one_before(connection: Any) -> None:
    service.save(connection, [row("r1", at=1)])
    service.save(connection, [row("r1", at=2)])
    found = service.find(connection, "default", "r1")
    assert found is not None
    assert found.created_at == 2


def with_items(response_id: str, *ids: str, org: str = "default", at: int = 5) -> Kept:
    items = tuple((each, f"{each} of {org} {response_id}") for each in ids)
    return row(response_id, org=org, at=at)._replace(items=items)


def items_in(connection: Any, *ids: str, org: str = "default") -> dict[str, str]:
    return service.find_items(connection, org, ids)


def test_items_are_found_by_their_org_alone_and_the_later_of_two(connection: Any) -> None:
    rows = [with_items("r1", "a", "b"), with_items("r2", "b"), with_items("r1", "a", org="acme")]
    service.save(connection, rows)
    found = {"a": "a of default r1", "b": "b of default r2"}
    assert items_in(connection, "a", "b", "c") == found
    assert items_in(connection, "a", "b", org="acme") == {"a": "a of acme r1"}
    assert items_in(connection) == {}


def test_many_items_are_saved_and_found(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"i{number}" for number in range(350)]
    service.save(connection, [with_items("r1", *ids)])
    assert set(items_in(connection, *ids)) == set(ids)
    monkeypatch.setattr(service, "MAX_CONVERSATION", 100)
    assert len(items_in(connection, *ids)) < 10


def test_items_go_with_their_response(connection: Any) -> None:
    rows = [with_items("r1", "a", at=1), with_items("r2", "b", at=2), with_items("r3", "c", at=3)]
    service.save(connection, rows)
    service.delete(connection, "default", "r1")
    assert set(items_in(connection, "a", "b", "c")) == {"b", "c"}
    service.delete_older(connection, 3)
    assert set(items_in(connection, "a", "b", "c")) == {"c"}
    service.save(connection, [with_items("r3", "d")])
    assert set(items_in(connection, "c", "d")) == {"d"}


def test_a_chain_is_followed_within_its_org_as_far_as_it_is_kept(connection: Any) -> None:
    rows = [row("r1"), row("r2", "r1"), row("r3", "r2")]
    service.save(connection, [*rows, row("r1", org="acme"), row("a2", "r2", org="acme")])
    assert service.find_chain(connection, "default", "r3") == rows[::-1]
    assert service.find_chain(connection, "default", "none") == []
    assert [kept.id for kept in service.find_chain(connection, "acme", "a2")] == ["a2"]
    assert service.delete(connection, "default", "r1")
    assert service.find_chain(connection, "default", "r3") == rows[:0:-1]


def test_a_chain_that_bites_its_tail_or_is_too_large_ends(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.save(connection, [row("r1", "r1"), row("r2", "r1")])
    assert len(service.find_chain(connection, "default", "r1")) == service.MAX_LINKS
    monkeypatch.setattr(service, "MAX_CONVERSATION", 1)
    assert len(service.find_chain(connection, "default", "r2")) == 1


def test_a_response_is_deleted_once_and_only_by_its_org(connection: Any) -> None:
    service.save(connection, [row("r1"), row("r2")])
    assert not service.delete(connection, "acme", "r1")
    assert service.delete(connection, "default", "r1")
    assert not service.delete(connection, "default", "r1")
    assert service.find(connection, "default", "r2") is not None


def test_what_is_older_than_a_moment_is_deleted(connection: Any) -> None:
    service.save(connection, [row("r1", at=1), row("r2", at=2), row("r3", at=3)])
    assert service.delete_older(connection, 3) == 2
    assert service.find(connection, "default", "r2") is None
    assert service.find(connection, "default", "r3") is not None
