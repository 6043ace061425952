"""The tables of `tollkeeper.toml` as frozen, typed settings.

A field declared here, or in the `Settings` of a plugin, is declared once: the example file, the
JSON Schema, the reference page and `tollkeeper check` all follow from it. Field descriptions are
therefore written for the person who edits the TOML.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema


class Secret:
    """A string that no log, message or repr can show; `reveal()` is the one way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself. Call it where it is used, never where it is stored."""
        return self._value

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$"),
            serialization=core_schema.to_string_ser_schema(),
        )


class Table(BaseModel):
    """A table of the TOML: unknown keys are errors, values keep their type, nothing changes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


def _seconds(value: object) -> object:
    return float(value) if isinstance(value, (int, Decimal)) and value is not True else value


def _money(value: object) -> object:
    if isinstance(value, str):
        try:
            return Decimal(value)
        except InvalidOperation:
            return value
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value


_SIZE = re.compile(r"(\d+) ?(B|KiB|MiB|GiB)?")
_UNITS = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def _size(value: object) -> object:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise ValueError('a size is a number of bytes or text such as "16MiB"')
        return int(match.group(1)) * _UNITS[match.group(2)]
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
"""A duration in seconds, whole or not, above 0."""
Size = Annotated[
    int,
    BeforeValidator(_size, json_schema_input_type=int | str),
    Field(gt=0),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
]
"""Bytes: a number, or text with a unit (B, KiB, MiB, GiB)."""
Money = Annotated[
    Decimal,
    BeforeValidator(_money, json_schema_input_type=str),
    Field(ge=0, allow_inf_nan=False),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]
"""US dollars as an exact decimal: text or a TOML number."""


def split_bind(bind: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`. Raises ValueError."""
    host, colon, port = bind.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("an address is host:port or [v6]:port")
    return host.strip("[]"), int(port)


def _checked_bind(bind: str) -> str:
    split_bind(bind)
    return bind


def _checked_url(url: str) -> str:
    if url and not re.fullmatch(r"https?://[^\s?#@]+", url):
        raise ValueError("must begin with http:// or https://, without user, query and fragment")
    return url


class ServerSettings(Table):
    """Where tollkeeper listens, and what it accepts."""

    bind: Annotated[str, AfterValidator(_checked_bind)] = "127.0.0.1:8080"
    """Address and port, `host:port` or `[v6]:port`; port 0 takes any free one."""
    open: bool = False
    """Allow an address beyond loopback although no plugin that authenticates is on."""
    max_body: Size = 16 * 1024**2
    """Largest request body, in bytes or with a unit."""
    max_connections: int = Field(default=10000, ge=1)
    """Open client connections; further ones are answered 503."""
    body_timeout: Seconds = 30.0
    """Seconds a client has to send its whole body."""
    write_timeout: Seconds = 30.0
    """Seconds a client may leave a write untouched before it counts as gone."""
    keep_alive_timeout: Seconds = 75.0
    """Seconds a connection may wait idle for its next request, or take to send a whole head."""
    grace: Seconds = 30.0
    """Seconds that running exchanges get to end at shutdown."""
    access_log: bool = False
    """Write one JSON line per exchange to standard error."""


class StorageSettings(Table):
    """Where run-time data is kept, such as organizations and keys."""

    url: str = "sqlite:///tollkeeper.db"
    """`sqlite:///FILE`, or `sqlite:///:memory:` for data that ends with the process."""


class ProviderSettings(Table):
    """A place to send requests. `kind` names the provider plugin that speaks to it."""

    kind: str
    """Which provider plugin speaks to it."""
    base_url: Annotated[str, AfterValidator(_checked_url)] = ""
    """Where it is, as its own SDK takes it."""
    credential: Secret | None = None
    """Our secret there, usually `"${NAME_OF_A_VARIABLE}"`."""
    preset: str = ""
    """Which service it is, for plugins that know the quirks of several."""
    api_version: str = ""
    """Version of the provider's interface, where it wants one; empty for the plugin's default."""
    unsupported: Literal["refuse", "drop"] = "refuse"
    """A parameter that the provider cannot honour: refuse the request, or drop and list it."""
    timeout: Seconds = 600.0
    """Seconds from the first byte sent to the last byte received."""
    connect_timeout: Seconds = 10.0
    """Seconds to open a connection."""
    first_byte_timeout: Seconds = 600.0
    """Seconds from the request to the head of the reply."""
    idle_timeout: Seconds = 120.0
    """Seconds between two reads of a reply."""
    on_disconnect: Literal["drain", "cancel", "estimate"] | None = None
    """When the client leaves: read on for the usage, stop the upstream, or stop it and count what
    was seen. Drains where usage is metered, cancels where it is not."""
    drain_seconds: Seconds = 60.0
    """Seconds that a reply is read on after its client left."""
    drain_usd: Money = Decimal("0.50")
    """US dollars of output that a stream is read on for after its client left."""


class DeploymentSettings(Table):
    """One provider and upstream model that can serve a model."""

    provider: str
    """Name of a `[providers.*]` table."""
    model: str
    """The name the upstream knows."""
    weight: int = Field(default=1, ge=0, le=1_000_000)
    """Share of the traffic that tries this one first; 0 serves as a fallback only."""


class TierSettings(Table):
    """Prices that replace the base ones once a request has more input tokens than `above`."""

    above: int = Field(ge=1)
    """Input tokens from which on this tier counts, exclusive."""
    input: Money
    """Per million input tokens."""
    output: Money
    """Per million output tokens."""
    cache_read: Money | None = None
    """Per million input tokens read from a prompt cache."""
    cache_write: Money | None = None
    """Per million input tokens written to a prompt cache."""


class PriceSettings(Table):
    """US dollars per million tokens."""

    input: Money
    """Per million input tokens."""
    output: Money
    """Per million output tokens."""
    cache_read: Money | None = None
    """Per million input tokens read from a prompt cache."""
    cache_write: Money | None = None
    """Per million input tokens written to a prompt cache."""
    tiers: tuple[TierSettings, ...] = Field(default=(), strict=False)
    """Other prices for long inputs, lowest bound first."""


class ModelSettings(Table):
    """A model that clients ask for, and what serves it."""

    deployments: tuple[DeploymentSettings, ...] = Field(min_length=1, strict=False)
    """What can serve it, first choice first."""
    price: PriceSettings | None = None
    """What it costs; shown by `/v1/models`."""
    max_output: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Output tokens that a call is bound to where a budget needs a bound and it names none."""
    owned_by: str = ""
    """Shown by `/v1/models`; the provider's kind when empty."""
    created: int = Field(default=1735689600, ge=0)
    """Unix seconds, shown by `/v1/models`."""


class PluginSettings(Table):
    """Base of a plugin's `Settings`: the table `[plugins.<name>]`."""

    enabled: Literal[True] = True
    """Whether the plugin is on. A plugin that is off is not imported."""
