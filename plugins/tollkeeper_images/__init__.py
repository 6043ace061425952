"""Images: `POST /v1/images/generations`, passed on as it is, whole or streamed."""

from tollkeeper import ChunkReader, Dialect, Gateway, Operation, StreamReader, find_value, hookimpl
from tollkeeper.shapes import BOOLEAN, INTEGER, NAME, OBJECT, STRING, Shape, array, obj
from tollkeeper_images.settings import ImagesSettings

COMPLETED = b"image_generation.completed"


class ImagesReader(ChunkReader):
    """Partial images, then completed ones, which tell the usage."""

    ending = b""

    def __init__(self, alias: bytes | None = None, *, wants_usage: bool = True) -> None:
        super().__init__(alias, wants_usage=wants_usage)
        self._completed = False

    def skim(self, events: bytes) -> int:
        """Nothing goes on unseen: few events, and their types count."""
        return 0

    def event(self, data: bytes) -> bytes | None:
        """Note a completed image. It ends nothing: as many may come as were asked for."""
        kind = find_value(data, b"type")
        if kind is not None and data[kind[0] + 1 : kind[1] - 1] == COMPLETED:
            self._completed = True
        return super().event(data)

    @property
    def whole(self) -> bool:
        """A stream without a completed image was cut."""
        return self._completed


class ImagesDialect(Dialect):
    """A prompt in, images out. Clients may leave the model out."""

    name = "images"
    max_event = 32 * 1024**2  # an image is one event

    def __init__(self, default_model: str) -> None:
        self.default_model = default_model

    def reader(self, alias: bytes | None, *, wants_usage: bool = True) -> StreamReader:
        """What reads one stream of partial images."""
        return ImagesReader(alias, wants_usage=wants_usage)


class Images:
    """Guard: it carries the request."""

    Settings = ImagesSettings
    policy = "guard"

    def __init__(self, settings: ImagesSettings) -> None:
        self._operation = Operation(
            name="images",
            method="POST",
            path="/v1/images/generations",
            dialect=ImagesDialect(settings.model),
            shape=Shape(
                request=obj(
                    "prompt", model=NAME, prompt=STRING, n=INTEGER, size=STRING, stream=BOOLEAN
                ),
                reply=obj("data", created=INTEGER, data=array(OBJECT), usage=OBJECT),
                streams=True,
            ),
            summary="Make images from a prompt.",
        )

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the operation."""
        gateway.add_operation(self._operation)
