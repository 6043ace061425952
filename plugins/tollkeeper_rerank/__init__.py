"""Reranking: `POST /v1/rerank`, passed on as it is."""

from tollkeeper import Dialect, Gateway, Operation, PluginSettings, hookimpl
from tollkeeper.shapes import INTEGER, NAME, OBJECT, STRING, Shape, array, obj


class RerankDialect(Dialect):
    """A query and documents in, their order out. Usage is told in tokens by most servers."""

    name = "rerank"
    has_output = False


RERANK = Operation(
    name="rerank",
    method="POST",
    path="/v1/rerank",
    dialect=RerankDialect(),
    shape=Shape(
        request=obj(
            "model query documents",
            model=NAME,
            query=STRING,
            documents=array({}),
            top_n=INTEGER,
        ),
        reply=obj("results", id=STRING, results=array(OBJECT), usage=OBJECT),
    ),
    summary="Order documents by how well they answer a query.",
)


class Rerank:
    """Guard: it carries the request."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the operation."""
        gateway.add_operation(RERANK)
