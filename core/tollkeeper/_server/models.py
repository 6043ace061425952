"""`/v1/models`: what clients may ask for, with its price."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from tollkeeper.errors import model_not_found
from tollkeeper.exchange import Answer, Exchange, Operation
from tollkeeper.settings import ModelSettings, ProviderSettings


def model_operations(
    models: Mapping[str, ModelSettings], providers: Mapping[str, ProviderSettings]
) -> list[Operation]:
    """The list and the single model. Both mappings are read when a client asks."""

    def list_models(_exchange: Exchange) -> Answer:
        data = [describe(name, model, providers) for name, model in models.items()]
        return Answer(msgspec.json.encode({"object": "list", "data": data}))

    def get_model(exchange: Exchange) -> Answer:
        name = exchange.path_value
        if name not in models:
            raise model_not_found(name)
        return Answer(msgspec.json.encode(describe(name, models[name], providers)))

    return [
        Operation("models", "GET", "/v1/models", answer=list_models, summary="List the models."),
        Operation("model", "GET", "/v1/models/{id}", answer=get_model, summary="Get one model."),
    ]


def describe(
    name: str, model: ModelSettings, providers: Mapping[str, ProviderSettings]
) -> dict[str, object]:
    """A model as the API shows it; `pricing` is absent while the price is unknown."""
    owner = model.owned_by or providers[model.deployments[0].provider].kind
    shown: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": owner,
    }
    if (price := model.price) is not None:
        parts: dict[str, Decimal | None] = {
            "input": price.input,
            "output": price.output,
            "cache_read": price.cache_read,
            "cache_write": price.cache_write,
        }
        # Numbers for display; what is charged is counted from the decimals.
        shown["pricing"] = {k: float(value) for k, value in parts.items() if value is not None}
    return shown
