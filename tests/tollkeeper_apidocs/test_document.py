"""The OpenAPI document: valid, and whole."""

from typing import Any

import pytest
from openapi_spec_validator import validate
from pydantic import BaseModel

from tollkeeper import Operation
from tollkeeper.gateway import Route
from tollkeeper.settings import Table
from tollkeeper.shapes import STRING, Shape, obj
from tollkeeper_apidocs.document import ERRORS, OF_OPERATIONS, STATUS_OF, openapi


class Inner(BaseModel):
    colour: str


class Wish(Table):
    name: str
    inner: Inner | None = None


class Search(Table):
    limit: int = 10
    name: str


async def handle() -> None:
    pass


def route(path: str = "/things", policy: str = "owner", **more: Any) -> Route:
    return Route(path, more.pop("methods", ("GET",)), handle, frozenset({policy}), "toys", **more)


ECHO = Operation(
    "echo", "POST", "/v1/echo", shape=Shape(obj("text", text=STRING), obj("say", say=STRING), True)
)


def document(*routes: Route, keys: bool = True) -> dict[str, Any]:
    told = openapi([ECHO, Operation("one", "GET", "/v1/one/{id}")], routes, "1.2.3", keys=keys)
    validate(told)
    return told


def test_an_operation_is_told_with_its_body_its_replies_and_its_errors() -> None:
    told = document()["paths"]["/v1/echo"]["post"]
    assert told["operationId"] == "echo"
    assert told["security"] == [{"key": []}]
    body = told["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["say"]
    assert set(told["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert set(told["responses"]) == {"200", *OF_OPERATIONS}


def test_without_keys_nothing_asks_for_one() -> None:
    assert document(keys=False)["paths"]["/v1/echo"]["post"]["security"] == []


def test_values_of_a_path_are_parameters() -> None:
    told = document(route("/things/<int:number>/<name>", body=None))["paths"]
    names = {
        p["name"]: p["schema"]["type"]
        for p in told["/things/{number}/{name}"]["get"]["parameters"]
        if p["in"] == "path"
    }
    assert names == {"number": "integer", "name": "string"}
    assert told["/v1/one/{id}"]["get"]["parameters"][0]["name"] == "id"


def test_models_stand_once_among_the_schemas_with_what_they_are_made_of() -> None:
    told = document(route(methods=("POST",), body=Wish, reply=Wish))
    assert {"Wish", "Inner", "Error"} <= set(told["components"]["schemas"])
    body = told["paths"]["/things"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/Wish"}
    assert told["components"]["schemas"]["Wish"]["additionalProperties"] is False


def test_a_query_is_told_name_by_name() -> None:
    told = document(route(query=Search))["paths"]["/things"]["get"]["parameters"]
    query = {p["name"]: p["required"] for p in told if p["in"] == "query"}
    assert query == {"limit": False, "name": True}


@pytest.mark.parametrize(
    ("policy", "security"), [("open", []), ("signed", []), ("user", [{"login": []}])]
)
def test_who_may_call_is_told(policy: str, security: list[Any]) -> None:
    told = document(route(policy=policy))["paths"]["/things"]["get"]
    assert told["security"] == security
    assert ("401" in told["responses"]) is bool(security)


def test_a_write_of_somebody_who_is_logged_in_may_be_repeated() -> None:
    told = document(route(methods=("POST",)))["paths"]["/things"]["post"]
    assert {p["name"] for p in told["parameters"]} == {"x-org-id", "Idempotency-Key"}
    assert "409" in told["responses"]


@pytest.mark.parametrize("code", STATUS_OF)
def test_what_a_route_may_answer_beside_is_told(code: str) -> None:
    told = document(route(policy="open", errors=(code,)))["paths"]["/things"]["get"]
    assert STATUS_OF[code] in told["responses"]


def test_every_status_has_words() -> None:
    assert {*OF_OPERATIONS, *STATUS_OF.values()} <= set(ERRORS)
