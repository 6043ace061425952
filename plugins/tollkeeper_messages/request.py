"""A request of Anthropic's Messages API as a chat request. Pure functions.

Every field is honoured or refused by name; the few hints that change no answer are listed in the
README. Source: Anthropic's Messages API; OpenAI's API document for chat.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from tollkeeper import invalid_request
from tollkeeper.canonical import (
    ChatRequest,
    ContentPart,
    FunctionCall,
    FunctionTool,
    ImageUrl,
    JsonObject,
    Message,
    ResponseFormat,
    ToolCall,
)
from tollkeeper.canonical import Tool as ChatTool
from tollkeeper.jsongate import read_object
from tollkeeper_messages.models import (
    Base64Source,
    Block,
    Document,
    Image,
    MessagesRequest,
    RedactedThinking,
    Text,
    Thinking,
    ThinkingBlock,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
    read_as,
    read_blocks,
    refused,
    type_of,
)

MAX_USER = 64
"""The longest `user` that OpenAI takes."""

_NOTHING: tuple[object, ...] = (None, [], {})
"""Values of a field that ask for nothing."""

_DETAIL_CODES = {"thread": "thread_unsupported_request"}
"""Tool runners of the SDKs ask for a thread by themselves; told so, they go on without."""

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_MEDIUM_BUDGET, _HIGH_BUDGET = 4096, 16384
_PDF = "application/pdf"


def chat_body(body: bytes) -> bytes:
    """The chat request that asks for the same. Raises `Refused` that names what chat lacks."""
    document = read_object(body)
    for name, value in document.items():
        if name not in MessagesRequest.__struct_fields__ and value not in _NOTHING:
            refusal = refused(name, "only a provider that speaks this API knows it")
            refusal.detail_code = _DETAIL_CODES.get(name)
            raise refusal
    return msgspec.json.encode(_chat(read_as(document, MessagesRequest, "")))


def _chat(request: MessagesRequest) -> ChatRequest:
    if request.max_tokens is None:
        raise invalid_request("The request needs max_tokens.", param="max_tokens")
    chat = ChatRequest(
        model=request.model,
        messages=[*_system(request.system), *_messages(request.messages)],
        max_completion_tokens=request.max_tokens,
        stop=request.stop_sequences or None,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        reasoning_effort=_effort(request),
        response_format=_format(request),
        user=_user(request),
        service_tier="default" if request.service_tier == "standard_only" else None,
        tools=[_tool(raw, f"tools[{i}]") for i, raw in enumerate(request.tools or ())] or None,
        tool_choice=_tool_choice(request.tool_choice),
    )
    if request.tool_choice is not None and request.tool_choice.disable_parallel_tool_use:
        chat.parallel_tool_calls = False
    if request.stream:
        chat.stream = True
        chat.stream_options = {"include_usage": True}
    return chat


def _effort(request: MessagesRequest) -> str | None:
    """How long to think: as the client says, or by the budget it allows."""
    if request.output_config is not None and request.output_config.effort is not None:
        return request.output_config.effort
    return _effort_of(request.thinking) if request.thinking is not None else None


def _effort_of(thinking: Thinking) -> str | None:
    if thinking.type != "enabled":
        return None
    if thinking.budget_tokens is None:
        place = "thinking.budget_tokens"
        raise invalid_request(f"The request needs {place}.", param=place)
    if thinking.budget_tokens >= _HIGH_BUDGET:
        return "high"
    return "medium" if thinking.budget_tokens >= _MEDIUM_BUDGET else "low"


def _format(request: MessagesRequest) -> ResponseFormat | None:
    """The schema, strictly kept, as it is promised here."""
    wanted = request.output_config.format if request.output_config is not None else None
    if wanted is None:
        return None
    schema = {"name": "response", "schema": wanted.schema, "strict": True}
    return ResponseFormat(type="json_schema", json_schema=schema)


def _user(request: MessagesRequest) -> str | None:
    """Who the client's user is; the digest of what is longer than chat takes."""
    user = request.metadata.user_id if request.metadata is not None else None
    if user is None or len(user) <= MAX_USER:
        return user
    return hashlib.sha256(user.encode()).hexdigest()


def _tool(raw: object, place: str) -> ChatTool:
    kind = type_of(raw)
    if kind not in (None, "custom"):
        raise refused(f"{place}.type", f"only Anthropic has a tool of type '{str(kind)[:64]}'")
    tool = read_as(raw, Tool, place)
    if tool.defer_loading:
        raise refused(f"{place}.defer_loading", "chat has all tools from the start")
    function = FunctionTool(
        name=tool.name,
        description=tool.description,
        parameters=tool.input_schema,
        strict=tool.strict,
    )
    return ChatTool(type="function", function=function, cache_control=tool.cache_control)


def _tool_choice(choice: ToolChoice | None) -> str | JsonObject | None:
    if choice is None:
        return None
    if choice.type != "tool":
        return _CHOICES[choice.type]
    if not choice.name:
        place = "tool_choice.name"
        raise invalid_request(f"The request needs {place}.", param=place)
    return {"type": "function", "function": {"name": choice.name}}


def _system(system: str | list[Any] | None) -> list[Message]:
    if not system:
        return []
    return [Message(role="system", content=_content(_texts(system, "system", "system")))]


def _messages(turns: list[Any]) -> Iterator[Message]:
    for index, raw in enumerate(turns):
        place = f"messages[{index}]"
        turn = read_as(raw, Turn, place)
        place += ".content"
        if turn.role == "assistant":
            yield _assistant(turn, place)
        elif turn.role == "user":
            yield from _user_messages(turn, place)
        else:
            yield Message(role="system", content=_content(_texts(turn.content, "system", place)))


def _user_messages(turn: Turn, place: str) -> Iterator[Message]:
    """The results of tools, then what else the user says."""
    parts = []
    results = 0
    for at, block in read_blocks(turn.content, "user", place):
        if isinstance(block, ToolResult):
            results += 1
            yield _result(block, at)
        else:
            parts.append(_part(block, at))
    if parts or not results:
        yield Message(role="user", content=_content(parts))


def _result(block: ToolResult, place: str) -> Message:
    parts = _texts(block.content, "tool_result", f"{place}.content")
    if block.is_error:
        # Chat has no flag for it, and a model that is not told takes the text for a success.
        parts = parts or [ContentPart(type="text", text="")]
        parts[0].text = f"Error: {parts[0].text}".rstrip()
    return Message(
        role="tool",
        tool_call_id=block.tool_use_id,
        content=_content(parts),
        cache_control=block.cache_control,
    )


def _assistant(turn: Turn, place: str) -> Message:
    said = Message(role="assistant")
    parts, calls, thoughts, reasoning = [], [], [], ""
    for at, block in read_blocks(turn.content, "assistant", place):
        match block:
            case ToolUse():
                calls.append(_call(block))
                said.cache_control = block.cache_control or said.cache_control
            case ThinkingBlock():
                reasoning += block.thinking
                thoughts += [msgspec.to_builtins(block)] if block.signature else []
            case RedactedThinking():
                thoughts.append(msgspec.to_builtins(block))
            case _:
                parts.append(_part(block, at))
    said.content = _content(parts) if parts or not calls else None
    said.tool_calls = calls or None
    said.thinking_blocks = thoughts or None
    said.reasoning_content = reasoning or None
    return said


def _call(block: ToolUse) -> ToolCall:
    arguments = msgspec.json.encode(block.input).decode()
    return ToolCall(id=block.id, function=FunctionCall(name=block.name, arguments=arguments))


def _content(parts: list[ContentPart]) -> str | list[ContentPart]:
    """Text as a string where nothing is lost by it: not every upstream takes parts everywhere."""
    if not parts:
        return ""
    (first, *others) = parts
    if others or first.text is None or first.cache_control is not None:
        return parts
    return first.text


def _texts(content: str | list[Any] | None, where: str, place: str) -> list[ContentPart]:
    """The content of what may hold text alone."""
    return [_part(block, at) for at, block in read_blocks(content, where, place)]


def _part(block: Block, place: str) -> ContentPart:
    match block:
        case Text():
            return ContentPart(type="text", text=block.text, cache_control=block.cache_control)
        case Image():
            return _image(block)
        case Document():
            return _file(block, place)
    raise refused(f"{place}.type", "it is no content")


def _image(block: Image) -> ContentPart:
    source = block.source
    url = _data_url(source) if isinstance(source, Base64Source) else source.url
    image = ImageUrl(url=url)
    return ContentPart(type="image_url", image_url=image, cache_control=block.cache_control)


def _file(block: Document, place: str) -> ContentPart:
    if block.source.media_type != _PDF:
        raise refused(f"{place}.source.media_type", f"of documents chat takes {_PDF}")
    if block.citations is not None and block.citations.enabled:
        raise refused(f"{place}.citations", "chat does not tell where an answer is from")
    file = {"filename": block.title or "document.pdf", "file_data": _data_url(block.source)}
    return ContentPart(type="file", file=file, cache_control=block.cache_control)


def _data_url(source: Base64Source) -> str:
    return f"data:{source.media_type};base64,{source.data}"
