"""Whether replies are as the API document of the gateway says."""

import json
import re
from typing import Any

from openapi_schema_validator import OAS31Validator

from tollkeeper.testing import Answered

Json = dict[str, Any]


class Document:
    """An OpenAPI document to hold replies against."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self.checked = 0
        """How many replies were held against it."""
        templates = sorted(document["paths"], key=lambda path: path.count("{"))
        self._paths = [(_pattern(template), template) for template in templates]

    def operation(self, method: str, path: str) -> Json | None:
        """What it says of a request; None for a request that is not in it."""
        path = path.partition("?")[0]
        found = (template for pattern, template in self._paths if pattern.fullmatch(path))
        for template in found:
            told = self.document["paths"][template].get(method.lower())
            if told is not None:
                return dict(told)
        return None

    def errors(self, schema: Json, value: object) -> list[str]:
        """What is wrong with a value by a schema of the document."""
        whole = {**schema, "components": self.document["components"]}
        return [error.message for error in OAS31Validator(whole).iter_errors(value)]

    def check(self, method: str, path: str, reply: Answered) -> None:
        """Fail for a reply that the document does not tell of."""
        where = f"{method} {path} -> {reply.status}"
        told = self.operation(method, path)
        if told is None:
            content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
            assert reply.status in (404, 405), f"{where} is not in the document"
        else:
            assert str(reply.status) in told["responses"], f"{where} is not in the document"
            content = told["responses"][str(reply.status)]["content"]
        kind = reply.headers["content-type"].partition(";")[0]
        if "*/*" in content:
            return
        assert kind in content, f"{where}: {kind} is not in the document"
        if kind == "application/json":
            problems = self.errors(content[kind]["schema"], json.loads(reply.body))
            assert not problems, f"{where}: {problems}"
            self.checked += 1

    def body(self, method: str, path: str) -> Json:
        """The schema of a request's body, with what it refers to put in its place."""
        told = self.operation(method, path)
        assert told is not None
        schema = told["requestBody"]["content"]["application/json"]["schema"]
        return self.resolved(schema)

    def resolved(self, schema: Json) -> Json:
        """A schema of the document, by its own words or by the name it has there."""
        name = schema.get("$ref", "").rpartition("/")[2]
        return dict(self.document["components"]["schemas"][name]) if name else schema


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"{\w+}", template)
    return re.compile("[^/]+".join(map(re.escape, parts)))
