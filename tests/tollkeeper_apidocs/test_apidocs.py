"""The API reference behind a gateway."""

import pytest
from openapi_spec_validator import validate

from tollkeeper import ConfigError
from tollkeeper.testing import open_gateway

ENDPOINTS = "".join(
    f"[plugins.{name}]\n"
    for name in (
        *("messages", "responses", "completions", "embeddings"),
        *("moderations", "images", "audio", "rerank"),
    )
)


async def test_the_document_tells_what_is_turned_on_and_is_valid() -> None:
    async with open_gateway(toml="[plugins.apidocs]\n") as gateway:
        few = (await gateway.get("/openapi.json")).json()
        await gateway.switch(f"[plugins.apidocs]\n[plugins.keys]\n{ENDPOINTS}")
        many = (await gateway.get("/openapi.json")).json()
    validate(few)
    validate(many)
    assert "/v1/messages" not in few["paths"]
    assert {"/v1/messages", "/v1/responses", "/v1/rerank"} < set(many["paths"])
    assert few["paths"]["/v1/models"]["get"]["security"] == []
    assert many["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]


async def test_every_operation_tells_what_it_takes_and_answers() -> None:
    async with open_gateway(toml=f"[plugins.apidocs]\n{ENDPOINTS}") as gateway:
        document = (await gateway.get("/openapi.json")).json()
        for operation in gateway.generations.current.registry.operations.values():
            told = document["paths"][operation.path][operation.method.lower()]
            assert told["responses"]["200"]["content"], operation.name
            assert ("requestBody" in told) is (operation.method == "POST"), operation.name


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_is_open_and_has_a_strict_policy(path: str) -> None:
    async with open_gateway(toml="[plugins.apidocs]\n") as gateway:
        page = await gateway.get(path)
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_a_file_that_nobody_knows_is_not_looked_for() -> None:
    async with open_gateway(toml="[plugins.apidocs]\n") as gateway:
        assert (await gateway.get("/docs/swagger-ui.css")).status == 200
        for name in ("LICENSE", "..%2f..%2fLICENSE", "index.css"):
            assert (await gateway.get(f"/docs/{name}")).status == 404


async def test_a_reference_that_is_not_public_needs_somebody_who_knows_users() -> None:
    with pytest.raises(ConfigError, match="Authorizer"):
        async with open_gateway(toml="[plugins.apidocs]\npublic = false\n"):
            pass
