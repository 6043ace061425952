"""The shapes of data: what clients ask, what chat replies, and the table of kept responses.

Of requests and replies only what is acted on is named. Sources: OpenAI's Responses API and its
chat completions, with the fields that other providers add to them.
"""

from typing import NamedTuple

import msgspec
import peewee
import trio

from tollkeeper.canonical import JsonObject

MAX_PENDING = 1000
MAX_PENDING_SIZE = 64 * 1024 * 1024
"""Responses, and characters of them, that may wait for the table."""
BATCH = 100
"""Responses, or items of them, that one statement writes or looks for."""

WriteError = peewee.PeeweeException
"""What a write raises that the database cannot take now."""


class KeptResponse(peewee.Model):
    """One response that an org can read back, with the input items that it answers."""

    org = peewee.CharField()
    id = peewee.CharField()
    previous = peewee.CharField(null=True)
    input = peewee.TextField()
    response = peewee.TextField()
    created_at = peewee.IntegerField(index=True)

    class Meta:
        table_name = "responses_response"
        primary_key = peewee.CompositeKey("org", "id")


class KeptItem(peewee.Model):
    """One item that a kept response says. Its row goes with that of the response."""

    org = peewee.CharField()
    id = peewee.CharField()
    response = peewee.CharField()
    item = peewee.TextField()

    class Meta:
        table_name = "responses_item"
        primary_key = peewee.CompositeKey("org", "id")


class Kept(NamedTuple):
    """A kept response as plain data; `input` and `response` are JSON."""

    org: str
    id: str
    previous: str | None
    input: str
    response: str
    created_at: int
    items: tuple[tuple[str, str], ...] = ()
    """Ids and JSON of the items that it says, to be written; not read back with it."""

    @property
    def size(self) -> int:
        """Characters of its JSON."""
        return len(self.input) + len(self.response) + sum(len(item) for _, item in self.items)


class Pending:
    """Responses on their way to the table, found by whoever asks for one meanwhile."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Kept] = {}
        self._items: dict[tuple[str, str], str] = {}
        self._size = 0
        self._filled = trio.Event()

    def add(self, row: Kept) -> bool:
        """Take one in; False where too many wait."""
        if len(self._rows) >= MAX_PENDING or self._size + row.size > MAX_PENDING_SIZE:
            return False
        self.pop(row.org, row.id)
        self._rows[row.org, row.id] = row
        self._items |= {(row.org, item_id): item for item_id, item in row.items}
        self._size += row.size
        self._filled.set()
        return True

    def get(self, org: str, response_id: str) -> Kept | None:
        """One that waits."""
        return self._rows.get((org, response_id))

    def find_items(self, org: str, ids: set[str]) -> dict[str, str]:
        """Of these items those that wait, by their ids."""
        return {each: self._items[org, each] for each in ids if (org, each) in self._items}

    def pop(self, org: str, response_id: str) -> bool:
        """Forget one; whether it was there."""
        row = self._rows.pop((org, response_id), None)
        if row is None:
            return False
        self._size -= row.size
        for item_id, item in row.items:
            if self._items.get((org, item_id)) is item:
                del self._items[org, item_id]
        return True

    def batch(self) -> list[Kept]:
        """The oldest that wait."""
        return list(self._rows.values())[:BATCH]

    def written(self, rows: list[Kept]) -> None:
        """Forget what is in the table now, but not what has taken its place meanwhile."""
        for row in rows:
            if self.get(row.org, row.id) is row:
                self.pop(row.org, row.id)
        if not self._rows:
            self._filled = trio.Event()

    async def wait_filled(self) -> None:
        """Wait until there is something to write."""
        await self._filled.wait()


class Part(msgspec.Struct, kw_only=True):
    """A part of what an item says."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: JsonObject | None = None


class Item(msgspec.Struct, kw_only=True):
    """An item of the input; one without a type is a message."""

    type: str = "message"
    role: str | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None


class FunctionTool(msgspec.Struct, kw_only=True):
    """A function that the model may call."""

    type: str
    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Format(msgspec.Struct, kw_only=True):
    """The form that the text is to have."""

    type: str
    name: str | None = None
    description: str | None = None
    schema: JsonObject | None = None
    strict: bool | None = None


class Text(msgspec.Struct):
    """What is said of the text that is wanted."""

    format: Format | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct):
    """What is said of the thoughts that are wanted."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class StreamOptions(msgspec.Struct):
    """Options of a stream."""

    include_obfuscation: bool | None = None


class Asking(msgspec.Struct, kw_only=True):
    """A request, as far as chat can express it."""

    model: str
    input: str | list[Item]
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    include: list[str] | None = None
    max_output_tokens: int | None = None
    metadata: JsonObject | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JsonObject | None = None
    prompt_cache_retention: str | None = None
    reasoning: Reasoning | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    temperature: float | None = None
    text: Text | None = None
    tool_choice: str | JsonObject | None = None
    tools: list[FunctionTool] | None = None
    top_logprobs: int | None = None
    top_p: float | None = None
    user: str | None = None


class Function(msgspec.Struct, gc=False):
    """A called function, or a piece of it."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct):
    """A tool call, or a piece of it."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None
    extra_content: JsonObject | None = None


class Said(msgspec.Struct):
    """What a chat's message or delta says."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[JsonObject] | None = None
    tool_calls: list[Call] | None = None


class Token(msgspec.Struct, gc=False):
    """A token and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list["Token"] = []


class Logprobs(msgspec.Struct):
    """The tokens of what was said."""

    content: list[Token] | None = None


class Choice(msgspec.Struct):
    """One answer: whole in `message`, a piece of it in `delta`."""

    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Details(msgspec.Struct):
    """What the tokens were."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens as chat tells them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None


class Chat(msgspec.Struct):
    """A chat's reply or one chunk of it."""

    model: str = ""
    choices: list[Choice] = []
    usage: Usage | None = None
    service_tier: str | None = None
    error: object = None
