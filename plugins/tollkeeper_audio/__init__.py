"""Sound: `/v1/audio/speech`, `/v1/audio/transcriptions` and `/v1/audio/translations`, passed on."""

from tollkeeper import (
    Asked,
    ChunkReader,
    Dialect,
    Exchange,
    Gateway,
    Operation,
    PluginSettings,
    StreamReader,
    find_value,
    hookimpl,
    invalid_request,
)
from tollkeeper.shapes import NAME, STRING, Shape, obj
from tollkeeper_audio.service import read_fields, replace_field

_READ = frozenset({"model", "stream"})
_ENDS = (b"transcript.text.done", b"speech.audio.done")


class AudioReader(ChunkReader):
    """Pieces of text or sound, then one event that says it is done and tells the usage.

    Some servers send a transcription in chunks like those of chat instead.
    """

    def skim(self, events: bytes) -> int:
        """Nothing goes on unseen: which event is the last, its type tells."""
        return 0

    def event(self, data: bytes) -> bytes | None:
        """Note the last event."""
        kind = find_value(data, b"type")
        if kind is not None and data[kind[0] + 1 : kind[1] - 1] in _ENDS:
            self.ended = True
        return super().event(data)


class AudioDialect(Dialect):
    """Replies are JSON, text, subtitles, sound or events, as the client asked for."""

    name = "audio"
    json_only = False

    def reader(self, alias: bytes | None, *, wants_usage: bool = True) -> StreamReader:
        """What reads one stream of events."""
        return AudioReader(alias, wants_usage=wants_usage)


class FormDialect(AudioDialect):
    """A file in a multipart form."""

    def peek(self, exchange: Exchange) -> Asked:
        """Model and stream from their form fields."""
        found = read_fields(exchange.body, self.content_type(exchange), _READ)
        if not found.get("model"):
            raise invalid_request("The request needs a model.", param="model")
        return Asked(found["model"], found.get("stream", "").lower() in ("true", "1"))

    def with_model(self, exchange: Exchange, body: bytes, model: str) -> bytes:
        """The form with another name in its field `model`."""
        return replace_field(body, self.content_type(exchange), "model", model)

    def content_type(self, exchange: Exchange) -> str:
        """The client's own, which names the boundary."""
        return exchange.headers.get("content-type", "")


_FORM = obj("file model", file={"type": "string", "format": "binary"}, model=NAME)
_TEXT = obj("text", text=STRING)
OPERATIONS = (
    Operation(
        name="speech",
        method="POST",
        path="/v1/audio/speech",
        dialect=AudioDialect(),
        shape=Shape(
            request=obj("model input voice", model=NAME, input=STRING, voice={}),
            reply={"type": "string", "format": "binary"},
            reply_type="audio/*",
            streams=True,
        ),
        summary="Read a text aloud.",
    ),
    Operation(
        name="transcriptions",
        method="POST",
        path="/v1/audio/transcriptions",
        dialect=FormDialect(),
        shape=Shape(request=_FORM, request_type="multipart/form-data", reply=_TEXT, streams=True),
        summary="Write down what is said in a recording.",
    ),
    Operation(
        name="translations",
        method="POST",
        path="/v1/audio/translations",
        dialect=FormDialect(),
        shape=Shape(request=_FORM, request_type="multipart/form-data", reply=_TEXT, streams=True),
        summary="Write down in English what is said in a recording.",
    ),
)


class Audio:
    """Guard: it carries the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the operations."""
        for operation in OPERATIONS:
            gateway.add_operation(operation)
