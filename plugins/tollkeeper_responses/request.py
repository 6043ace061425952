"""A request of the Responses API as a chat request. Pure functions.

Every field is honoured, or refused by its name; null is as absent. What items and parts hold beside
what is read of them tells a model nothing and is left out: ids, statuses, annotations.
Source: OpenAI's Responses API.
"""

from collections.abc import Sequence

import msgspec

from tollkeeper import Refused, invalid_request, replace_value
from tollkeeper.canonical import ChatRequest, JsonObject, Message, ResponseFormat, Tool
from tollkeeper.canonical import FunctionTool as ChatFunction
from tollkeeper.jsongate import invalid_field, read_object
from tollkeeper_responses.models import Asking, Format, FunctionTool, Kept
from tollkeeper_responses.service import (
    MAX_CONVERSATION,
    NATIVE,
    input_of,
    read_items,
    read_raw,
    refused,
)

_NEUTRAL = {"background": False, "truncation": "disabled"}
"""What chat has nothing like, but for the value that asks for nothing."""

_INCLUDED = frozenset({"reasoning.encrypted_content", "message.output_text.logprobs"})
_ITEMS = frozenset({"message", "reasoning", "function_call", "function_call_output"})
_TOOL_FIELDS = frozenset(FunctionTool.__struct_fields__)

_SAME = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "temperature",
    "top_p",
    "user",
)
"""Fields that chat has under the same name."""

_ECHO: JsonObject = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, and what it says of what was not asked for."""


def read_request(body: bytes, *, keeps: bool) -> tuple[bytes, bytes]:
    """The chat request that asks for the same, and the members that a response repeats.

    `keeps` is whether responses are kept here. Raises `Refused` that names the field at fault.
    """
    document = {name: value for name, value in read_object(body).items() if value is not None}
    _check(document, keeps=keeps)
    try:
        asked = msgspec.convert(document, Asking)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None
    chat = ChatRequest(model=asked.model, messages=_messages(asked))
    for name in _SAME:
        setattr(chat, name, getattr(asked, name))
    chat.max_completion_tokens = asked.max_output_tokens
    _set_stream(chat, asked)
    _set_tools(chat, asked)
    _set_output(chat, asked)
    keeping = keeps and asked.store is not False
    return msgspec.json.encode(chat), _echo(document, keeping=keeping)


def _check(document: JsonObject, *, keeps: bool) -> None:
    """Refuse what chat cannot express, by its place."""
    for name, value in document.items():
        known = name in Asking.__struct_fields__
        if not known and not (name in _NEUTRAL and value == _NEUTRAL[name]):
            raise refused(name, NATIVE)
    if document.get("store") is True and not keeps:
        raise refused("store", "no responses are kept here")
    for index in references(document.get("input")):
        raise _unkept(index, "items are only kept with `store = true` under [plugins.responses]")
    _check_types(document.get("input"), "input", _ITEMS)
    _check_types(document.get("tools"), "tools", frozenset({"function"}))
    _check_fields(document.get("reasoning"), "reasoning", "effort", "summary", "generate_summary")
    _check_fields(document.get("text"), "text", "format", "verbosity")
    tools = document.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        _check_fields(tool, f"tools[{index}]", *_TOOL_FIELDS)


def _check_types(values: object, place: str, known: frozenset[str]) -> None:
    for index, value in enumerate(values if isinstance(values, list) else ()):
        kind = value.get("type", "message") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind not in known:
            raise refused(f"{place}[{index}].type", f"'{kind[:64]}': {NATIVE}")


def _check_fields(value: object, place: str, *known: str) -> None:
    for name, inner in value.items() if isinstance(value, dict) else ():
        if name not in known and inner not in (None, False):
            raise refused(f"{place}.{name[:64]}", NATIVE)


def _echo(document: JsonObject, *, keeping: bool) -> bytes:
    told: JsonObject = {name: document.get(name, value) for name, value in _ECHO.items()}
    told["reasoning"] = {"effort": None, "summary": None, **document.get("reasoning", {})}
    told["text"] = {"format": {"type": "text"}, **_present(document.get("text", {}))}
    told["tools"] = [{"parameters": None, "strict": None, **tool} for tool in told["tools"]]
    told["store"] = keeping
    return msgspec.json.encode(told)[1:-1]


def _present(value: JsonObject) -> JsonObject:
    return {name: inner for name, inner in value.items() if inner is not None}


def _set_stream(chat: ChatRequest, asked: Asking) -> None:
    options = asked.stream_options
    if options is not None and options.include_obfuscation:
        raise refused("stream_options.include_obfuscation", NATIVE)
    if asked.stream:
        chat.stream = True
        chat.stream_options = {"include_usage": True}


def _set_tools(chat: ChatRequest, asked: Asking) -> None:
    """Tools and how they are to be used; chat takes a choice only where there are tools."""
    choice = asked.tool_choice
    if isinstance(choice, dict):
        if choice.get("type") != "function" or not isinstance(choice.get("name"), str):
            raise refused("tool_choice", "it is none of auto, none, required or a function")
        choice = {"type": "function", "function": {"name": choice["name"]}}
    elif choice not in (None, "auto", "none", "required"):
        raise refused("tool_choice", "it is none of auto, none, required or a function")
    if asked.tools:
        chat.tools = [_tool(tool) for tool in asked.tools]
        chat.parallel_tool_calls = asked.parallel_tool_calls
        chat.tool_choice = choice
    elif choice not in (None, "auto", "none"):
        raise refused("tool_choice", "there are no tools")


def _tool(tool: FunctionTool) -> Tool:
    function = ChatFunction(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        strict=tool.strict,
    )
    return Tool(type="function", function=function)


def _set_output(chat: ChatRequest, asked: Asking) -> None:
    """How the model is to think, and what its text is to look like."""
    if asked.reasoning is not None:
        chat.reasoning_effort = asked.reasoning.effort
        for name in ("summary", "generate_summary"):
            if getattr(asked.reasoning, name) not in (None, "auto", "detailed"):
                raise refused(f"reasoning.{name}", "the provider's thoughts are told as they are")
    if asked.text is not None:
        chat.verbosity = asked.text.verbosity
        chat.response_format = _format(asked.text.format)
    for index, name in enumerate(asked.include or ()):
        if name not in _INCLUDED:
            raise refused(f"include[{index}]", NATIVE)
    if asked.top_logprobs or "message.output_text.logprobs" in (asked.include or ()):
        chat.logprobs = True
        chat.top_logprobs = asked.top_logprobs


def _format(asked: Format | None) -> ResponseFormat | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return ResponseFormat(type="json_object")
    if asked.type != "json_schema":
        raise refused("text.format.type", NATIVE)
    schema = {name: getattr(asked, name) for name in ("name", "description", "schema", "strict")}
    return ResponseFormat(type="json_schema", json_schema=_present(schema))


def _messages(asked: Asking) -> list[Message]:
    messages = read_items(asked.input)
    if asked.instructions:
        messages.insert(0, Message(role="system", content=asked.instructions))
    return messages


class _Output(msgspec.Struct):
    output: list[msgspec.Raw] = []


_read_output = msgspec.json.Decoder(_Output).decode


def continued(body: bytes, chain: Sequence[Kept]) -> tuple[bytes, int]:
    """A request that says itself what it builds on, and how many items that took.

    `chain` is what it builds on, the newest first.
    """
    items: list[msgspec.Raw] = []
    for kept in reversed(chain):
        items += read_raw(kept.input)
        items += _read_output(kept.response).output
    body = replace_value(body, b"previous_response_id", b"null")
    whole = msgspec.json.encode([*items, *input_of(body)])
    return replace_value(body, b"input", whole), len(items)


def references(items: object) -> dict[int, str]:
    """Where an input holds nothing of an item but its id, and those ids."""
    listed = enumerate(items if isinstance(items, list) else ())
    return {index: str(item.get("id")) for index, item in listed if _is_reference(item)}


def _is_reference(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and item.keys() - {"type"} == {"id"})


def resolved(body: bytes, asked: dict[int, str], found: dict[str, str]) -> bytes:
    """A request with the items themselves in the place of references to them.

    Raises `Refused` that names the reference to an item that was not found.
    """
    if sum(len(found.get(item_id, "")) for item_id in asked.values()) > MAX_CONVERSATION:
        message = f"The items referred to have more than {MAX_CONVERSATION} characters."
        raise invalid_request(message, param="input")
    items = input_of(body)
    for index, item_id in asked.items():
        if item_id not in found:
            raise _unkept(index, f"no item '{item_id[:100]}' is kept here")
        items[index] = msgspec.Raw(found[item_id].encode())
    return replace_value(body, b"input", msgspec.json.encode(items))


def _unkept(index: int, why: str) -> Refused:
    return refused(f"input[{index}].id", f"{why}; with `store: false` clients send items whole")
