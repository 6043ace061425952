"""A chat request as the body of generateContent.

Source: https://ai.google.dev/api/generate-content. Every field of the request is honoured,
refused, or a hint that is dropped and listed.
"""

import re

import msgspec

from tollkeeper import Unsupported, invalid_request
from tollkeeper.canonical import ChatRequest, JsonObject, ResponseFormat, Tool
from tollkeeper_gemini.service import Conversation, refused

_HINTS = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)
_REFUSED: dict[str, tuple[object, ...]] = {
    "audio": (),
    "function_call": (),
    "functions": (),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "thinking": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""What Gemini has nothing like, each with the values that ask for nothing."""

_SAMPLING = {"temperature": "temperature", "top_p": "topP"}
_PENALTIES = {"presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty"}
_OTHERS = {"output_bound": "maxOutputTokens", "top_k": "topK", "seed": "seed"}
_LEVELS = ("minimal", "low", "medium", "high", "xhigh")
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_LARGEST_BUDGET = {"pro": 32768, "flash": 24576}
_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
_VERSION = re.compile(r"gemini-(\d+)(?:\.(\d+))?")


def version_of(model: str) -> tuple[int, int]:
    """The generation in a model's name: 2.5 is (2, 5), unknown (0, 0), "latest" beyond all."""
    if match := _VERSION.search(model):
        return int(match[1]), int(match[2] or 0)
    return (99, 0) if "gemini" in model and model.endswith("-latest") else (0, 0)


def write_request(
    request: ChatRequest, unknown: list[str], model: str, unsupported: Unsupported
) -> bytes:
    """The body for `model`. Raises `Refused` that names what cannot be honoured."""
    version = version_of(model)
    _judge(request, unknown, unsupported)
    conversation = Conversation(unsupported, version)
    for index, message in enumerate(request.messages):
        conversation.add(f"messages[{index}]", message)
    conversation.close()
    if not conversation.contents:
        raise refused("messages", "Gemini wants a message of a user with something in it")
    config = {
        **_sampling(request, version, unsupported),
        **_thinking(request.reasoning_effort, model, version, unsupported),
        **_format(request.response_format, unsupported),
    }
    body: JsonObject = {"contents": conversation.contents}
    if conversation.system:
        body["systemInstruction"] = {"parts": conversation.system}
    if config:
        body["generationConfig"] = config
    return msgspec.json.encode({**body, **_tools(request, unsupported)})


def _judge(request: ChatRequest, unknown: list[str], unsupported: Unsupported) -> None:
    for name in unknown:
        unsupported.refuse(name)
    for name, harmless in _REFUSED.items():
        value = getattr(request, name)
        if value is not None and value not in harmless:
            unsupported.refuse(name)
    for name in _HINTS:
        if getattr(request, name) is not None:
            unsupported.ignore(name)
    if request.store is False:
        unsupported.ignore("store")
    if request.parallel_tool_calls is False and request.tools:
        unsupported.refuse("parallel_tool_calls", "Gemini calls as many tools as it likes")


def _sampling(
    request: ChatRequest, version: tuple[int, int], unsupported: Unsupported
) -> JsonObject:
    config = _renamed(request, _OTHERS)
    if request.n is not None and request.n != 1:
        config["candidateCount"] = request.n
    for name, value in _renamed(request, _SAMPLING).items():
        if version < (3, 5):
            config[name] = value
        elif value != 1:
            unsupported.ignore("top_p" if name == "topP" else name)
    if request.stops:
        config["stopSequences"] = request.stops
    return {**config, **_penalties(request, version, unsupported), **_logprobs(request)}


def _penalties(
    request: ChatRequest, version: tuple[int, int], unsupported: Unsupported
) -> JsonObject:
    config: JsonObject = {}
    for name, theirs in _PENALTIES.items():
        value = getattr(request, name)
        if value and version >= (3, 0):
            unsupported.refuse(name, "Gemini has had no penalties since version 3")
        elif value:
            config[theirs] = value
    return config


def _renamed(request: ChatRequest, names: dict[str, str]) -> JsonObject:
    values = {theirs: getattr(request, name) for name, theirs in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def _logprobs(request: ChatRequest) -> JsonObject:
    if request.logprobs:
        top = request.top_logprobs
        return {"responseLogprobs": True, **({} if top is None else {"logprobs": top})}
    if request.top_logprobs:
        raise invalid_request("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    return {}


def _thinking(
    effort: str | None, model: str, version: tuple[int, int], unsupported: Unsupported
) -> JsonObject:
    if effort is None or (effort == "none" and version < (2, 5)):
        return {}
    config = _levels(effort) if version >= (3, 0) else _budgets(effort, model, version)
    if config is None:
        unsupported.refuse("reasoning_effort", f"{model} has no such effort")
        return {}
    return {"thinkingConfig": config}


def _levels(effort: str) -> JsonObject | None:
    return {"thinkingLevel": effort, "includeThoughts": True} if effort in _LEVELS else None


def _budgets(effort: str, model: str, version: tuple[int, int]) -> JsonObject | None:
    """Source of the budgets: https://ai.google.dev/gemini-api/docs/openai#thinking."""
    size = "pro" if "pro" in model else "flash"
    if version < (2, 5) or (effort == "none" and size == "pro"):
        return None
    if effort == "none":
        return {"thinkingBudget": 0}
    if effort not in (*_LEVELS, "max"):
        return None
    budget = _BUDGETS.get(effort, _LARGEST_BUDGET[size])
    return {"thinkingBudget": budget, "includeThoughts": True}


def _format(wanted: ResponseFormat | None, unsupported: Unsupported) -> JsonObject:
    if wanted is None or wanted.type == "text":
        return {}
    if wanted.type == "json_object":
        return {"responseMimeType": "application/json"}
    described = wanted.json_schema or {}
    schema = described.get("schema")
    if wanted.type != "json_schema" or not isinstance(schema, dict):
        raise refused("response_format", "it is no kind of format that Gemini has, or no schema")
    if described.get("description") is not None:
        unsupported.ignore("response_format.json_schema.description")
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}


def _tools(request: ChatRequest, unsupported: Unsupported) -> JsonObject:
    tools = request.tools or []
    declared = [_declaration(f"tools[{i}]", tool) for i, tool in enumerate(tools)]
    if any(tool.cache_control for tool in tools):
        unsupported.ignore("tools[].cache_control")
    is_strict = any(tool.function is not None and tool.function.strict for tool in tools)
    choice = _choice(request.tool_choice)
    if is_strict and choice.get("mode", "AUTO") == "AUTO":
        choice["mode"] = "VALIDATED"
    body: JsonObject = {"tools": [{"functionDeclarations": declared}]} if declared else {}
    if choice:
        body["toolConfig"] = {"functionCallingConfig": choice}
    return body


def _declaration(where: str, tool: Tool) -> JsonObject:
    function = tool.function
    if tool.type != "function" or function is None:
        raise refused(f"{where}.type", "Gemini is given functions only")
    declared: JsonObject = {"name": function.name}
    if function.description is not None:
        declared["description"] = function.description
    if function.parameters is not None:
        declared["parametersJsonSchema"] = function.parameters
    return declared


def _choice(choice: str | JsonObject | None) -> JsonObject:
    """Which calls may be made; `VALIDATED` is Gemini's `AUTO` that can be held to names."""
    if choice is None:
        return {}
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"mode": "ANY", "allowedFunctionNames": [_name_in(choice)]}
    allowed = choice.get("allowed_tools") if isinstance(choice, dict) else None
    if isinstance(allowed, dict) and isinstance(allowed.get("tools"), list):
        names = [_name_in(tool) for tool in allowed["tools"]]
        mode = "ANY" if allowed.get("mode") == "required" else "VALIDATED"
        return {"mode": mode, "allowedFunctionNames": names}
    raise refused("tool_choice", "Gemini has no such choice")


def _name_in(choice: object) -> str:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise refused("tool_choice", "it names no function")
    return name
