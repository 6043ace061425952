"""Fields of a chat request: honoured, refused, or ignored and listed. One row for each."""

import json
from typing import Any

import pytest

from tollkeeper import Refused, Unsupported
from tollkeeper.canonical import ChatRequest
from tollkeeper_anthropic.request import messages_body, version_of

OLD = "claude-sonnet-4-5-20250929"
ADAPTIVE = "claude-opus-4-6"
NEW = "claude-opus-4-8"
FIVE = "claude-sonnet-5"
MESSAGES = [{"role": "user", "content": "hi"}]
TURNS = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
TOOL = {"type": "function", "function": {"name": "f"}}
SENT_TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
THINKS = {"type": "adaptive", "display": "summarized"}


def translate(model: str = OLD, *, drop: bool = False, **fields: Any) -> tuple[Any, list[str]]:
    body = json.dumps({"model": "alias", "messages": MESSAGES, **fields}).encode()
    unsupported = Unsupported("Anthropic", drop=drop)
    return json.loads(messages_body(body, model, 8192, unsupported)), unsupported.dropped


def added(model: str = OLD, **fields: Any) -> dict[str, Any]:
    """What the fields add to the smallest body; nothing may have been dropped."""
    sent, dropped = translate(model, **fields)
    assert dropped == []
    assert (sent.pop("model"), sent.pop("messages")) == (model, TURNS)
    if sent["max_tokens"] == 8192:
        del sent["max_tokens"]
    return dict(sent)


def refusal(model: str = OLD, **fields: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        translate(model, **fields)
    assert caught.value.status == 400
    return caught.value


def test_the_smallest_request_says_the_upstreams_model_and_a_bound() -> None:
    assert translate() == ({"model": OLD, "messages": TURNS, "max_tokens": 8192}, [])


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"stream": False}, {}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 6}),
        ({"stop": "a"}, {"stop_sequences": ["a"]}),
        ({"stop": ["a", "b "]}, {"stop_sequences": ["a", "b "]}),
        ({"stop": None}, {}),
        ({"stop": []}, {}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 2}, {"temperature": 1}),
        ({"temperature": -1}, {"temperature": 0}),
        ({"top_p": 0.9, "top_k": 40}, {"top_p": 0.9, "top_k": 40}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        ({"user": "u", "safety_identifier": "u"}, {"metadata": {"user_id": "u"}}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"n": 1}, {}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "strict": True, "schema": {"type": "object"}},
                }
            },
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        ),
        ({"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral"}}),
        ({"tools": []}, {}),
        ({"tool_choice": "auto"}, {}),
        ({"parallel_tool_calls": False}, {}),
    ],
)
def test_a_field_is_honoured(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert added(**fields) == wanted


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audio", {"format": "wav", "voice": "x"}),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -0.5),
        ("function_call", "auto"),
        ("function_call", {"name": "f"}),
        ("functions", [{"name": "f"}]),
        ("logit_bias", {"1": 5}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("modalities", ["text", "audio"]),
        ("moderation", {"model": "m"}),
        ("n", 2),
        ("prediction", {"type": "content", "content": "x"}),
        ("seed", 0),
        ("store", True),
        ("verbosity", "low"),
        ("web_search_options", {}),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "grammar"}),
        ("service_tier", "flex"),
        ("service_tier", "priority"),
        ("stop", " \n"),
        ("tool_choice", "required"),
        ("some_new_field", None),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused_by_name_or_dropped_and_listed(
    field: str, value: Any
) -> None:
    refused = refusal(**{field: value})
    assert refused.param == field
    assert field in refused.message
    sent, dropped = translate(drop=True, **{field: value})
    assert sent == translate()[0]
    assert dropped == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frequency_penalty", 0),
        ("presence_penalty", 0.0),
        ("function_call", "none"),
        ("functions", []),
        ("logit_bias", {}),
        ("logprobs", False),
        ("top_logprobs", 0),
        ("modalities", ["text"]),
        ("verbosity", "medium"),
        ("seed", None),
        ("web_search_options", None),
    ],
)
def test_a_value_that_asks_for_nothing_is_honoured_by_saying_nothing(
    field: str, value: Any
) -> None:
    assert added(**{field: value}) == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata", {"a": "b"}),
        ("prompt_cache_key", "k"),
        ("prompt_cache_options", {"mode": "implicit"}),
        ("prompt_cache_retention", "24h"),
        ("store", False),
    ],
)
def test_a_hint_is_dropped_and_listed(field: str, value: Any) -> None:
    sent, dropped = translate(**{field: value})
    assert (sent, dropped) == (translate()[0], [field])


def test_every_field_of_a_chat_is_honoured_refused_or_listed() -> None:
    values: dict[type, Any] = {str: "x", int: 7, float: 0.7, bool: True}
    silent = {"model", "messages", "stream", "stream_options", "parallel_tool_calls"}
    for name in set(ChatRequest.__struct_fields__) - silent:
        for value in (*values.values(), {"x": 1}, ["x"], [{"type": "x"}], {"type": "x"}):
            try:
                sent, dropped = translate(drop=True, **{name: value})
            except Refused:
                continue
            assert dropped or sent != translate()[0], (name, value)


def test_one_user_of_two_is_listed() -> None:
    sent, dropped = translate(user="u", safety_identifier="s")
    assert (sent["metadata"], dropped) == ({"user_id": "s"}, ["user"])


def test_of_stop_sequences_only_those_of_spaces_are_dropped() -> None:
    sent, dropped = translate(drop=True, stop=["a", " "])
    assert (sent["stop_sequences"], dropped) == (["a"], ["stop"])


def test_the_description_of_a_format_is_listed() -> None:
    schema = {"name": "a", "description": "b", "schema": {}}
    _, dropped = translate(response_format={"type": "json_schema", "json_schema": schema})
    assert dropped == ["response_format.json_schema.description"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": "x"}, "messages"),
        ({"temperature": "hot"}, "temperature"),
        ({"cache_control": "x"}, "cache_control"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"reasoning_effort": "utmost"}, "reasoning_effort"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ],
)
def test_a_malformed_field_is_refused_even_where_others_are_dropped(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(Refused) as caught:
        translate(drop=True, **fields)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("claude-opus-4-7", (4, 7)),
        ("claude-opus-4-20250514", (4, 0)),
        ("claude-opus-4@20250514", (4, 0)),
        ("claude-sonnet-4-5-20250929", (4, 5)),
        ("claude-3-5-sonnet-20241022", (3, 5)),
        ("claude-3-opus-20240229", (3, 0)),
        ("claude-3-7-sonnet-latest", (3, 7)),
        ("claude-2.1", (2, 1)),
        ("us.anthropic.claude-opus-4-7-v1:0", (4, 7)),
        ("anthropic/claude-4.7-opus", (4, 7)),
        ("claude-sonnet-5", (5, 0)),
        ("claude-fable-5-1", (5, 1)),
        ("claude-mythos-preview", (99, 0)),
        ("kimi-k2", (4, 5)),
    ],
)
def test_a_models_version_is_read_from_its_name(model: str, version: tuple[int, int]) -> None:
    assert version_of(model) == version


@pytest.mark.parametrize("model", ["claude-opus-4-7", NEW, FIVE, "claude-fable-5", "claude-next"])
@pytest.mark.parametrize(("name", "value"), [("temperature", 0), ("top_p", 0.9), ("top_k", 1)])
def test_models_that_take_no_sampling_refuse_it_but_for_its_default(
    model: str, name: str, value: float
) -> None:
    assert refusal(model, **{name: value}).param == name
    assert translate(model, drop=True, **{name: value}) == (translate(model)[0], [name])
    assert added(model, temperature=1, top_p=1.0) == {}


@pytest.mark.parametrize("model", ["claude-opus-4-6", OLD, "claude-3-opus-20240229", "kimi-k2"])
def test_models_that_take_sampling_get_it(model: str) -> None:
    assert added(model, temperature=0, top_k=1) == {"temperature": 0, "top_k": 1}


@pytest.mark.parametrize(
    ("effort", "budget"),
    [("minimal", 1024), ("low", 2048), ("medium", 4096), ("high", 8192), ("xhigh", 16384)],
)
def test_older_models_get_a_budget_of_thoughts_on_top_of_the_default_bound(
    effort: str, budget: int
) -> None:
    assert added(OLD, reasoning_effort=effort) == {
        "max_tokens": 8192 + budget,
        "thinking": {"type": "enabled", "budget_tokens": budget},
    }


@pytest.mark.parametrize("model", ["claude-3-7-sonnet-latest", "claude-haiku-4-5", "kimi-k2"])
def test_models_that_think_by_budget_are_those_from_3_7_to_4_5_and_no_claudes(model: str) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert added(model, reasoning_effort="minimal")["thinking"] == thinking


@pytest.mark.parametrize(("bound", "budget"), [(1025, 1024), (5000, 4999), (9000, 8192)])
def test_a_budget_of_thoughts_stays_below_the_clients_bound(bound: int, budget: int) -> None:
    sent = added(OLD, reasoning_effort="high", max_tokens=bound)
    assert sent == {
        "max_tokens": bound,
        "thinking": {"type": "enabled", "budget_tokens": budget},
    }


def test_thoughts_that_have_no_room_or_no_model_are_refused() -> None:
    assert refusal(OLD, reasoning_effort="low", max_tokens=1024).param == "reasoning_effort"
    assert refusal("claude-3-5-haiku-latest", reasoning_effort="low").param == "reasoning_effort"
    sent, dropped = translate(OLD, drop=True, reasoning_effort="low", max_tokens=9)
    assert "thinking" not in sent
    assert dropped == ["reasoning_effort"]


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        (NEW, "minimal", "low"),
        (NEW, "low", "low"),
        (NEW, "medium", "medium"),
        (NEW, "high", "high"),
        (NEW, "xhigh", "xhigh"),
        (NEW, "max", "max"),
        (ADAPTIVE, "xhigh", "max"),
        (FIVE, "high", "high"),
    ],
)
def test_newer_models_choose_their_thoughts_by_effort(model: str, effort: str, sent: str) -> None:
    assert added(model, reasoning_effort=effort, max_tokens=100) == {
        "max_tokens": 100,
        "thinking": THINKS,
        "output_config": {"effort": sent},
    }


@pytest.mark.parametrize(
    ("model", "thinking"), [(OLD, None), (NEW, None), (FIVE, {"type": "disabled"})]
)
def test_no_effort_means_no_thoughts(model: str, thinking: Any) -> None:
    assert added(model, reasoning_effort="none").get("thinking") == thinking


def test_thinking_that_the_client_wrote_itself_is_passed_on() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2000, "new": 1}
    assert added(OLD, thinking=thinking) == {"max_tokens": 10192, "thinking": thinking}
    sent = added(NEW, thinking=THINKS, reasoning_effort="low", max_tokens=9)
    assert sent == {"max_tokens": 9, "thinking": THINKS, "output_config": {"effort": "low"}}
    _, dropped = translate(OLD, thinking=thinking, reasoning_effort="low")
    assert dropped == ["reasoning_effort"]


def test_a_model_that_thinks_takes_no_sampling() -> None:
    assert refusal(OLD, reasoning_effort="low", temperature=0).param == "temperature"
    off = {"type": "disabled"}
    assert added(OLD, thinking=off, temperature=0) == {"thinking": off, "temperature": 0}


def test_effort_and_format_share_the_output_config() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
    sent = added(NEW, reasoning_effort="low", response_format=wanted)
    assert sent["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": {}},
    }


def test_a_tool_is_sent_with_all_that_is_said_of_it() -> None:
    schema = {"properties": {"x": {"type": "number"}}, "required": ["x"], "$defs": {}}
    function = {"name": "g", "description": "d", "parameters": schema, "strict": True}
    marked = {"type": "function", "function": function, "cache_control": {"type": "ephemeral"}}
    assert added(tools=[TOOL, marked])["tools"] == [
        SENT_TOOL,
        {
            "name": "g",
            "description": "d",
            "input_schema": {**schema, "type": "object"},
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        },
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, True, None),
        ("none", None, {"type": "none"}),
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
    ],
)
def test_a_choice_of_tools_is_sent(choice: Any, parallel: bool | None, sent: Any) -> None:
    fields = {"tool_choice": choice, "parallel_tool_calls": parallel}
    assert added(tools=[TOOL], **fields).get("tool_choice") == sent


def test_tools_and_choices_of_openais_own_are_refused_or_dropped() -> None:
    custom = {"type": "custom", "custom": {"name": "c"}}
    assert refusal(tools=[TOOL, custom]).param == "tools[1]"
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    assert refusal(tools=[TOOL], tool_choice=allowed).param == "tool_choice"
    sent, dropped = translate(drop=True, tools=[TOOL, custom], tool_choice=allowed)
    assert sent["tools"] == [SENT_TOOL]
    assert "tool_choice" not in sent
    assert dropped == ["tools[1]", "tool_choice"]
