"""A chat request as a body of Anthropic's Messages API. Pure functions.

Every field of a request is honoured, refused, or ignored and listed; what equals the default asks
for nothing. Source: Anthropic's Messages API, version 2023-06-01, and its notes on each model.
"""

import re

import msgspec

from tollkeeper import Unsupported, invalid_request
from tollkeeper.canonical import (
    ChatRequest,
    FunctionTool,
    JsonObject,
    Tool,
    read_chat,
)
from tollkeeper.jsongate import invalid_field
from tollkeeper_anthropic.service import read_conversation

_REFUSED: dict[str, tuple[object, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "seed": (),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""What Anthropic has nothing like, each with the values that ask for nothing."""

_IGNORED = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "store",
)

_BUDGETS = {
    "none": 0,
    "minimal": 1024,
    "low": 2048,
    "medium": 4096,
    "high": 8192,
    "xhigh": 16384,
    "max": 16384,
}
"""Tokens of thought for each `reasoning_effort`."""

_LEAST_BUDGET = 1024

Version = tuple[int, int]
_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_NEWEST: Version = (99, 0)
_OTHER: Version = (4, 5)
"""What models that are no Claude are taken for: the last that took everything."""


def messages_body(body: bytes, model: str, max_tokens: int, unsupported: Unsupported) -> bytes:
    """What asks Anthropic's `model` for what the chat `body` asks for.

    `max_tokens` bounds the output where the client does not. Raises `Refused`.
    """
    request, unknown = read_chat(body)
    _settle_the_rest(request, unknown, unsupported)
    version = version_of(model)
    system, turns = read_conversation(request.messages, unsupported)
    document: JsonObject = {"model": model, "messages": turns}
    if system:
        document["system"] = system
    if request.stream:
        document["stream"] = True
    document |= _reasoning(request, version, max_tokens, unsupported)
    thinks = document.get("thinking", {}).get("type") in ("adaptive", "enabled")
    document |= _sampling(request, version, thinks, unsupported)
    document |= _tools(request, unsupported)
    document |= _plain_fields(request, unsupported)
    if schema := _format(request, unsupported):
        document["output_config"] = {**document.get("output_config", {}), "format": schema}
    if "cache_control" in unknown:
        document["cache_control"] = _cache_control(body)
    return msgspec.json.encode(document)


class _Extra(msgspec.Struct):
    cache_control: JsonObject | None = None


def _cache_control(body: bytes) -> JsonObject | None:
    """Anthropic's own field, which a chat may carry for it."""
    try:
        return msgspec.json.decode(body, type=_Extra).cache_control
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None


def version_of(model: str) -> Version:
    """Which Claude a model is: (4, 7) for `claude-opus-4-7`; one without a number is new."""
    found = _CLAUDE.search(model)
    if found is None:
        return _NEWEST if "claude-" in model else _OTHER
    return int(found[1]), int(found[2] or 0)


def _settle_the_rest(request: ChatRequest, unknown: list[str], unsupported: Unsupported) -> None:
    """Refuse or note all that has no place in the body."""
    for name, neutral in _REFUSED.items():
        value = getattr(request, name)
        if value is not None and value not in neutral:
            unsupported.refuse(name)
    for name in unknown:
        if name != "cache_control":
            unsupported.refuse(name, "it is not known")
    for name in _IGNORED:
        if getattr(request, name) is not None:
            unsupported.ignore(name)


def _reasoning(
    request: ChatRequest, version: Version, default: int, unsupported: Unsupported
) -> JsonObject:
    """`max_tokens`, which thoughts count towards, with `thinking` and the effort."""
    effort = request.reasoning_effort
    if effort is not None and effort not in _BUDGETS:
        why = f"'reasoning_effort' must be one of {', '.join(_BUDGETS)}."
        raise invalid_request(why, param="reasoning_effort")
    budget = _BUDGETS[effort or "none"]
    if request.thinking is not None:
        told = request.thinking.get("budget_tokens")
        budget = told if isinstance(told, int) else budget
    bound = request.output_bound
    limit = default + budget if bound is None else bound
    members = {"max_tokens": limit}
    if request.thinking is None:
        return members | _thinking(effort, version, limit, unsupported)
    return members | {"thinking": request.thinking} | _effort_beside(effort, version, unsupported)


def _effort_beside(effort: str | None, version: Version, unsupported: Unsupported) -> JsonObject:
    """The effort where the client has itself written what to think."""
    if effort is None:
        return {}
    if effort != "none" and _is_adaptive(version):
        return {"output_config": {"effort": _effort(effort, version)}}
    unsupported.ignore("reasoning_effort")
    return {}


def _thinking(
    effort: str | None, version: Version, limit: int, unsupported: Unsupported
) -> JsonObject:
    if effort is None:
        return {}
    if effort == "none":
        # From 5 on models think unless told not to; those that must say so themselves.
        return {"thinking": {"type": "disabled"}} if (5, 0) <= version < _NEWEST else {}
    if _is_adaptive(version):
        thinking = {"type": "adaptive", "display": "summarized"}
        return {"thinking": thinking, "output_config": {"effort": _effort(effort, version)}}
    budget = min(_BUDGETS[effort], limit - 1)
    if version < (3, 7):
        unsupported.refuse("reasoning_effort", "this model does not think")
    elif budget < _LEAST_BUDGET:
        unsupported.refuse("reasoning_effort", f"it takes more than {_LEAST_BUDGET} output tokens")
    else:
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}
    return {}


def _is_adaptive(version: Version) -> bool:
    """Whether the model chooses itself how long to think."""
    return version >= (4, 6)


def _effort(effort: str, version: Version) -> str:
    if effort == "minimal":
        return "low"
    return "max" if effort == "xhigh" and version < (4, 7) else effort


def _sampling(
    request: ChatRequest, version: Version, thinks: bool, unsupported: Unsupported
) -> JsonObject:
    names = ("temperature", "top_p", "top_k")
    wanted = {name: value for name in names if (value := getattr(request, name)) is not None}
    if version >= (4, 7) or thinks:
        why = "this model does not take it" if version >= (4, 7) else "the model is to think"
        for name, value in wanted.items():
            if value != 1 or name == "top_k":
                unsupported.refuse(name, why)
        return {}
    if "temperature" in wanted:
        wanted["temperature"] = min(max(wanted["temperature"], 0), 1)
    return wanted


def _tools(request: ChatRequest, unsupported: Unsupported) -> JsonObject:
    tools = []
    for index, tool in enumerate(request.tools or ()):
        if tool.type == "function":
            tools.append(_tool(tool, f"tools[{index}]"))
        else:
            unsupported.refuse(f"tools[{index}]", "only tools of type 'function' are known")
    if not tools:
        if request.tool_choice not in (None, "none", "auto"):
            unsupported.refuse("tool_choice", "there is no tool to choose")
        return {}
    choice = _tool_choice(request.tool_choice, unsupported)
    if request.parallel_tool_calls is False and choice != {"type": "none"}:
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return {"tools": tools, "tool_choice": choice} if choice else {"tools": tools}


def _tool(tool: Tool, place: str) -> JsonObject:
    function = tool.function
    if not isinstance(function, FunctionTool):
        raise invalid_request(f"'{place}.function' is missing.", param=f"{place}.function")
    schema = {**(function.parameters or {"properties": {}}), "type": "object"}
    optional = {
        "description": function.description,
        "strict": function.strict,
        "cache_control": tool.cache_control,
    }
    said = {name: value for name, value in optional.items() if value is not None}
    return {"name": function.name, "input_schema": schema, **said}


def _tool_choice(choice: str | JsonObject | None, unsupported: Unsupported) -> JsonObject | None:
    if isinstance(choice, str):
        kinds = {"none": "none", "auto": "auto", "required": "any"}
        if choice not in kinds:
            why = f"'tool_choice' must be one of {', '.join(kinds)}, or name a function."
            raise invalid_request(why, param="tool_choice")
        return {"type": kinds[choice]}
    if choice is None:
        return None
    if choice.get("type") != "function":
        unsupported.refuse("tool_choice", "it must be a word, or name a function")
        return None
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        place = "tool_choice.function.name"
        raise invalid_request(f"'{place}' is missing.", param=place)
    return {"type": "tool", "name": name}


def _plain_fields(request: ChatRequest, unsupported: Unsupported) -> JsonObject:
    """`stop_sequences`, `metadata` and `service_tier`."""
    members: JsonObject = {}
    if stops := [stop for stop in request.stops if stop.strip()]:
        members["stop_sequences"] = stops
    if len(stops) != len(request.stops):
        unsupported.refuse("stop", "a sequence needs a character that is no space")
    if user := request.safety_identifier or request.user:
        members["metadata"] = {"user_id": user}
        if request.user not in (None, user):
            unsupported.ignore("user")
    if request.service_tier in ("auto", "default"):
        members["service_tier"] = "auto" if request.service_tier == "auto" else "standard_only"
    elif request.service_tier is not None:
        unsupported.refuse("service_tier", "only 'auto' and 'default' are known")
    return members


def _format(request: ChatRequest, unsupported: Unsupported) -> JsonObject | None:
    """The schema that the output is to keep."""
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type != "json_schema":
        unsupported.refuse("response_format", "of formats it takes 'text' and 'json_schema'")
        return None
    schema = (wanted.json_schema or {}).get("schema")
    if not isinstance(schema, dict):
        place = "response_format.json_schema.schema"
        raise invalid_request(f"'{place}' must be a JSON Schema.", param=place)
    if (wanted.json_schema or {}).get("description") is not None:
        unsupported.ignore("response_format.json_schema.description")
    return {"type": "json_schema", "schema": schema}
