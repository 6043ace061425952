"""Messages of a chat as Anthropic's turns: what becomes what, and what is refused by its place."""

from typing import Any

import msgspec
import pytest

from tollkeeper import Refused, Unsupported
from tollkeeper.canonical import Message
from tollkeeper_anthropic.service import clean_id, read_conversation

USER = {"role": "user", "content": "hi"}
PNG = "data:image/png;base64,iVBORw0KGgo="
EPHEMERAL = {"type": "ephemeral", "ttl": "1h"}


def conversation(*messages: dict[str, Any]) -> tuple[list[Any], list[Any], list[str]]:
    unsupported = Unsupported("Anthropic", drop=False)
    system, turns = read_conversation(msgspec.convert(messages, list[Message]), unsupported)
    return system, turns, unsupported.dropped


def turns_of(*messages: dict[str, Any]) -> list[Any]:
    return conversation(*messages)[1]


def refused_param(*messages: dict[str, Any]) -> str | None:
    with pytest.raises(Refused) as caught:
        conversation(*messages)
    assert caught.value.status == 400
    assert str(caught.value.param) in caught.value.message
    return caught.value.param


def text(what: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": what, **more}


def call(call_id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def asks(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def result(call_id: str, content: Any = "4") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_system_and_developer_messages_are_hoisted_in_order_wherever_they_stand() -> None:
    system, turns, _ = conversation(
        {"role": "system", "content": "one"},
        USER,
        {"role": "developer", "content": [{"type": "text", "text": "two"}]},
        {"role": "system", "content": " \n"},
        {"role": "system", "content": [{"type": "text", "text": ""}]},
    )
    assert system == [text("one"), text("two")]
    assert turns == [{"role": "user", "content": [text("hi")]}]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "text", "text": "a"}, text("a")),
        (
            {"type": "image_url", "image_url": {"url": PNG}},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
            },
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "auto"}},
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
        ),
        (
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
            },
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                "title": "a.pdf",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "JVBERi0="}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            },
        ),
    ],
)
def test_a_part_of_a_user_message_becomes_a_block(
    part: dict[str, Any], block: dict[str, Any]
) -> None:
    assert turns_of({"role": "user", "content": [part]}) == [{"role": "user", "content": [block]}]
    marked = {**part, "cache_control": EPHEMERAL}
    ((turn,)) = turns_of({"role": "user", "content": [marked]})
    assert turn["content"] == [{**block, "cache_control": EPHEMERAL}]


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, ".type"),
        ({"type": "refusal", "refusal": "no"}, ".type"),
        ({"type": "video"}, ".type"),
        ({"type": "text"}, ".text"),
        ({"type": "image_url"}, ".image_url.url"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, ".image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,abc"}}, ".image_url.url"),
        (
            {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,aaaa"}},
            ".image_url.url",
        ),
        ({"type": "file"}, ".file"),
        ({"type": "file", "file": {"file_id": "file-1"}}, ".file"),
        ({"type": "file", "file": {"file_data": 5}}, ".file"),
        ({"type": "file", "file": {"file_data": "data:text/csv;base64,YQ=="}}, ".file.file_data"),
        ({"type": "file", "file": {"file_data": "https://x.test/a.pdf"}}, ".file.file_data"),
    ],
)
def test_a_part_that_cannot_be_sent_is_refused_by_its_place(
    part: dict[str, Any], place: str
) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "see"}, part]}
    assert refused_param(USER, message) == f"messages[1].content[1]{place}"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "function", "name": "f", "content": "4"}, "messages[1].role"),
        ({"role": "tool", "content": "4"}, "messages[1].tool_call_id"),
        ({"role": "assistant", "audio": {"id": "a"}}, "messages[1].audio"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[1].function_call"),
        (asks(call("a", "{")), "messages[1].tool_calls[0].function.arguments"),
        (asks(call("a"), call("b", "[1]")), "messages[1].tool_calls[1].function.arguments"),
        (asks(call("a", '{"x":1,"x":2}')), "messages[1].tool_calls[0].function.arguments"),
        (
            {"role": "assistant", "thinking_blocks": [{"type": "text", "text": "x"}]},
            "messages[1].thinking_blocks[0].type",
        ),
        (
            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
            "messages[1].content[0].type",
        ),
        (
            {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
            "messages[1].content[0].type",
        ),
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_by_its_place(
    message: dict[str, Any], param: str
) -> None:
    assert refused_param(USER, message) == param


def test_the_user_has_to_speak_first_and_to_say_something() -> None:
    system = {"role": "system", "content": "s"}
    assert refused_param(system, {"role": "assistant", "content": "hello"}) == "messages[1].role"
    assert refused_param(system) == "messages"
    assert refused_param({"role": "user", "content": " "}) == "messages"


def test_an_assistant_gives_back_thoughts_then_text_then_calls() -> None:
    thoughts: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln", "new": 1},
        {"type": "redacted_thinking", "data": "eA=="},
    ]
    numbered = [thoughts[0], {**thoughts[1], "index": 1}]
    said = asks(
        call("toolu_1", '{"x": 1.5}'),
        call("toolu_2", ""),
        content="ok ",
        thinking_blocks=numbered,
        reasoning_content="hm",
    )
    _, turns, dropped = conversation(USER, said, result("toolu_1"), result("toolu_2"))
    assert turns[1] == {
        "role": "assistant",
        "content": [
            *thoughts,
            text("ok "),
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1.5}},
            {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {}},
        ],
    }
    assert dropped == []


def test_thoughts_that_another_signed_are_dropped_and_listed() -> None:
    foreign = {"type": "thinking", "thinking": "hm", "signature": "google:c2ln"}
    said = {"role": "assistant", "content": "ok", "thinking_blocks": [foreign]}
    _, turns, dropped = conversation(USER, said, USER)
    assert turns[1]["content"] == [text("ok")]
    assert dropped == ["messages[].thinking_blocks"]


def test_what_an_assistant_refused_stays_said() -> None:
    parts = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    field = {"role": "assistant", "content": None, "refusal": "never"}
    assert turns_of(USER, parts, USER)[1]["content"] == [text("no")]
    assert turns_of(USER, field, USER)[1]["content"] == [text("never")]


def test_results_of_tools_and_what_the_user_adds_are_one_turn_with_results_first() -> None:
    turns = turns_of(
        USER,
        asks(call("a"), call("b")),
        {"role": "user", "content": "wait"},
        result("a"),
        result("b", [{"type": "text", "text": "5"}, {"type": "text", "text": ""}]),
        {"role": "user", "content": "and?"},
    )
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": [text("4")]},
        {"type": "tool_result", "tool_use_id": "b", "content": [text("5")]},
        text("wait"),
        text("and?"),
    ]


def test_an_empty_result_has_no_content() -> None:
    (block,) = turns_of(USER, asks(call("a")), result("a", ""))[2]["content"]
    assert block == {"type": "tool_result", "tool_use_id": "a"}


def test_messages_of_the_same_role_are_one_turn_and_empty_ones_are_none() -> None:
    silent = {"role": "assistant", "content": ""}
    assert turns_of(USER, silent, USER) == [{"role": "user", "content": [text("hi"), text("hi")]}]


def test_only_the_last_word_of_an_assistant_loses_the_space_behind_it() -> None:
    said = {"role": "assistant", "content": "so \n"}
    turns = turns_of(USER, said, USER, said)
    assert turns[1]["content"] == [text("so \n")]
    assert turns[3]["content"] == [text("so")]
    assert turns_of({"role": "user", "content": "so "})[0]["content"] == [text("so ")]


@pytest.mark.parametrize("call_id", ["call.1", "functions.f:0", "", "ü", "a b"])
def test_an_id_of_other_characters_is_cleaned_the_same_for_call_and_result(call_id: str) -> None:
    turns = turns_of(USER, asks(call(call_id)), result(call_id or "x"))
    sent = turns[1]["content"][0]["id"]
    assert sent == clean_id(call_id)
    assert set(sent) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    if call_id:
        assert turns[2]["content"][0]["tool_use_id"] == sent


def test_different_ids_stay_different_and_good_ones_the_same() -> None:
    assert len({clean_id(call_id) for call_id in ("a.b", "a:b", "a_b")}) == 3
    assert clean_id("toolu_01-A") == "toolu_01-A"


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([{"role": "system", "content": "s", "cache_control": EPHEMERAL}, USER], "system"),
        ([{**USER, "cache_control": EPHEMERAL}], "user"),
        ([USER, asks(call("a"), content="x", cache_control=EPHEMERAL), result("a")], "assistant"),
        ([USER, asks(call("a")), {**result("a"), "cache_control": EPHEMERAL}], "tool"),
    ],
)
def test_a_messages_cache_breakpoint_stands_on_its_last_block_alone(
    messages: list[dict[str, Any]], place: str
) -> None:
    system, turns, _ = conversation(*messages)
    found = {"system": system, **{turn["role"]: turn["content"] for turn in turns}}
    if place == "tool":
        place = "user"
    assert found[place][-1]["cache_control"] == EPHEMERAL
    assert msgspec.json.encode([system, turns]).count(b"cache_control") == 1


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ({**USER, "name": "bob"}, "messages[].name"),
        (
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
            "messages[].reasoning_content",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}],
            },
            "messages[].content[].image_url.detail",
        ),
    ],
)
def test_a_hint_that_is_lost_is_listed_once(message: dict[str, Any], hint: str) -> None:
    assert conversation(USER, message, USER, message)[2] == [hint]
