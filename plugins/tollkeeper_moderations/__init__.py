"""Moderations: `POST /v1/moderations`, passed on as it is."""

from tollkeeper import Dialect, Gateway, Operation, hookimpl
from tollkeeper.shapes import NAME, OBJECT, STRING, Shape, array, obj
from tollkeeper_moderations.settings import ModerationsSettings


class ModerationsDialect(Dialect):
    """Texts and images in, categories out. Clients may leave the model out."""

    name = "moderations"
    has_output = False

    def __init__(self, default_model: str) -> None:
        self.default_model = default_model


class Moderations:
    """Guard: it carries the request."""

    Settings = ModerationsSettings
    policy = "guard"

    def __init__(self, settings: ModerationsSettings) -> None:
        self._operation = Operation(
            name="moderations",
            method="POST",
            path="/v1/moderations",
            dialect=ModerationsDialect(settings.model),
            shape=Shape(
                request=obj("input", model=NAME, input={"anyOf": [STRING, array({})]}),
                reply=obj("results", id=STRING, model=STRING, results=array(OBJECT)),
            ),
            summary="Classify texts and images as harmful or not.",
        )

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the operation."""
        gateway.add_operation(self._operation)
