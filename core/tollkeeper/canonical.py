"""The one form between dialects: OpenAI's chat, as typed data.

A provider that speaks something else turns `ChatRequest` into its own shape, and its reply into
`ChatReply` or `ChatChunk`s; a dialect of clients does the reverse. Fields that only some dialects
know have the names that clients already use for them: `reasoning_content`, `thinking_blocks`,
`cache_control`, and `extra_content.google.thought_signature` on a tool call.

Shapes follow OpenAI's published API document. What is written is a superset of what it requires:
`refusal` and `logprobs` are there as null.
"""

from typing import Any, Literal

import msgspec

from tollkeeper.jsongate import invalid_field, read_object

JsonObject = dict[str, Any]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why a choice ended; nothing else may be written."""


class _Part(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Base of the data below: what is unset is not written."""


class ImageUrl(_Part, kw_only=True):
    """An image by address, or inline as a `data:` URL."""

    url: str
    detail: str | None = None


class ContentPart(_Part, kw_only=True):
    """One part of a message: `text`, `refusal`, `image_url`, `input_audio` or `file`."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | None = None
    input_audio: JsonObject | None = None
    file: JsonObject | None = None
    cache_control: JsonObject | None = None
    """Anthropic's prompt cache breakpoint."""


class FunctionCall(_Part, omit_defaults=False, kw_only=True):
    """A function's name, and its arguments as JSON text."""

    name: str
    arguments: str = ""


class ToolCall(_Part, omit_defaults=False, kw_only=True):
    """A call that the model asks for."""

    id: str
    type: str = "function"
    function: FunctionCall
    extra_content: JsonObject | msgspec.UnsetType = msgspec.UNSET
    """`{"google": {"thought_signature": ...}}`: to be sent back with the call."""


class Message(_Part, kw_only=True):
    """One message of a conversation."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    """What an assistant thought, as text."""
    thinking_blocks: list[JsonObject] | None = None
    """Anthropic's `thinking` and `redacted_thinking` blocks, signatures included."""
    cache_control: JsonObject | None = None
    audio: JsonObject | None = None
    function_call: JsonObject | None = None


class FunctionTool(_Part, kw_only=True):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(_Part, kw_only=True):
    """A tool; all but `function` belong to OpenAI alone."""

    type: str
    function: FunctionTool | None = None
    custom: JsonObject | None = None
    cache_control: JsonObject | None = None


class ResponseFormat(_Part, kw_only=True):
    """`text`, `json_object`, or `json_schema` with a name and a schema."""

    type: str
    json_schema: JsonObject | None = None


class ChatRequest(_Part, kw_only=True):
    """A request. `stop` and `max_tokens` stand as the client wrote them: see the properties."""

    model: str
    messages: list[Message]
    audio: JsonObject | None = None
    frequency_penalty: float | None = None
    function_call: str | JsonObject | None = None
    functions: list[JsonObject] | None = None
    logit_bias: JsonObject | None = None
    logprobs: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    metadata: JsonObject | None = None
    modalities: list[str] | None = None
    moderation: JsonObject | None = None
    n: int | None = None
    parallel_tool_calls: bool | None = None
    prediction: JsonObject | None = None
    presence_penalty: float | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JsonObject | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: str | None = None
    response_format: ResponseFormat | None = None
    safety_identifier: str | None = None
    seed: int | None = None
    service_tier: str | None = None
    stop: str | list[str] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: JsonObject | None = None
    temperature: float | None = None
    tool_choice: str | JsonObject | None = None
    tools: list[Tool] | None = None
    top_k: int | None = None
    """Not OpenAI's: Anthropic's and Gemini's, for clients of theirs."""
    top_logprobs: int | None = None
    top_p: float | None = None
    user: str | None = None
    verbosity: str | None = None
    web_search_options: JsonObject | None = None
    thinking: JsonObject | None = None
    """Not OpenAI's: Anthropic's, as it stands there."""

    @property
    def output_bound(self) -> int | None:
        """The most tokens the client wants, by either name."""
        bound = self.max_completion_tokens
        return self.max_tokens if bound is None else bound

    @property
    def stops(self) -> list[str]:
        """Stop sequences, one or many."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class PromptDetails(_Part, omit_defaults=False, kw_only=True):
    """What the prompt's tokens were."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class CompletionDetails(_Part, omit_defaults=False, kw_only=True):
    """What the completion's tokens were."""

    reasoning_tokens: int = 0


class ChatUsage(_Part, omit_defaults=False, kw_only=True):
    """Tokens. `prompt_tokens` includes cached ones, `completion_tokens` reasoning."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ReplyMessage(_Part, omit_defaults=False, kw_only=True):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    thinking_blocks: list[JsonObject] | msgspec.UnsetType = msgspec.UNSET


class Choice(_Part, omit_defaults=False, kw_only=True):
    """One of `n` answers."""

    index: int
    message: ReplyMessage
    logprobs: JsonObject | None = None
    finish_reason: FinishReason


class ChatReply(_Part, omit_defaults=False, kw_only=True):
    """A whole reply. `usage` is unset only where the upstream told none."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: ChatUsage | msgspec.UnsetType = msgspec.UNSET
    service_tier: str | msgspec.UnsetType = msgspec.UNSET


class FunctionDelta(_Part, kw_only=True):
    """A piece of a call's function: the name once, then pieces of the arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(_Part, kw_only=True):
    """A piece of a tool call; `id`, `type` and the name come once, in its first piece."""

    index: int
    id: str | None = None
    type: str | None = None
    function: FunctionDelta | None = None
    extra_content: JsonObject | None = None


class Delta(msgspec.Struct, kw_only=True):
    """What a chunk adds to a choice; what is unset adds nothing and is not written."""

    role: Literal["assistant"] | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType | None = msgspec.UNSET
    refusal: str | msgspec.UnsetType | None = msgspec.UNSET
    tool_calls: list[ToolCallDelta] | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    thinking_blocks: list[JsonObject] | msgspec.UnsetType = msgspec.UNSET


class ChunkChoice(_Part, omit_defaults=False, kw_only=True):
    """One choice's part of a chunk."""

    index: int
    delta: Delta
    logprobs: JsonObject | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(_Part, omit_defaults=False, kw_only=True):
    """One event of a stream. The one with `usage` has no choices and is the last."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: ChatUsage | msgspec.UnsetType = msgspec.UNSET


def read_chat(body: bytes) -> tuple[ChatRequest, list[str]]:
    """A request through the strict gate, and its top-level fields that chat does not know.

    Raises `Refused` that names the field at fault.
    """
    document = read_object(body)
    try:
        request = msgspec.convert(document, ChatRequest)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None
    return request, [name for name in document if name not in ChatRequest.__struct_fields__]
