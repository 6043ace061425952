"""A request of Anthropic's Messages API as typed data: what chat can express of it.

A field that is typed as null alone, or as one word, can be honoured with that value only. What is
not named here is refused, with its place in the request. Source: Anthropic's Messages API.
"""

from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import msgspec

from tollkeeper import Refused, invalid_request
from tollkeeper.canonical import JsonObject

T = TypeVar("T")


def read_as(value: object, kind: type[T], place: str) -> T:
    """`value`, which stands at `place`, as typed data. Raises `Refused` that names the field."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text, _, rest = str(error).partition(" - at `$")
        where = (place + rest.rstrip("`")).lstrip(".")
        at = f" at {where}" if where else ""
        raise invalid_request(f"Invalid body: {text}{at}.", param=where or None) from None


def refused(place: str, why: str) -> Refused:
    """The refusal of something that chat cannot express."""
    return invalid_request(f"'{place}' cannot be honoured: {why}.", param=place)


class _Known(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of all but the request itself, whose unknown fields are told by name."""


class Metadata(_Known):
    """Who the client's own user is."""

    user_id: str | None = None


class Thinking(_Known):
    """Whether and how long to think; `display` only says how it is shown."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None
    display: str | None = None


class JsonFormat(_Known):
    """A JSON Schema that the output is to keep."""

    type: Literal["json_schema"]
    schema: JsonObject


class OutputConfig(_Known):
    """How much effort to make, and in which form to answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class ToolChoice(_Known):
    """Which tool to use, and whether only one."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Tool(_Known):
    """A tool of the client's. `eager_input_streaming` is a hint."""

    name: str
    input_schema: JsonObject
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: JsonObject | None = None
    eager_input_streaming: bool | None = None
    defer_loading: bool | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    input_examples: None = None


class MessagesRequest(msgspec.Struct, kw_only=True):
    """The request; lists stand as they came, for their items are read one by one."""

    model: str
    messages: list[Any]
    max_tokens: int | None = None
    system: str | list[Any] | None = None
    metadata: Metadata | None = None
    cache_control: JsonObject | None = None
    output_config: OutputConfig | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    thinking: Thinking | None = None
    tool_choice: ToolChoice | None = None
    tools: list[Any] | None = None
    top_k: int | None = None
    top_p: float | None = None


class Turn(_Known):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Any]


class _Block(_Known, tag_field="type"):
    cache_control: JsonObject | None = None


class Text(_Block, kw_only=True, tag="text"):
    """Text. Its `citations` say where it is from, and add nothing to it."""

    text: str
    citations: Any = None


class Base64Source(_Known, tag_field="type", tag="base64"):
    """Data in place."""

    media_type: str
    data: str


class UrlSource(_Known, tag_field="type", tag="url"):
    """Data elsewhere."""

    url: str


class Image(_Block, kw_only=True, tag="image"):
    """An image."""

    source: Base64Source | UrlSource
    transformations: None = None


class Citations(_Known):
    """Whether the answer is to tell where in a document it found what it says."""

    enabled: bool | None = None


class Document(_Block, kw_only=True, tag="document"):
    """A PDF in place."""

    source: Base64Source
    title: str | None = None
    context: None = None
    citations: Citations | None = None


class Caller(_Known):
    """Who called a tool: the model itself."""

    type: Literal["direct"]


class ToolUse(_Block, kw_only=True, tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: JsonObject
    caller: Caller | None = None
    toolset_name: None = None


class ToolResult(_Block, kw_only=True, tag="tool_result"):
    """What a call of a tool came to."""

    tool_use_id: str
    content: str | list[Any] | None = None
    is_error: bool | None = None
    toolset_name: None = None


class ThinkingBlock(_Known, tag_field="type", tag="thinking"):
    """What the model thought, signed by who made it; unsigned where chat had no signature."""

    thinking: str
    signature: str = ""


class RedactedThinking(_Known, tag_field="type", tag="redacted_thinking"):
    """What the model thought, for its maker's eyes only."""

    data: str


Block = Text | Image | Document | ToolUse | ToolResult | ThinkingBlock | RedactedThinking

_BLOCKS: dict[str, dict[str, type[Block]]] = {
    "system": {"text": Text},
    "user": {"text": Text, "image": Image, "document": Document, "tool_result": ToolResult},
    "assistant": {
        "text": Text,
        "thinking": ThinkingBlock,
        "redacted_thinking": RedactedThinking,
        "tool_use": ToolUse,
    },
    "tool_result": {"text": Text},
}
"""The blocks that chat can express, by where they stand."""


def read_blocks(
    content: str | list[Any] | None, where: str, place: str
) -> Iterator[tuple[str, Block]]:
    """Each block with its place. Raises `Refused` for one that chat cannot express there."""
    if isinstance(content, str):
        yield place, Text(text=content)
        return
    for index, raw in enumerate(content or ()):
        at = f"{place}[{index}]"
        kind = type_of(raw)
        if not isinstance(kind, str):
            raise invalid_request(f"'{at}' must be an object with a type.", param=at)
        if kind not in _BLOCKS[where]:
            raise refused(f"{at}.type", f"chat takes no block of type '{kind[:64]}' here")
        yield at, read_as(raw, _BLOCKS[where][kind], at)


def type_of(raw: object) -> object:
    """What a block or a tool says it is."""
    return raw.get("type") if isinstance(raw, dict) else None
