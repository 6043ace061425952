"""The API reference: an OpenAPI document of what is turned on, and two pages that show it."""

import importlib.metadata
from typing import Any

import msgspec

from tollkeeper import Gateway, Refused, hookimpl
from tollkeeper.management import KeyStore
from tollkeeper_apidocs import pages
from tollkeeper_apidocs.document import openapi
from tollkeeper_apidocs.settings import ApidocsSettings


class Apidocs:
    """Observer: nothing depends on it."""

    Settings = ApidocsSettings
    policy = "observer"

    def __init__(self, settings: ApidocsSettings) -> None:
        self._policy = "open" if settings.public else "user"

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Serve the document, the pages and what they load."""
        site = Site(gateway)
        for path, handler, summary in (
            ("/openapi.json", site.document, "This document."),
            ("/docs", site.docs, "Swagger UI."),
            ("/docs/start.js", site.start, "What starts Swagger UI."),
            ("/docs/<name>", site.asset, "A file of the pages."),
            ("/redoc", site.redoc, "ReDoc."),
        ):
            gateway.add_route(path, handler, policy=self._policy, summary=summary)


class Site:
    """The document and the pages of one set of plugins."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._document = b""

    async def document(self, **_: object) -> Any:  # noqa: ANN401 -- a Quart response
        """The OpenAPI document, made once."""
        if not self._document:
            gateway = self._gateway
            document = openapi(
                gateway.operations.values(),
                dict.fromkeys(gateway.routes.values()),
                importlib.metadata.version("tollkeeper"),
                keys=gateway.find(KeyStore) is not None,  # type: ignore[type-abstract]
            )
            self._document = msgspec.json.encode(document)
        return _response(self._document, "application/json")

    async def docs(self, **_: object) -> Any:  # noqa: ANN401 -- a Quart response
        """The page of Swagger UI."""
        return _page(pages.DOCS, pages.DOCS_CSP)

    async def start(self, **_: object) -> Any:  # noqa: ANN401 -- a Quart response
        """The script that starts it."""
        return _response(pages.START.encode(), pages.SCRIPT)

    async def redoc(self, **_: object) -> Any:  # noqa: ANN401 -- a Quart response
        """The page of ReDoc."""
        return _page(pages.REDOC_PAGE, pages.REDOC_CSP)

    async def asset(self, name: str, **_: object) -> Any:  # noqa: ANN401 -- a Quart response
        """One of the files that are known; no name of a request reaches the disk."""
        if name not in pages.ASSETS:
            raise Refused(404, "not_found", "There is nothing at this path.")
        reply = _response(pages.read_asset(name), pages.ASSETS[name].kind)
        reply.headers["cache-control"] = "max-age=3600"
        return reply


def _response(body: bytes, kind: str) -> Any:  # noqa: ANN401 -- a Quart response
    from quart import Response

    return Response(body, 200, pages.HEADERS, content_type=kind)


def _page(html: str, policy: str) -> Any:  # noqa: ANN401 -- a Quart response
    reply = _response(html.encode(), "text/html; charset=utf-8")
    reply.headers["content-security-policy"] = policy
    return reply
