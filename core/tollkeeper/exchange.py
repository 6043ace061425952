"""The plain data of a call: what one request is and all that becomes of it. No I/O in here."""

import itertools
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from tollkeeper.errors import ApiError
from tollkeeper.settings import PriceSettings

if TYPE_CHECKING:
    from tollkeeper.dialect import Dialect
    from tollkeeper.shapes import Shape

_PROCESS = secrets.token_hex(8)
_NUMBERS = itertools.count(1)


def new_request_id() -> str:
    """An id for a request: in its log lines and its reply. Unique, and no secret."""
    return f"req_{_PROCESS}{next(_NUMBERS):08x}"


def new_attempt_id() -> str:
    """An id for an attempt, which goes upstream with it. Unique, and no secret."""
    return f"att_{_PROCESS}{next(_NUMBERS):08x}"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who called. Written by the first `authenticate` that recognises the credential."""

    org: str
    """Id of the organization that pays."""
    key: str | None = None
    """Id of the virtual key, None for an anonymous caller."""
    name: str = "anonymous"
    """What people call the key."""
    rpm: int | None = None
    """Requests per minute granted to this key instead of the general setting."""
    models: frozenset[str] | None = None
    """The models it may ask for, None for all."""


ANONYMOUS = Principal(org="default")
"""The caller while no auth plugin is on."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One (provider, upstream model, price) that can serve a model that clients ask for."""

    alias: str
    """The name that clients ask for."""
    provider: str
    """Name of the provider's table in the TOML."""
    kind: str
    """Which provider plugin speaks to it."""
    model: str
    """The name the upstream knows."""
    weight: int = 1
    """Share of the traffic that tries this one first; 0 serves as a fallback only."""
    price: PriceSettings | None = None
    """US dollars per million tokens; None where the TOML names none."""
    max_output: int | None = None
    """Output tokens that a call is bound to where it names no bound but must have one."""
    base_url: str = ""
    """Where its provider is."""
    drain_usd: Decimal = Decimal(0)
    """US dollars of output that a stream of its provider is read on for without a client."""

    @property
    def name(self) -> str:
        """How logs and headers call it."""
        return f"{self.provider}/{self.model}"


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one attempt, and how they are known."""

    input_tokens: int
    """All input, that from and to a cache included."""
    output_tokens: int
    """All output, reasoning included."""
    cache_read_tokens: int = 0
    """Input that came from a prompt cache."""
    cache_write_tokens: int = 0
    """Input that was written to a prompt cache."""
    reasoning_tokens: int = 0
    """Output that the client does not see."""
    evidence: Literal["provider", "counted", "estimated"] = "provider"
    """Told by the provider, counted from what passed, or estimated."""


OutcomeKind = Literal["completed", "refused", "failed", "gone", "stopped"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an exchange ended.

    `completed`: the client gets the whole reply. `refused`: we said no. `failed`: something
    broke, before or in the middle of the reply. `gone`: the client left. `stopped`: the gateway
    shut down first.
    """

    kind: OutcomeKind
    """Which of the five."""
    status: int = 0
    """HTTP status that the client saw; 0 when none was sent."""
    error: ApiError | None = None
    """What the client was told, for `refused` and `failed`."""


class Reply(Protocol):
    """What an upstream answered, before or while its body arrives."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""

    async def read(self) -> bytes:
        """The whole body; raises `UpstreamError` when it does not arrive whole."""

    async def chunk(self) -> bytes:
        """The next bytes of the body, `b""` at its clean end; raises `UpstreamError`."""

    @property
    def closed(self) -> bool:
        """Whether nothing is left to give up."""

    async def aclose(self) -> None:
        """Give the connection up. Safe to call twice, and after an error."""


class Attempt(msgspec.Struct):
    """One try at one deployment. Made by the core; `id` goes upstream with the request."""

    deployment: Deployment
    """What is tried."""
    number: int
    """1 for the first try of the exchange."""
    started: float
    """Monotonic seconds."""
    id: str = msgspec.field(default_factory=new_attempt_id)
    """Unique; goes upstream as `x-client-request-id`."""
    holds: dict[str, object] = msgspec.field(default_factory=dict)
    """What each plugin's `attempt` reserved, under the plugin's name; popped by it in settle."""
    operation: "Operation | None" = None
    """What is asked of the provider: the client's operation, or chat where it is translated."""
    body: bytes = b""
    """The request in that operation's dialect, under the name that the client asked for."""
    dropped: list[str] = msgspec.field(default_factory=list)
    """Parameters that the provider could not honour and that did not go upstream."""
    sent: bool = False
    """True from the moment bytes may have gone upstream."""
    status: int = 0
    """HTTP status of the upstream; 0 while it has not answered."""
    error: Exception | None = None
    """Why it came to nothing, if it did."""
    answered: bool = False
    """Whether anything of the reply's body has come."""
    seen_tokens: int = 0
    """Output tokens that certainly came, to count by where no usage does."""
    bound: int | None = None
    """Output tokens that it must be bound to, whoever named the bound; None where nobody must."""
    drain_tokens: int | None = None
    """Output tokens that may be read on once the client has left; None for any number."""
    usage_data: bytes = b""
    """The provider's own usage object as JSON, when it reached us whole."""
    usage: Usage | None = None
    """What the provider told, believed; what `measure` says instead, once it was asked."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a tap sees: one event of a stream, or the whole body of a plain reply."""

    data: bytes
    """The JSON: what stands behind `data:`, or the body."""
    raw: bytes = b""
    """The bytes as they came, line ends included; empty for an event that a tap made."""


Tap = Callable[[Event | None], Iterable[Event]]
"""Called with each event, and once with None at a clean end; returns what goes on."""


@dataclass(slots=True)
class Head:
    """Status and headers of the reply to the client. `reply` hooks may add headers."""

    status: int
    """HTTP status; not to be changed."""
    headers: dict[str, str]
    """Names in lower case, values without line breaks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply made here, without an upstream: by `respond`, or by an operation of its own."""

    body: bytes
    """The whole body."""
    status: int = 200
    """HTTP status."""
    content_type: str = "application/json"
    """Of the body."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A call that clients make: one method and path, run through every stage.

    `path` may end in `{name}`, which takes the rest of the path, slashes included. With `answer`
    the operation has no upstream: it is called once `respond` had no answer.
    """

    name: str
    """What logs call it."""
    method: str
    """HTTP method, in capitals."""
    path: str
    """Of the URL, with `{name}` at its end where the rest is a value."""
    dialect: "Dialect | None" = None
    """How its bodies are read; None for one without a model."""
    answer: "Callable[[Exchange], Answer] | None" = None
    """Answers here, without an upstream; may raise `Refused`."""
    metered: bool = True
    """Whether providers ask money for it."""
    shape: "Shape | None" = field(default=None, compare=False)
    """What it takes and answers, for the API reference."""
    summary: str = ""
    """One line for the reference."""


class Exchange(msgspec.Struct):
    """One call of an operation. Each field has one writer, named with it."""

    operation: Operation
    """core, from the head"""
    path_value: str
    """core: what `{name}` in the path matched, percent-decoded"""
    headers: Mapping[str, str]
    """core: request headers, names in lower case"""
    client: str
    """core: address of the peer"""
    arrived: float
    """core: monotonic seconds"""
    id: str = msgspec.field(default_factory=new_request_id)
    """core; sent to the client as `x-request-id`"""
    principal: Principal = ANONYMOUS
    """`authenticate`"""
    body: bytes = b""
    """core, then `transform_request`"""
    model: str = ""
    """core, peeked from the body: the name the client asked for"""
    stream: bool = False
    """core, peeked from the body"""
    wants_usage: bool = False
    """core, peeked from the body: whether the client wants to see the usage of its stream"""
    max_output: int | None = None
    """core, peeked from the body: output tokens that each answer is bound to by the client"""
    answers: int = 1
    """core, peeked from the body: how many answers are asked for"""
    holds: dict[str, object] = msgspec.field(default_factory=dict)
    """`admit`, each plugin under its own name; popped by it in settle"""
    candidates: tuple[Deployment, ...] = ()
    """core: the configured deployments of the model, in the order of the TOML"""
    deployments: tuple[Deployment, ...] = ()
    """`route`: what to try, best first"""
    deployment: Deployment | None = None
    """core: the first of them; then a `wrap_send` that tries another"""
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    """core"""
    replies: list[Reply] = msgspec.field(default_factory=list)
    """core: each reply before anyone sees it; the owner closes what is here"""
    patience: float = 0.0
    """core: seconds that the upstream is read on once the client has left; 0 stops it at once"""
    client_left: bool = False
    """core"""
    outcome: Outcome | None = None
    """core, just before settle"""
