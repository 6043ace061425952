"""Reranking: `POST /v1/rerank`, passed on as it is."""

from tollkeeper import Dialect, Gateway, Operation, PluginSettings, hookimpl


class RerankDialect(Dialect):
    """A query and documents in, their order out. Usage is told in tokens by most servers."""

    name = "rerank"


RERANK = Operation(
    name="rerank",
    method="POST",
    path="/v1/rerank",
    dialect=RerankDialect(),
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
