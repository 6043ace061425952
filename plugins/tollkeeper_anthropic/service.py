"""The conversation of a chat as Anthropic takes it: system text, and turns made of blocks.

Source: Anthropic's Messages API, version 2023-06-01. What a message holds is never dropped: what
cannot be said there is refused, with the message's place as the parameter.
"""

import re
from collections.abc import Iterator
from zlib import crc32

from tollkeeper import Refused, Unsupported, invalid_request
from tollkeeper.canonical import ContentPart, JsonObject, Message, ToolCall
from tollkeeper.jsongate import read_object

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[^;,]*)*;base64,(.*)", re.DOTALL)
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF = "application/pdf"

_SYSTEM_PARTS = frozenset({"text"})
_ASSISTANT_PARTS = frozenset({"text", "refusal"})
_USER_PARTS = frozenset({"text", "image_url", "file"})


def read_conversation(
    messages: list[Message], unsupported: Unsupported
) -> tuple[list[JsonObject], list[JsonObject]]:
    """The blocks of `system`, and the turns: user first, no role twice in a row.

    Raises `Refused` for a message that cannot be told; hints that are lost go to `unsupported`.
    """
    system: list[JsonObject] = []
    turns: list[JsonObject] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        _note_hints(message, unsupported)
        blocks = _marked(_blocks(message, place), message.cache_control)
        if message.role in ("system", "developer"):
            system += blocks
        elif blocks:
            role = "assistant" if message.role == "assistant" else "user"
            if not turns and role == "assistant":
                raise _bad(f"{place}.role", "Anthropic lets the user speak first")
            _add(turns, role, blocks)
    if not turns:
        raise _bad("messages", "Anthropic needs a message of the user that is not empty")
    _finish(turns)
    return system, turns


def _add(turns: list[JsonObject], role: str, blocks: list[JsonObject]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _finish(turns: list[JsonObject]) -> None:
    """Tool results before all else in their turn, and no space behind the last word of all."""
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    last = turns[-1]["content"][-1]
    if turns[-1]["role"] == "assistant" and last["type"] == "text":
        turns[-1]["content"][-1] = {**last, "text": last["text"].rstrip()}


def _note_hints(message: Message, unsupported: Unsupported) -> None:
    if message.name is not None and message.role != "tool":
        unsupported.ignore("messages[].name")
    if message.reasoning_content and not message.thinking_blocks:
        unsupported.ignore("messages[].reasoning_content")  # worth nothing without a signature
    if not all(map(_is_ours, message.thinking_blocks or ())):
        unsupported.ignore("messages[].thinking_blocks")
    parts = message.content if isinstance(message.content, list) else []
    details = {part.image_url.detail for part in parts if part.image_url is not None}
    if details - {None, "auto"}:
        unsupported.ignore("messages[].content[].image_url.detail")


def _blocks(message: Message, place: str) -> list[JsonObject]:
    if message.role == "tool":
        return [_tool_result(message, place)]
    if message.role == "assistant":
        return _assistant(message, place)
    if message.role == "function":
        raise _bad(f"{place}.role", "Anthropic has no such role; tools take its place")
    kinds = _USER_PARTS if message.role == "user" else _SYSTEM_PARTS
    return _contents(message.content, place, kinds)


def _assistant(message: Message, place: str) -> list[JsonObject]:
    for name in ("audio", "function_call"):
        if getattr(message, name) is not None:
            raise _bad(f"{place}.{name}", "Anthropic has nothing like it")
    blocks = [*_thoughts(message, place), *_contents(message.content, place, _ASSISTANT_PARTS)]
    if message.refusal:
        blocks += _worth_saying([{"type": "text", "text": message.refusal}])
    for index, call in enumerate(message.tool_calls or ()):
        blocks.append(_tool_use(call, f"{place}.tool_calls[{index}]"))
    return blocks


def _thoughts(message: Message, place: str) -> Iterator[JsonObject]:
    for index, block in enumerate(message.thinking_blocks or ()):
        if block.get("type") not in ("thinking", "redacted_thinking"):
            raise _bad(f"{place}.thinking_blocks[{index}].type", "it is no block of thoughts")
        if _is_ours(block):
            yield {name: value for name, value in block.items() if name != "index"}


def _is_ours(block: JsonObject) -> bool:
    """Whether a block of thoughts can be Anthropic's, whose signatures are base64."""
    signature = block.get("signature")
    return not isinstance(signature, str) or ":" not in signature


def _tool_use(call: ToolCall, place: str) -> JsonObject:
    arguments: JsonObject = {}
    if call.function.arguments.strip():
        try:
            arguments = read_object(call.function.arguments.encode())
        except Refused as error:
            raise _bad(f"{place}.function.arguments", error.message) from None
    name = call.function.name
    return {"type": "tool_use", "id": clean_id(call.id), "name": name, "input": arguments}


def _tool_result(message: Message, place: str) -> JsonObject:
    if not message.tool_call_id:
        raise _bad(f"{place}.tool_call_id", "it says which call this is the result of")
    result: JsonObject = {"type": "tool_result", "tool_use_id": clean_id(message.tool_call_id)}
    if content := _contents(message.content, place, _USER_PARTS):
        result["content"] = content
    return result


def clean_id(call_id: str) -> str:
    """A tool call's id in the characters Anthropic allows; different ids stay different."""
    if _ID.fullmatch(call_id):
        return call_id
    return f"{re.sub('[^a-zA-Z0-9_-]', '_', call_id)}_{crc32(call_id.encode()):08x}"


def _contents(
    content: str | list[ContentPart] | None, place: str, kinds: frozenset[str]
) -> list[JsonObject]:
    """What a message says, without text that says nothing, which Anthropic refuses."""
    if isinstance(content, str):
        return _worth_saying([{"type": "text", "text": content}])
    parts = enumerate(content or ())
    return _worth_saying([_part(part, f"{place}.content[{n}]", kinds) for n, part in parts])


def _worth_saying(blocks: list[JsonObject]) -> list[JsonObject]:
    return [block for block in blocks if block["type"] != "text" or block["text"].strip()]


def _marked(blocks: list[JsonObject], cache_control: JsonObject | None) -> list[JsonObject]:
    """`blocks` with a breakpoint of the prompt cache behind the last."""
    if not blocks or cache_control is None:
        return blocks
    return [*blocks[:-1], {**blocks[-1], "cache_control": cache_control}]


def _part(part: ContentPart, place: str, kinds: frozenset[str]) -> JsonObject:
    if part.type not in kinds:
        why = f"Anthropic takes no part of type '{part.type[:64]}' here"
        raise _bad(f"{place}.type", why)
    if part.type == "image_url":
        block = _image(part, place)
    elif part.type == "file":
        block = _document(part, place)
    else:
        text = part.text if part.type == "text" else part.refusal
        if text is None:
            raise _bad(f"{place}.{part.type}", "it must be text")
        block = {"type": "text", "text": text}
    return _marked([block], part.cache_control)[0]


def _image(part: ContentPart, place: str) -> JsonObject:
    url = part.image_url.url if part.image_url is not None else ""
    if url.startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    data = _DATA_URL.fullmatch(url)
    if data is None or data[1] not in _IMAGES:
        raise _bad(
            f"{place}.image_url.url", "it must be http(s), or base64 of JPEG, PNG, GIF, WebP"
        )
    return {"type": "image", "source": _base64(data[1], data[2])}


def _document(part: ContentPart, place: str) -> JsonObject:
    file = part.file or {}
    content = file.get("file_data")
    if not isinstance(content, str) or not content:
        raise _bad(
            f"{place}.file", "only a file in file_data can be sent, not one stored elsewhere"
        )
    data = _DATA_URL.fullmatch(content)
    kind, text = (data[1], data[2]) if data else (_PDF, content)
    if kind != _PDF or ":" in text:
        raise _bad(f"{place}.file.file_data", "it must be a PDF in base64")
    block = {"type": "document", "source": _base64(kind, text)}
    name = file.get("filename")
    return {**block, "title": name} if isinstance(name, str) and name else block


def _base64(media_type: str, data: str) -> JsonObject:
    return {"type": "base64", "media_type": media_type, "data": data}


def _bad(param: str, why: str) -> Refused:
    return invalid_request(f"'{param}' cannot be sent: {why.removesuffix('.')}.", param=param)
