"""Embeddings: `POST /v1/embeddings`, passed on; base64 is made where the upstream ignores it."""

from tollkeeper import Dialect, Exchange, Gateway, Operation, PluginSettings, hookimpl
from tollkeeper.shapes import INTEGER, NAME, OBJECT, STRING, Shape, array, obj, one_of
from tollkeeper_embeddings.service import as_base64, wants_base64


class EmbeddingsDialect(Dialect):
    """Vectors as floats, or as base64 of little-endian floats where the client asks for it."""

    name = "embeddings"
    has_output = False

    def render(self, exchange: Exchange, body: bytes) -> bytes:
        """The reply in the encoding that was asked for: SDKs decode without looking."""
        return as_base64(body) if wants_base64(exchange.body) else body


EMBEDDINGS = Operation(
    name="embeddings",
    method="POST",
    path="/v1/embeddings",
    dialect=EmbeddingsDialect(),
    shape=Shape(
        request=obj(
            "model input",
            model=NAME,
            input={"anyOf": [STRING, array({})]},
            encoding_format=one_of("float", "base64"),
            dimensions=INTEGER,
        ),
        reply=obj(
            "object data model",
            object=one_of("list"),
            data=array(
                obj(
                    "embedding index",
                    embedding={"anyOf": [STRING, array({"type": "number"})]},
                    index=INTEGER,
                )
            ),
            model=STRING,
            usage=OBJECT,
        ),
    ),
    summary="Turn texts into vectors, as floats or base64.",
)


class Embeddings:
    """Guard: it carries the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the operation."""
        gateway.add_operation(EMBEDDINGS)
