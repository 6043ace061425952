"""What a chat replies, read, and the response and its items, written. Pure but for ids.

Source: OpenAI's Responses API; every field that its published document requires is written. Items
are written as JSON at once: the same one stands in several events of a stream.
"""

import base64
import secrets
from dataclasses import dataclass, field

import msgspec

from tollkeeper import Refused, UpstreamError, broken, quote
from tollkeeper.canonical import JsonObject
from tollkeeper.jsongate import read_object
from tollkeeper_responses.models import Chat, Details, Token, Usage

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON of the wrong shape raises."""

_REASONS = {"length": b"max_output_tokens", "content_filter": b"content_filter"}
"""Why a response is incomplete, by the chat's finish reason."""


class _Error(msgspec.Struct):
    code: int | str | None = None
    status: int | str | None = None


class _ErrorReply(msgspec.Struct):
    error: _Error


_decode_chat = msgspec.json.Decoder(Chat).decode
_decode_error = msgspec.json.Decoder(_ErrorReply).decode


def read_reply(data: bytes) -> Chat:
    """A chat's reply or chunk. Raises `UpstreamError` for an error in its place, and nonsense."""
    try:
        chat = _decode_chat(data)
    except BAD_JSON:
        raise broken("what came is no chat completion") from None
    if chat.error is not None:
        raise _error_of(data)
    return chat


def _error_of(data: bytes) -> UpstreamError:
    try:
        told = _decode_error(data).error
    except BAD_JSON:
        told = _Error()
    numbers = (n for n in (told.status, told.code) if isinstance(n, int) and 400 <= n <= 599)
    status = next(numbers, 200)
    return UpstreamError("status", "an error came with status 200", status=status, body=data)


class Frame:
    """What every form of one response shares: its ids, its date, and what it repeats.

    `model` is shown until a reply says its own; `echo` are the members that repeat the request.
    """

    def __init__(self, created: int, model: str, echo: bytes) -> None:
        self._token = secrets.token_hex(16)
        self._head = b'{"id":"resp_%b","object":"response","created_at":%d,"status":"' % (
            self._token.encode(),
            created,
        )
        self._echo = echo
        self.model = model
        self.usage: Usage | None = None
        self.service_tier: str | None = None

    def note(self, chat: Chat) -> None:
        """Take over what a reply or chunk says of itself; the last usage stands."""
        self.model = chat.model or self.model
        self.usage = chat.usage or self.usage
        self.service_tier = chat.service_tier or self.service_tier

    def item_id(self, prefix: str, index: int) -> str:
        """The id of the item at `index` of the output."""
        return f"{prefix}_{self._token}{index:04x}"

    def response(self, output: list[bytes], finish_reason: str | None) -> bytes:
        """The response as it stands; without a finish reason it is in progress."""
        reason = _REASONS.get(finish_reason or "")
        status = b"in_progress" if finish_reason is None else status_of(finish_reason)
        details = b"null" if reason is None else b'{"reason":"%b"}' % reason
        tier = (
            b"" if self.service_tier is None else b'"service_tier":%b,' % quote(self.service_tier)
        )
        return (
            b'%b%b","background":false,"error":null,"incomplete_details":%b,"model":%b,'
            b'"output":[%b],"usage":%b,%b%b}'
        ) % (
            self._head,
            status,
            details,
            quote(self.model),
            b",".join(output),
            write_usage(self.usage),
            tier,
            self._echo,
        )


def status_of(finish_reason: str) -> bytes:
    """Whether a response or its last item is completed or incomplete."""
    return b"incomplete" if finish_reason in _REASONS else b"completed"


def write_usage(usage: Usage | None) -> bytes:
    """Tokens as a response tells them; null where none were told."""
    if usage is None:
        return b"null"
    spent, made = usage.prompt_tokens or 0, usage.completion_tokens or 0
    into = usage.prompt_tokens_details or Details()
    out = usage.completion_tokens_details or Details()
    return (
        b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
        b'"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
    ) % (
        spent,
        into.cached_tokens or 0,
        into.cache_write_tokens or 0,
        made,
        out.reasoning_tokens or 0,
        spent + made,
    )


def write_tokens(tokens: list[Token]) -> bytes:
    """Tokens with their probabilities, and their bytes, which chat may leave out."""
    return msgspec.json.encode([_told(token) for token in tokens]) if tokens else b"[]"


def _told(token: Token) -> JsonObject:
    return {**_alone(token), "top_logprobs": [_alone(top) for top in token.top_logprobs]}


def _alone(token: Token) -> JsonObject:
    octets = list(token.token.encode()) if token.bytes is None else token.bytes
    return {"token": token.token, "logprob": token.logprob, "bytes": octets}


class Carried(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """What chat wants back and a response has no field for. Travels as `encrypted_content`."""

    thinking_blocks: list[JsonObject] = []
    """Anthropic's blocks of thoughts, with their signatures."""
    calls: dict[str, JsonObject] = {}
    """The `extra_content` of tool calls by their ids: Google's signatures."""

    def __bool__(self) -> bool:
        return bool(self.thinking_blocks or self.calls)

    def seal(self) -> bytes:
        """As base64 of JSON: opaque, not secret."""
        return base64.b64encode(msgspec.json.encode(self))

    @classmethod
    def unseal(cls, text: str) -> "Carried":
        """What `seal` wrote. Raises ValueError for anything else."""
        try:
            return msgspec.convert(read_object(base64.b64decode(text, validate=True)), cls)
        except (Refused, ValueError) as error:
            raise ValueError("it was not made here") from error


@dataclass(slots=True)
class Thoughts:
    """A reasoning item, whole or on its way."""

    id: str
    index: int
    pieces: list[str] = field(default_factory=list)
    carried: Carried = field(default_factory=Carried)

    @property
    def place(self) -> bytes:
        """Where its summary stands, as members of an event."""
        return _place(self.id, self.index) + b',"summary_index":0'

    @property
    def part(self) -> bytes:
        """Its summary."""
        return b'{"type":"summary_text","text":%b}' % quote("".join(self.pieces))

    def item(self) -> bytes:
        """As it stands."""
        summary = self.part if self.pieces else b""
        head = b'{"id":"%b","type":"reasoning","summary":[%b]' % (self.id.encode(), summary)
        sealed = b',"encrypted_content":"%b"' % self.carried.seal() if self.carried else b""
        return head + sealed + b"}"


@dataclass(slots=True)
class Part:
    """A part of a message: text, or a refusal."""

    place: bytes
    """Where it stands, as members of an event."""
    is_refusal: bool
    tokens: list[Token] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def written(self) -> bytes:
        """As it stands."""
        text = quote("".join(self.pieces))
        if self.is_refusal:
            return b'{"type":"refusal","refusal":%b}' % text
        tokens = write_tokens(self.tokens)
        head = b'{"type":"output_text","annotations":[],"logprobs":%b,"text":%b}'
        return head % (tokens, text)


@dataclass(slots=True)
class Message:
    """What the assistant says: parts that are over, and the one under way."""

    id: str
    index: int
    parts: list[bytes] = field(default_factory=list)
    part: Part | None = None

    def open_part(self, is_refusal: bool) -> Part:
        """Begin the next part."""
        place = b'%b,"content_index":%d' % (_place(self.id, self.index), len(self.parts))
        self.part = Part(place, is_refusal)
        return self.part

    def item(self, status: bytes) -> bytes:
        """As it stands."""
        head = b'{"id":"%b","type":"message","status":"%b","content":[%b],"role":"assistant"}'
        return head % (self.id.encode(), status, b",".join(self.parts))


@dataclass(slots=True)
class FunctionCall:
    """A function that the model calls."""

    id: str
    index: int
    call_id: str
    name: str
    pieces: list[str] = field(default_factory=list)
    open: bool = True

    @property
    def place(self) -> bytes:
        """Where it stands, as members of an event."""
        return _place(self.id, self.index)

    def item(self, status: bytes) -> bytes:
        """As it stands."""
        arguments = quote("".join(self.pieces))
        return (
            b'{"id":"%b","type":"function_call","status":"%b","arguments":%b,"call_id":%b,'
            b'"name":%b}'
        ) % (self.id.encode(), status, arguments, quote(self.call_id), quote(self.name))


def _place(item_id: str, index: int) -> bytes:
    return b'"item_id":"%b","output_index":%d' % (item_id.encode(), index)
