"""Reading typed data: a wrong type is a 400 that names the field by its place."""

from typing import Any

import pytest

from tollkeeper import Refused
from tollkeeper_messages.models import (
    Document,
    Image,
    Text,
    Tool,
    ToolResult,
    ToolUse,
    UrlSource,
    read_as,
    read_blocks,
    refused,
    type_of,
)


def refusal_of(content: Any, where: str = "user") -> Refused:
    with pytest.raises(Refused) as caught:
        list(read_blocks(content, where, "messages[3].content"))
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    return caught.value


def test_a_string_is_one_block_of_text() -> None:
    assert list(read_blocks("hi", "user", "here")) == [("here", Text(text="hi"))]


def test_nothing_is_no_block() -> None:
    assert list(read_blocks(None, "tool_result", "here")) == []
    assert list(read_blocks([], "user", "here")) == []


def test_blocks_come_in_order_with_their_places() -> None:
    blocks = [
        {"type": "text", "text": "a", "citations": None, "cache_control": {"type": "ephemeral"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
    ]
    assert list(read_blocks(blocks, "user", "c")) == [
        ("c[0]", Text(text="a", cache_control={"type": "ephemeral"})),
        ("c[1]", Image(source=UrlSource(url="https://x/y.png"))),
    ]


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("system", "image"),
        ("user", "tool_use"),
        ("user", "thinking"),
        ("user", "search_result"),
        ("user", "container_upload"),
        ("user", "web_search_tool_result"),
        ("assistant", "image"),
        ("assistant", "tool_result"),
        ("assistant", "server_tool_use"),
        ("assistant", "mcp_tool_use"),
        ("tool_result", "image"),
        ("tool_result", "document"),
        ("tool_result", "tool_reference"),
    ],
)
def test_a_block_that_chat_cannot_express_there_is_refused_by_name(where: str, kind: str) -> None:
    refusal = refusal_of([{"type": "text", "text": "a"}, {"type": kind}], where)
    assert refusal.param == "messages[3].content[1].type"
    assert f"'{kind}'" in refusal.message


@pytest.mark.parametrize("block", ["text", None, 1, [], {}, {"type": None}, {"type": ["text"]}])
def test_what_is_no_block_at_all_is_refused_by_its_place(block: Any) -> None:
    assert refusal_of([block]).param == "messages[3].content[0]"


@pytest.mark.parametrize(
    ("block", "where", "field"),
    [
        ({"type": "text"}, "user", ""),
        ({"type": "text", "text": 5}, "user", ".text"),
        ({"type": "text", "text": "a", "new": 1}, "user", ""),
        ({"type": "text", "text": "a", "cache_control": True}, "user", ".cache_control"),
        ({"type": "image", "source": {"type": "file"}}, "user", ".source.type"),
        ({"type": "image", "source": {"type": "base64", "data": ""}}, "user", ".source"),
        (
            {"type": "image", "source": {"type": "url", "url": "u"}, "transformations": {}},
            "user",
            ".transformations",
        ),
        ({"type": "document", "source": {"type": "url", "url": "u"}}, "user", ".source.type"),
        ({"type": "document", "source": {"type": "text", "data": "u"}}, "user", ".source.type"),
        ({"type": "document", "source": {"type": "content"}}, "user", ".source.type"),
        ({"type": "document", "source": {"type": "file"}}, "user", ".source.type"),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": ""},
                "context": "of old",
            },
            "user",
            ".context",
        ),
        ({"type": "tool_result", "tool_use_id": 1}, "user", ".tool_use_id"),
        ({"type": "tool_result", "tool_use_id": "a", "is_error": "no"}, "user", ".is_error"),
        ({"type": "tool_use", "id": "a", "name": "f", "input": "{}"}, "assistant", ".input"),
        (
            {
                "type": "tool_use",
                "id": "a",
                "name": "f",
                "input": {},
                "caller": {"type": "code_execution_20250825"},
            },
            "assistant",
            ".caller.type",
        ),
        ({"type": "thinking", "thinking": None}, "assistant", ".thinking"),
        ({"type": "redacted_thinking"}, "assistant", ""),
    ],
)
def test_a_field_of_a_block_that_is_wrong_is_refused_by_its_place(
    block: Any, where: str, field: str
) -> None:
    assert refusal_of([block], where).param == f"messages[3].content[0]{field}"


def test_what_sdks_write_into_blocks_that_ask_for_nothing_is_taken() -> None:
    call = {
        "type": "tool_use",
        "id": "a",
        "name": "f",
        "input": {},
        "caller": {"type": "direct"},
        "toolset_name": None,
    }
    assert isinstance(read_as(call, ToolUse, ""), ToolUse)
    result = {"type": "tool_result", "tool_use_id": "a", "toolset_name": None}
    assert isinstance(read_as(result, ToolResult, ""), ToolResult)
    document = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": ""},
        "context": None,
        "citations": {"enabled": False},
    }
    assert isinstance(read_as(document, Document, ""), Document)


def test_the_place_of_a_wrong_field_is_told_in_the_message_too() -> None:
    with pytest.raises(Refused) as caught:
        read_as({"name": "f", "input_schema": []}, Tool, "tools[1]")
    assert caught.value.param == "tools[1].input_schema"
    assert caught.value.message.endswith("at tools[1].input_schema.")


def test_a_wrong_body_as_a_whole_has_no_place() -> None:
    with pytest.raises(Refused) as caught:
        read_as([], Tool, "")
    assert caught.value.param is None


def test_a_refusal_names_the_parameter_and_why() -> None:
    refusal = refused("container", "chat has none")
    assert (refusal.status, refusal.param) == (400, "container")
    assert refusal.message == "'container' cannot be honoured: chat has none."


@pytest.mark.parametrize(
    ("raw", "kind"), [({"type": "text"}, "text"), ({}, None), ("text", None), (None, None)]
)
def test_only_objects_have_a_type(raw: object, kind: object) -> None:
    assert type_of(raw) == kind
