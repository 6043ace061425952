"""A conversation in Gemini's shape: turns, parts, calls and their results, signatures."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper import Refused, Unsupported
from tollkeeper.canonical import Message
from tollkeeper_gemini.service import ID_PREFIX, Conversation

PNG = "data:image/png;base64,iVBORw0KGgo="


def converse(*messages: dict[str, Any], version: tuple[int, int] = (2, 5)) -> dict[str, Any]:
    """The messages as Gemini gets them, with what was dropped."""
    unsupported = Unsupported("Gemini", drop=False)
    conversation = Conversation(unsupported, version)
    for index, message in enumerate(messages):
        conversation.add(f"messages[{index}]", msgspec.convert(message, Message))
    conversation.close()
    written = msgspec.json.encode([conversation.system, conversation.contents])
    system, contents = json.loads(written)
    return {"system": system, "contents": contents, "dropped": unsupported.dropped}


def refusal_of(*messages: dict[str, Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        converse(*messages)
    assert caught.value.status == 400
    return caught.value


def user(content: Any = "hi") -> dict[str, Any]:
    return {"role": "user", "content": content}


def called(call_id: str = "c1", arguments: str = '{"city": "Oslo"}', **more: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function, **more}


def assistant(*calls: dict[str, Any], content: str | None = None, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {**message, "tool_calls": list(calls)} if calls else message


def result(call_id: str = "c1", content: Any = "sunny") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def parts_of(*messages: dict[str, Any], version: tuple[int, int] = (2, 5)) -> list[Any]:
    """The parts of the last turn."""
    parts: list[Any] = converse(*messages, version=version)["contents"][-1]["parts"]
    return parts


def test_instructions_are_hoisted_and_neighbours_of_one_role_are_one_turn() -> None:
    found = converse(
        {"role": "system", "content": "be kind"},
        user("a"),
        {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
        user([{"type": "text", "text": "b"}]),
        assistant(content="c"),
        assistant(content="d"),
        user("e"),
    )
    assert found == {
        "system": [{"text": "be kind"}, {"text": "be brief"}],
        "contents": [
            {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
            {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
            {"role": "user", "parts": [{"text": "e"}]},
        ],
        "dropped": [],
    }


@pytest.mark.parametrize("content", ["", None, [], [{"type": "text", "text": ""}]])
def test_text_that_says_nothing_is_left_out_for_gemini_refuses_it(content: Any) -> None:
    assert converse(user(content))["contents"] == []


@pytest.mark.parametrize(
    ("part", "written"),
    [
        ({"type": "text", "text": "é"}, {"text": "é"}),
        (
            {"type": "image_url", "image_url": {"url": PNG}},
            {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
        ),
        (
            {"type": "input_audio", "input_audio": {"format": "mp3", "data": "QUJD"}},
            {"inlineData": {"mimeType": "audio/mp3", "data": "QUJD"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"format": "wav", "data": "QUJD"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "QUJD"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;charset=utf-8;base64,QQ=="}},
            {"inlineData": {"mimeType": "text/plain", "data": "QQ=="}},
        ),
    ],
)
def test_what_a_user_shows_goes_inline(part: dict[str, Any], written: dict[str, Any]) -> None:
    assert parts_of(user([part])) == [written]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://x.test/a.png", {"mimeType": "image/png"}),
        ("http://x.test/a.b/c.JPG?v=1.webp#x.png", {"mimeType": "image/jpeg"}),
        ("https://x.test/a.gif", {}),
        ("https://x.test/png", {}),
        ("https://x.test", {}),
    ],
)
def test_an_image_by_its_address_is_left_to_gemini_to_fetch(url: str, kind: Any) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    assert parts_of(user([part])) == [{"fileData": {**kind, "fileUri": url}}]


def test_gemini_before_2_5_fetches_nothing() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    with pytest.raises(Refused) as raised:
        converse(user([part]), version=(2, 0))
    assert raised.value.param == "messages[0].content[0].image_url.url"


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "gs://bucket/a.png"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,raw"}}, "image_url.url"),
        ({"type": "image_url"}, "type"),
        (
            {"type": "input_audio", "input_audio": {"format": "ogg", "data": ""}},
            "input_audio.format",
        ),
        ({"type": "input_audio", "input_audio": {"format": ["wav"]}}, "input_audio.format"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, "input_audio.data"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "QUJD"}}, "file.file_data"),
        ({"type": "file", "file": {}}, "file.file_data"),
        ({"type": "video"}, "type"),
        ({"type": "text"}, "type"),
    ],
)
def test_a_part_that_gemini_cannot_take_is_refused_by_name(
    part: dict[str, Any], param: str
) -> None:
    refusal = refusal_of(user("hi"), user([{"type": "text", "text": "x"}, part]))
    assert refusal.param == f"messages[1].content[1].{param}"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "function", "name": "f", "content": "x"}, "role"),
        (assistant(audio={"id": "a"}), "audio"),
        (assistant(function_call={"name": "f"}), "function_call"),
        (assistant(called(type="custom")), "tool_calls[0].type"),
        (assistant(called(), called("c2", "[1]")), "tool_calls[1].function.arguments"),
        (assistant(called(arguments='{"a": 1, "a": 2}')), "tool_calls[0].function.arguments"),
        (assistant(called(arguments='{"a"')), "tool_calls[0].function.arguments"),
        (result("nobody"), "tool_call_id"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        (
            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
            "content[0].type",
        ),
    ],
)
def test_a_message_that_gemini_cannot_take_is_refused_by_name(
    message: dict[str, Any], param: str
) -> None:
    assert refusal_of(user(), message).param == f"messages[1].{param}"


@pytest.mark.parametrize(
    ("arguments", "args"),
    [('{"city": "Oslo"}', {"city": "Oslo"}), ("", {}), (" ", {}), ("{}", {})],
)
def test_a_call_has_its_arguments_as_an_object(arguments: str, args: dict[str, Any]) -> None:
    assert parts_of(assistant(called(arguments=arguments))) == [
        {"functionCall": {"name": "weather", "args": args}}
    ]


def test_arguments_go_upstream_byte_for_byte() -> None:
    conversation = Conversation(Unsupported("Gemini", drop=False), (2, 5))
    arguments = '{"n": 1.10, "e":1e2 ,"s":"\\u00e9"}'
    message = assistant(called(arguments=arguments))
    conversation.add("messages[0]", msgspec.convert(message, Message))
    assert arguments.encode() in msgspec.json.encode(conversation.contents)


@pytest.mark.parametrize(
    ("content", "response"),
    [
        ("sunny", {"result": "sunny"}),
        ('{"sky": "blue"}', {"sky": "blue"}),
        ([{"type": "text", "text": '{"sky"'}, {"type": "text", "text": ": 1}"}], {"sky": 1}),
        ("[1]", {"result": "[1]"}),
        ('{"a": NaN}', {"result": '{"a": NaN}'}),
        ('{"a": 1, "a": 2}', {"result": '{"a": 1, "a": 2}'}),
        ("", {"result": ""}),
    ],
)
def test_a_result_is_an_object_and_has_the_name_of_its_call(
    content: Any, response: dict[str, Any]
) -> None:
    assert parts_of(assistant(called()), result(content=content)) == [
        {"functionResponse": {"name": "weather", "response": response}}
    ]


def test_several_results_are_one_turn_in_the_order_of_their_calls() -> None:
    found = converse(
        user("w?"),
        assistant(called("c1"), called("c2")),
        result("c2", "two"),
        result("c1", "one"),
        user("go on"),
    )
    assert [turn["role"] for turn in found["contents"]] == ["user", "model", "user"]
    first, second, text = found["contents"][-1]["parts"]
    assert first["functionResponse"]["response"] == {"result": "one"}
    assert second["functionResponse"]["response"] == {"result": "two"}
    assert text == {"text": "go on"}


@pytest.mark.parametrize(
    ("version", "call_id", "sent"),
    [
        ((2, 5), "fc-7", {}),
        ((3, 0), "fc-7", {"id": "fc-7"}),
        ((3, 0), ID_PREFIX + "0a1b", {}),
    ],
)
def test_an_id_of_geminis_own_goes_back_to_models_that_know_ids(
    version: tuple[int, int], call_id: str, sent: dict[str, str]
) -> None:
    found = converse(assistant(called(call_id)), result(call_id), version=version)
    call, response = (turn["parts"][0] for turn in found["contents"])
    assert {k: v for k, v in call["functionCall"].items() if k == "id"} == sent
    assert {k: v for k, v in response["functionResponse"].items() if k == "id"} == sent


SIGNED = {"google": {"thought_signature": "c2ln"}}


@pytest.mark.parametrize(
    ("version", "extras", "signatures"),
    [
        ((2, 5), [{}, {}], [None, None]),
        ((2, 5), [{"extra_content": SIGNED}, {}], ["c2ln", None]),
        ((3, 0), [{"extra_content": SIGNED}, {}], ["c2ln", None]),
        ((3, 0), [{}, {"extra_content": SIGNED}], ["skip_thought_signature_validator", "c2ln"]),
        ((2, 5), [{"extra_content": {"google": {"thought_signature": 5}}}], [None]),
        ((3, 0), [{"extra_content": {"google": 1}}], ["skip_thought_signature_validator"]),
    ],
)
def test_a_call_goes_back_with_its_signature(
    version: tuple[int, int], extras: list[dict[str, Any]], signatures: list[str | None]
) -> None:
    calls = [called(f"c{i}", **extra) for i, extra in enumerate(extras)]
    parts = parts_of(assistant(*calls), version=version)
    assert [part.get("thoughtSignature") for part in parts] == signatures


def block(signature: str) -> dict[str, str]:
    return {"type": "thinking", "thinking": "hm", "signature": signature}


@pytest.mark.parametrize(
    ("content", "blocks", "parts", "dropped"),
    [
        ("a", [block("google:s1")], [{"text": "a", "thoughtSignature": "s1"}], []),
        (None, [block("google:s1")], [{"text": "", "thoughtSignature": "s1"}], []),
        (
            "a",
            [block("EqQBCg=="), block("google:s2")],
            [{"text": "a", "thoughtSignature": "s2"}],
            ["messages[].thinking_blocks"],
        ),
        (
            "a",
            [{"type": "redacted_thinking", "data": "x"}],
            [{"text": "a"}],
            ["messages[].thinking_blocks"],
        ),
    ],
)
def test_text_goes_back_with_its_signature_and_without_those_of_others(
    content: str | None,
    blocks: list[dict[str, str]],
    parts: list[dict[str, str]],
    dropped: list[str],
) -> None:
    found = converse(assistant(content=content, thinking_blocks=blocks))
    assert found["contents"] == [{"role": "model", "parts": parts}]
    assert found["dropped"] == dropped


def test_a_refusal_of_the_assistant_is_something_it_said() -> None:
    parts = [{"type": "refusal", "refusal": "no"}]
    assert parts_of(assistant(refusal="never")) == [{"text": "never"}]
    assert parts_of({"role": "assistant", "content": parts}) == [{"text": "no"}]


@pytest.mark.parametrize(
    ("message", "dropped"),
    [
        ({**user(), "name": "ann"}, "messages[].name"),
        ({**user(), "cache_control": {"type": "ephemeral"}}, "messages[].cache_control"),
        (
            user([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]),
            "messages[].cache_control",
        ),
        (assistant(content="a", reasoning_content="hm"), "messages[].reasoning_content"),
        (
            user([{"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}]),
            "messages[].content[].image_url.detail",
        ),
        (
            user([{"type": "file", "file": {"file_data": PNG, "filename": "a.png"}}]),
            "messages[].content[].file.filename",
        ),
    ],
)
def test_a_hint_in_a_message_is_dropped_and_listed(message: dict[str, Any], dropped: str) -> None:
    found = converse(message)
    assert found["dropped"] == [dropped]
    assert found["contents"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=3)),
        max_size=8,
    )
)
def test_no_two_neighbouring_turns_have_one_role_and_no_word_is_lost(
    said: list[tuple[str, str]],
) -> None:
    found = converse(*({"role": role, "content": text} for role, text in said))
    roles = [turn["role"] for turn in found["contents"]]
    assert all(a != b for a, b in pairwise(roles))
    words = [part["text"] for turn in found["contents"] for part in turn["parts"]]
    assert words == [text for role, text in said if role != "system" and text]
    assert [part["text"] for part in found["system"]] == [t for r, t in said if r == "system" and t]
