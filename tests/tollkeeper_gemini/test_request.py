"""A chat request as a generateContent body: every field honoured, refused, or listed."""

import json
from typing import Any

import msgspec
import pytest

from tollkeeper import Refused, Unsupported
from tollkeeper.canonical import ChatRequest, read_chat
from tollkeeper_gemini.request import version_of, write_request

FLASH = "gemini-2.5-flash"
PRO = "gemini-2.5-pro"
THREE = "gemini-3-pro-preview"
NEW = "gemini-3.5-flash"

MESSAGES = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "does f", "parameters": SCHEMA},
}


def write(
    fields: dict[str, Any], model: str = FLASH, *, drop: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """The body without its contents, and what was dropped."""
    body = {"model": "alias", "messages": MESSAGES, **fields}
    chat, unknown = read_chat(json.dumps(body).encode())
    unsupported = Unsupported("Gemini", drop=drop)
    written = json.loads(write_request(chat, unknown, model, unsupported))
    if "messages" not in fields:
        assert written.pop("contents") == [{"role": "user", "parts": [{"text": "hi"}]}]
    return written, unsupported.dropped


def config_of(fields: dict[str, Any], model: str = FLASH) -> dict[str, Any]:
    """The generation config of a request of which nothing is dropped."""
    written, dropped = write(fields, model)
    assert dropped == []
    assert set(written) <= {"generationConfig"}
    config: dict[str, Any] = written.get("generationConfig", {})
    return config


def refusal_of(fields: dict[str, Any], model: str = FLASH, *, drop: bool = False) -> Refused:
    with pytest.raises(Refused) as caught:
        write(fields, model, drop=drop)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    return caught.value


def test_a_plain_request_is_its_messages_alone() -> None:
    assert write({}) == ({}, [])


def test_instructions_stand_beside_the_contents() -> None:
    messages = [{"role": "system", "content": "be kind"}, *MESSAGES]
    written, _ = write({"messages": messages})
    assert written == {
        "systemInstruction": {"parts": [{"text": "be kind"}]},
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
    }


@pytest.mark.parametrize("messages", [[], [{"role": "system", "content": "be kind"}]])
def test_a_conversation_without_a_turn_is_refused(messages: list[Any]) -> None:
    assert refusal_of({"messages": messages}).param == "messages"


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("gemini-2.5-flash", (2, 5)),
        ("gemini-2.5-flash-lite-preview-09-2025", (2, 5)),
        ("gemini-2.0-flash-001", (2, 0)),
        ("gemini-3-pro-preview", (3, 0)),
        ("gemini-3.1-pro", (3, 1)),
        ("gemini-3.10-flash", (3, 10)),
        ("gemini-flash-latest", (99, 0)),
        ("gemma-3-27b-it", (0, 0)),
        ("mine", (0, 0)),
    ],
)
def test_the_generation_stands_in_the_name(model: str, version: tuple[int, int]) -> None:
    assert version_of(model) == version


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({"max_tokens": 9}, {"maxOutputTokens": 9}),
        ({"max_tokens": 9, "max_completion_tokens": 7}, {"maxOutputTokens": 7}),
        ({"temperature": 0, "top_p": 0.5, "top_k": 3}, {"temperature": 0, "topP": 0.5, "topK": 3}),
        ({"stop": "a"}, {"stopSequences": ["a"]}),
        ({"stop": ["a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"stop": None}, {}),
        ({"n": 2}, {"candidateCount": 2}),
        ({"n": 1}, {}),
        ({"seed": 0}, {"seed": 0}),
        ({"presence_penalty": 0.5}, {"presencePenalty": 0.5}),
        ({"frequency_penalty": -1}, {"frequencyPenalty": -1}),
        ({"presence_penalty": 0, "frequency_penalty": 0.0}, {}),
        ({"logprobs": True}, {"responseLogprobs": True}),
        ({"logprobs": True, "top_logprobs": 5}, {"responseLogprobs": True, "logprobs": 5}),
        ({"logprobs": False, "top_logprobs": 0}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": SCHEMA, "strict": True},
                }
            },
            {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
        ),
        ({"stream": True, "stream_options": {"include_usage": True}}, {}),
        ({"modalities": ["text"], "logit_bias": {}, "service_tier": "auto"}, {}),
        ({"service_tier": "default", "verbosity": "medium", "parallel_tool_calls": True}, {}),
        ({"parallel_tool_calls": False}, {}),
    ],
)
def test_what_gemini_knows_goes_into_the_generation_config(
    fields: dict[str, Any], config: dict[str, Any]
) -> None:
    assert config_of(fields) == config


def thinking(**config: Any) -> dict[str, Any]:
    return {"thinkingConfig": config}


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        (FLASH, "none", thinking(thinkingBudget=0)),
        (FLASH, "minimal", thinking(thinkingBudget=1024, includeThoughts=True)),
        (FLASH, "low", thinking(thinkingBudget=1024, includeThoughts=True)),
        (FLASH, "medium", thinking(thinkingBudget=8192, includeThoughts=True)),
        (FLASH, "high", thinking(thinkingBudget=24576, includeThoughts=True)),
        (FLASH, "max", thinking(thinkingBudget=24576, includeThoughts=True)),
        (PRO, "xhigh", thinking(thinkingBudget=32768, includeThoughts=True)),
        (THREE, "minimal", thinking(thinkingLevel="minimal", includeThoughts=True)),
        (THREE, "xhigh", thinking(thinkingLevel="xhigh", includeThoughts=True)),
        ("gemini-flash-latest", "low", thinking(thinkingLevel="low", includeThoughts=True)),
        ("gemini-2.0-flash", "none", {}),
        ("gemma-3-27b-it", "none", {}),
    ],
)
def test_an_effort_is_a_level_or_a_budget_and_shows_the_thoughts(
    model: str, effort: str, config: dict[str, Any]
) -> None:
    assert config_of({"reasoning_effort": effort}, model) == config


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (PRO, {"reasoning_effort": "none"}),
        (THREE, {"reasoning_effort": "none"}),
        (THREE, {"reasoning_effort": "max"}),
        (FLASH, {"reasoning_effort": "huge"}),
        ("gemini-2.0-flash", {"reasoning_effort": "low"}),
        ("gemma-3-27b-it", {"reasoning_effort": "low"}),
        (THREE, {"presence_penalty": 0.5}),
        (THREE, {"frequency_penalty": 0.5}),
        (FLASH, {"modalities": ["text", "audio"]}),
        (FLASH, {"audio": {"voice": "alloy", "format": "wav"}}),
        (FLASH, {"functions": []}),
        (FLASH, {"function_call": "auto"}),
        (FLASH, {"logit_bias": {"1": 2}}),
        (FLASH, {"moderation": {"model": "m"}}),
        (FLASH, {"prediction": {"type": "content", "content": "x"}}),
        (FLASH, {"web_search_options": {}}),
        (FLASH, {"verbosity": "low"}),
        (FLASH, {"service_tier": "flex"}),
        (FLASH, {"store": True}),
        (FLASH, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        (FLASH, {"parallel_tool_calls": False, "tools": [TOOL]}),
        (FLASH, {"brand_new": 1}),
    ],
)
def test_what_gemini_lacks_is_refused_by_name_or_dropped_and_listed(
    model: str, fields: dict[str, Any]
) -> None:
    (name, *_) = fields
    refusal = refusal_of(fields, model)
    assert refusal.param == name
    assert f"'{name}'" in refusal.message
    written, dropped = write(fields, model, drop=True)
    assert dropped == [name]
    assert set(written) <= {"tools"}


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u"},
        {"safety_identifier": "s"},
        {"metadata": {"a": "b"}},
        {"store": False},
        {"prompt_cache_key": "k"},
        {"prompt_cache_options": {"mode": "implicit"}},
        {"prompt_cache_retention": "24h"},
    ],
)
def test_a_hint_is_dropped_and_listed(fields: dict[str, Any]) -> None:
    assert write(fields) == ({}, list(fields))


def test_sampling_is_listed_as_dropped_where_gemini_ignores_it() -> None:
    assert write({"temperature": 0.2, "top_p": 0.5}, NEW) == ({}, ["temperature", "top_p"])
    assert write({"temperature": 1, "top_p": 1}, NEW) == ({}, [])
    assert config_of({"temperature": 0.2}, THREE) == {"temperature": 0.2}


def test_the_description_of_a_schema_is_dropped_and_listed() -> None:
    described = {"name": "a", "schema": SCHEMA, "description": "of a"}
    written, dropped = write({"response_format": {"type": "json_schema", "json_schema": described}})
    assert written["generationConfig"]["responseJsonSchema"] == SCHEMA
    assert dropped == ["response_format.json_schema.description"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"tools": [TOOL, {"type": "custom", "custom": {"name": "c"}}]}, "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].type"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "c"}}}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [1]}}},
            "tool_choice",
        ),
    ],
)
def test_what_makes_no_sense_to_gemini_is_refused_even_where_much_is_dropped(
    fields: dict[str, Any], param: str
) -> None:
    assert refusal_of(fields, drop=True).param == param


def test_a_tool_is_declared_with_its_schema_as_it_stands() -> None:
    bare = {"type": "function", "function": {"name": "g"}, "cache_control": {"type": "ephemeral"}}
    written, dropped = write({"tools": [TOOL, bare]})
    declared = {"name": "f", "description": "does f", "parametersJsonSchema": SCHEMA}
    assert written == {"tools": [{"functionDeclarations": [declared, {"name": "g"}]}]}
    assert dropped == ["tools[].cache_control"]


def chosen(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str) -> dict[str, Any]:
    tools = {"mode": mode, "tools": [chosen("f"), chosen("g")]}
    return {"type": "allowed_tools", "allowed_tools": tools}


STRICT = {"type": "function", "function": {"name": "f", "strict": True}}


@pytest.mark.parametrize(
    ("tool", "choice", "config"),
    [
        (TOOL, None, None),
        (TOOL, "none", {"mode": "NONE"}),
        (TOOL, "auto", {"mode": "AUTO"}),
        (TOOL, "required", {"mode": "ANY"}),
        (TOOL, chosen("f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (TOOL, allowed("auto"), {"mode": "VALIDATED", "allowedFunctionNames": ["f", "g"]}),
        (TOOL, allowed("required"), {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}),
        (STRICT, None, {"mode": "VALIDATED"}),
        (STRICT, "auto", {"mode": "VALIDATED"}),
        (STRICT, "required", {"mode": "ANY"}),
        (STRICT, "none", {"mode": "NONE"}),
    ],
)
def test_a_choice_of_tools_is_a_mode(tool: Any, choice: Any, config: Any) -> None:
    written, dropped = write({"tools": [tool], "tool_choice": choice})
    found = written.get("toolConfig")
    assert found == (config and {"functionCallingConfig": config})
    assert dropped == []


HONOURED = {
    "frequency_penalty": 0.5,
    "logprobs": True,
    "max_completion_tokens": 5,
    "max_tokens": 5,
    "n": 2,
    "presence_penalty": 0.5,
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "seed": 1,
    "stop": "x",
    "temperature": 0.5,
    "tool_choice": "auto",
    "tools": [TOOL],
    "top_k": 5,
    "top_p": 0.5,
}
SILENT = {"model", "messages", "stream", "stream_options", "top_logprobs", "parallel_tool_calls"}


@pytest.mark.parametrize("name", sorted(set(ChatRequest.__struct_fields__) - SILENT))
def test_no_field_of_a_request_goes_unheeded(name: str) -> None:
    """Each is in the body, in the list of what was dropped, or the reason of a refusal."""
    if name in HONOURED:
        written, dropped = write({name: HONOURED[name]})
        assert written
        assert dropped == []
        return
    for value in ("x", 1, True, {"x": "y"}, ["x"], [{"x": "y"}]):
        try:
            chat = msgspec.convert({"model": "m", "messages": MESSAGES, name: value}, ChatRequest)
        except msgspec.ValidationError:
            continue
        unsupported = Unsupported("Gemini", drop=True)
        body = json.loads(write_request(chat, [], FLASH, unsupported))
        assert unsupported.dropped == [name]
        assert set(body) == {"contents"}
        return
    raise AssertionError(f"no value fits {name}")
