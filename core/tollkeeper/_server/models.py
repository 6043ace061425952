"""`/v1/models`: what clients may ask for, with its price."""

from collections.abc import Callable, Mapping
from decimal import Decimal

import msgspec

from tollkeeper.errors import model_not_found
from tollkeeper.exchange import Answer, Exchange, Operation
from tollkeeper.settings import ModelSettings, PriceSettings, ProviderSettings
from tollkeeper.shapes import INTEGER, STRING, Shape, array, obj, one_of

_USD = {"type": "number", "minimum": 0}
_MODEL = obj(
    "id object created owned_by",
    id=STRING,
    object=one_of("model"),
    created=INTEGER,
    owned_by=STRING,
    pricing=obj("input output", input=_USD, output=_USD, cache_read=_USD, cache_write=_USD),
)
_ONE = Shape(reply=_MODEL)
_LIST = Shape(reply=obj("object data", object=one_of("list"), data=array(_MODEL)))

PriceOf = Callable[[str], PriceSettings | None]
"""The price of a model that the TOML does not price, None where nobody knows."""


def model_operations(
    models: Mapping[str, ModelSettings],
    providers: Mapping[str, ProviderSettings],
    price_of: PriceOf = lambda name: None,
) -> list[Operation]:
    """The list and the single model. All three are asked when a client asks."""

    def list_models(_exchange: Exchange) -> Answer:
        data = [describe(name, model, providers, price_of) for name, model in models.items()]
        return Answer(msgspec.json.encode({"object": "list", "data": data}))

    def get_model(exchange: Exchange) -> Answer:
        name = exchange.path_value
        if name not in models:
            raise model_not_found(name)
        return Answer(msgspec.json.encode(describe(name, models[name], providers, price_of)))

    return [
        Operation(
            "models",
            "GET",
            "/v1/models",
            answer=list_models,
            shape=_LIST,
            summary="List the models.",
        ),
        Operation(
            "model",
            "GET",
            "/v1/models/{id}",
            answer=get_model,
            shape=_ONE,
            summary="Get one model.",
        ),
    ]


def describe(
    name: str,
    model: ModelSettings,
    providers: Mapping[str, ProviderSettings],
    price_of: PriceOf = lambda name: None,
) -> dict[str, object]:
    """A model as the API shows it; `pricing` is absent while the price is unknown."""
    owner = model.owned_by or providers[model.deployments[0].provider].kind
    shown: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": owner,
    }
    if (price := model.price or price_of(name)) is not None:
        parts: dict[str, Decimal | None] = {
            "input": price.input,
            "output": price.output,
            "cache_read": price.cache_read,
            "cache_write": price.cache_write,
        }
        # Numbers for display; what is charged is counted from the decimals.
        shown["pricing"] = {k: float(value) for k, value in parts.items() if value is not None}
    return shown
