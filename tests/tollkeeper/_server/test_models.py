"""`/v1/models` as clients see it."""

import json
from typing import Any

import pytest

from tollkeeper._server.models import describe, model_operations
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import Config, parse_config
from tollkeeper.errors import Refused
from tollkeeper.exchange import Exchange, Operation

TOML = """
[providers.one]
kind = "openai"
[models."priced"]
deployments = [{ provider = "one", model = "x" }]
price = { input = "2.50", output = 10, cache_read = "0.075", tiers = [
    { above = 1000, input = 5, output = 20 },
] }
owned_by = "me"
created = 1700000000
[models."free"]
deployments = [{ provider = "one", model = "x" }]
price = { input = 0, output = 0 }
[models."org/plain"]
deployments = [{ provider = "one", model = "x" }]
"""


@pytest.fixture
def config() -> Config:
    return parse_config(TOML, Catalogue())


def call(operation: Operation, path_value: str = "") -> Any:
    assert operation.answer
    exchange = Exchange(operation, path_value, {}, "test", 0.0)
    answer = operation.answer(exchange)
    assert (answer.status, answer.content_type) == (200, "application/json")
    return json.loads(answer.body)


def test_a_model_has_every_field_that_clients_require_and_its_price_as_numbers(
    config: Config,
) -> None:
    assert describe("priced", config.models["priced"], config.providers) == {
        "id": "priced",
        "object": "model",
        "created": 1700000000,
        "owned_by": "me",
        "pricing": {"input": 2.5, "output": 10.0, "cache_read": 0.075},
    }


def test_a_price_that_is_not_known_is_absent_and_one_of_nothing_is_not(config: Config) -> None:
    assert "pricing" not in describe("m", config.models["org/plain"], config.providers)
    free = describe("m", config.models["free"], config.providers)
    assert free["pricing"] == {"input": 0.0, "output": 0.0}


def test_a_model_belongs_to_its_providers_kind_unless_the_file_says_otherwise(
    config: Config,
) -> None:
    assert describe("m", config.models["free"], config.providers)["owned_by"] == "openai"


def test_the_list_holds_all_models_as_they_are_when_it_is_asked_for(config: Config) -> None:
    models = dict(config.models)
    listing, _ = model_operations(models, config.providers)
    document = call(listing)
    assert document["object"] == "list"
    assert [model["id"] for model in document["data"]] == ["priced", "free", "org/plain"]
    del models["free"]
    assert [model["id"] for model in call(listing)["data"]] == ["priced", "org/plain"]


def test_one_model_is_the_same_as_in_the_list_also_with_a_slash_in_its_name(
    config: Config,
) -> None:
    listing, single = model_operations(config.models, config.providers)
    assert [call(single, model["id"]) for model in call(listing)["data"]] == call(listing)["data"]


def test_an_unknown_model_is_not_found(config: Config) -> None:
    _, single = model_operations(config.models, config.providers)
    with pytest.raises(Refused) as caught:
        call(single, "org")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_models_are_read_by_get_at_the_paths_that_sdks_call(config: Config) -> None:
    listing, single = model_operations(config.models, config.providers)
    assert (listing.method, listing.path) == ("GET", "/v1/models")
    assert (single.method, single.path) == ("GET", "/v1/models/{id}")
