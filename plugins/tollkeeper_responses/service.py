"""Conversations: items of the Responses API as messages of a chat, and as rows of the table."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import msgspec
import peewee

from tollkeeper import Refused, find_value, invalid_request
from tollkeeper.canonical import ContentPart, FunctionCall, ImageUrl, JsonObject, Message, ToolCall
from tollkeeper_responses.models import BATCH, Item, Kept, KeptItem, KeptResponse, Part
from tollkeeper_responses.reply import BAD_JSON, Carried

NATIVE = "only a provider that speaks the Responses API itself can take it"
"""Why something is refused that chat cannot express."""

FINAL = frozenset({"completed", "incomplete", "failed"})
"""Statuses of a response that is over and may be kept."""

MAX_LINKS = 1000
MAX_CONVERSATION = 16 * 1024 * 1024
"""Responses in a row, and bytes of what was said in them, that one request may build on."""

ValueT = TypeVar("ValueT")

_INPUT_PARTS = frozenset({"input_text", "output_text", "input_image", "input_file", "input_audio"})
_SAID_PARTS = frozenset({"input_text", "output_text", "refusal"})


def refused(param: str, why: str) -> Refused:
    """The refusal of a field that cannot be honoured."""
    return invalid_request(f"'{param}' cannot be honoured: {why}.", param=param)


def read_items(items: str | Sequence[Item]) -> list[Message]:
    """The messages that a request's input makes. Raises `Refused` that names the item at fault."""
    if isinstance(items, str):
        return [Message(role="user", content=items)]
    conversation = _Conversation()
    for index, item in enumerate(items):
        conversation.add(item, f"input[{index}]")
    conversation.settle_thoughts()
    return conversation.messages


class _Conversation:
    """The messages so far. What an assistant thinks, says and calls in one go is one message."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._thoughts: list[str] = []
        self._blocks: list[JsonObject] = []
        self._extras: dict[str, JsonObject] = {}

    def add(self, item: Item, place: str) -> None:
        """One more item."""
        match item.type:
            case "reasoning":
                self._think(item, place)
            case "function_call":
                self._call(item, place)
            case "function_call_output":
                self._result(item, place)
            case _:
                self._message(item, place)

    def settle_thoughts(self) -> None:
        """Thoughts that nothing came of belong to what was said before them."""
        if self._thoughts or self._blocks:
            message = self._speaking()
            message.content = message.content or ("" if not message.tool_calls else None)

    def _speaking(self) -> Message:
        """The assistant's message under way, a new one after somebody else's; with its thoughts."""
        if not self.messages or self.messages[-1].role != "assistant":
            self.messages.append(Message(role="assistant"))
        message = self.messages[-1]
        if self._thoughts:
            before = [message.reasoning_content] if message.reasoning_content else []
            message.reasoning_content = "\n\n".join([*before, *self._thoughts])
        if self._blocks:
            message.thinking_blocks = [*(message.thinking_blocks or ()), *self._blocks]
        self._thoughts, self._blocks = [], []
        return message

    def _think(self, item: Item, place: str) -> None:
        parts = item.content if isinstance(item.content, list) and item.content else item.summary
        self._thoughts += [part.text for part in parts or () if part.text]
        if item.encrypted_content:
            try:
                carried = Carried.unseal(item.encrypted_content)
            except ValueError as error:
                raise refused(f"{place}.encrypted_content", str(error)) from None
            self._blocks += carried.thinking_blocks
            self._extras |= carried.calls

    def _call(self, item: Item, place: str) -> None:
        call_id = _needed(item.call_id, f"{place}.call_id")
        function = FunctionCall(
            name=_needed(item.name, f"{place}.name"), arguments=item.arguments or ""
        )
        call = ToolCall(id=call_id, function=function)
        if (extra := self._extras.pop(call_id, None)) is not None:
            call.extra_content = extra
        message = self._speaking()
        message.tool_calls = [*(message.tool_calls or ()), call]

    def _result(self, item: Item, place: str) -> None:
        self.settle_thoughts()
        call_id = _needed(item.call_id, f"{place}.call_id")
        content = _content(item.output, f"{place}.output", _INPUT_PARTS)
        self.messages.append(Message(role="tool", tool_call_id=call_id, content=content))

    def _message(self, item: Item, place: str) -> None:
        kinds = _SAID_PARTS if item.role == "assistant" else _INPUT_PARTS
        content = _content(item.content, f"{place}.content", kinds)
        match item.role:
            case "user" | "system" | "developer":
                self.settle_thoughts()
                self.messages.append(Message(role=item.role, content=content))
            case "assistant":
                self._say(content)
            case _:
                raise refused(f"{place}.role", "it is none of user, assistant, system, developer")

    def _say(self, content: str | list[ContentPart]) -> None:
        """A message after calls joins theirs: chat wants their results right behind it."""
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == "assistant" and not last.tool_calls:
            self.messages.append(Message(role="assistant"))
        message = self._speaking()
        message.content = content if not message.content else _joined(message.content, content)


def _needed(value: ValueT | None, place: str) -> ValueT:
    if value is None:
        raise refused(place, "it is missing")
    return value


def _joined(one: str | list[ContentPart], other: str | list[ContentPart]) -> list[ContentPart]:
    return [*_as_parts(one), *_as_parts(other)]


def _as_parts(content: str | list[ContentPart]) -> list[ContentPart]:
    return [ContentPart(type="text", text=content)] if isinstance(content, str) else content


def _content(
    said: str | list[Part] | None, place: str, kinds: frozenset[str]
) -> str | list[ContentPart]:
    """What is said, as text where it is but one."""
    if said is None or isinstance(said, str):
        return _needed(said, place)
    parts = [_part(part, f"{place}[{index}]", kinds) for index, part in enumerate(said)]
    is_text = not parts or (len(parts) == 1 and parts[0].type == "text")
    return "".join(part.text or "" for part in parts) if is_text else parts


def _part(part: Part, place: str, kinds: frozenset[str]) -> ContentPart:
    if part.type not in kinds:
        raise refused(f"{place}.type", f"'{part.type[:64]}' cannot stand here")
    for name in ("file_id", "file_url"):
        if getattr(part, name) is not None:
            raise refused(f"{place}.{name}", NATIVE)
    if part.type == "input_image":
        image = ImageUrl(url=_needed(part.image_url, f"{place}.image_url"), detail=part.detail)
        return ContentPart(type="image_url", image_url=image)
    if part.type == "input_file":
        file = {"filename": part.filename} if part.filename else {}
        file["file_data"] = _needed(part.file_data, f"{place}.file_data")
        return ContentPart(type="file", file=file)
    if part.type == "input_audio":
        audio = _needed(part.input_audio, f"{place}.input_audio")
        return ContentPart(type="input_audio", input_audio=audio)
    if part.type == "refusal":
        return ContentPart(type="refusal", refusal=_needed(part.refusal, f"{place}.refusal"))
    return ContentPart(type="text", text=_needed(part.text, f"{place}.text"))


read_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
"""The items of an array as JSON."""


def input_of(body: bytes) -> list[msgspec.Raw]:
    """The items of a request's input; its text is a message of the user's."""
    span = find_value(body, b"input")
    said = body[span[0] : span[1]] if span is not None else b"null"
    if said.startswith(b'"'):
        return [msgspec.Raw(b'{"type":"message","role":"user","content":%b}' % said)]
    return read_raw(said) if said.startswith(b"[") else []


class Holding(NamedTuple):
    """What is remembered of a request until its response is known."""

    keeps: bool
    """Whether the response is to be kept."""
    previous: str | None
    """What the client asked to build on."""
    prepended: int
    """How many items of the input stand there for that."""


class _Response(msgspec.Struct):
    id: str
    status: str
    output: list[msgspec.Raw] = []


class _Item(msgspec.Struct):
    id: str | None = None


_read_response = msgspec.json.Decoder(_Response).decode
_read_item = msgspec.json.Decoder(_Item).decode


def kept_of(org: str, held: Holding, asked: bytes, response: bytes, moment: int) -> Kept | None:
    """The row for a response to the request `asked`; None for one that is not over."""
    try:
        told, text = _read_response(response), response.decode()
    except BAD_JSON:
        return None
    if told.status not in FINAL:
        return None
    own = msgspec.json.encode(input_of(asked)[held.prepended :]).decode()
    return Kept(org, told.id, held.previous, own, text, moment, tuple(_items(told.output)))


def _items(output: list[msgspec.Raw]) -> Iterator[tuple[str, str]]:
    """Those that have an id, which clients may later send in their place."""
    for raw in output:
        with suppress(msgspec.ValidationError):
            if item_id := _read_item(raw).id:
                yield item_id, bytes(raw).decode()


def save(database: Any, rows: Sequence[Kept]) -> None:  # noqa: ANN401 -- peewee\'s
    """Keep responses; one of the same id takes the place of the one before."""
    values = [row[: len(_COLUMNS)] for row in rows]
    KeptResponse.insert_many(values, _COLUMNS).on_conflict_replace().execute(database)
    items = [(row.org, item_id, row.id, item) for row in rows for item_id, item in row.items]
    for batch in peewee.chunked(items, BATCH):
        KeptItem.insert_many(batch, _ITEM_COLUMNS).on_conflict_replace().execute(database)


def find(database: Any, org: str, response_id: str) -> Kept | None:  # noqa: ANN401 -- peewee\'s
    """A kept response of this org."""
    rows = KeptResponse.select(*_COLUMNS).where(_is(org, response_id)).tuples()
    for row in rows.execute(database):
        return Kept(*row)
    return None


def find_chain(database: Any, org: str, response_id: str) -> list[Kept]:  # noqa: ANN401 -- peewee\'s
    """A kept response and those that it builds on, the newest first, as far as they are kept."""
    chain: list[Kept] = []
    size, following = 0, response_id
    while following and len(chain) < MAX_LINKS and size < MAX_CONVERSATION:
        if (row := find(database, org, following)) is None:
            break
        chain.append(row)
        size += row.size
        following = row.previous or ""
    return chain


def find_items(database: Any, org: str, ids: Sequence[str]) -> dict[str, str]:  # noqa: ANN401 -- peewee\'s
    """Of these items those that this org's kept responses say, by their ids; not too many."""
    found: dict[str, str] = {}
    size = 0
    for batch in peewee.chunked(ids, BATCH):
        wanted = (KeptItem.org == org) & KeptItem.id.in_(batch)
        rows = KeptItem.select(KeptItem.id, KeptItem.item).where(wanted).tuples()
        for item_id, item in rows.execute(database):
            found[item_id] = item
            size += len(item)
            if size > MAX_CONVERSATION:
                return found
    return found


def delete(database: Any, org: str, response_id: str) -> bool:  # noqa: ANN401 -- peewee\'s
    """Delete a response. False when this org has none of that id."""
    return bool(KeptResponse.delete().where(_is(org, response_id)).execute(database))


def delete_older(database: Any, moment: int) -> int:  # noqa: ANN401 -- peewee\'s
    """Delete what was kept before some Unix time; how many those were."""
    return int(KeptResponse.delete().where(KeptResponse.created_at < moment).execute(database))


_COLUMNS = [getattr(KeptResponse, name) for name in Kept._fields if name != "items"]
_ITEM_COLUMNS = [KeptItem.org, KeptItem.id, KeptItem.response, KeptItem.item]


def _is(org: str, response_id: str) -> Any:  # noqa: ANN401
    return (KeptResponse.org == org) & (KeptResponse.id == response_id)
