"""The two pages that show the document, from files of installed packages."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tollkeeper import PluginError


class Asset(NamedTuple):
    """A file that a page loads: where it is installed, and what it is."""

    package: str
    path: str
    kind: str


SCRIPT, STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
SWAGGER, REDOC = "flask_swagger_ui", "flask_openapi3_redoc"
ASSETS = {
    "swagger-ui.css": Asset(SWAGGER, "dist/swagger-ui.css", STYLE),
    "swagger-ui-bundle.js": Asset(SWAGGER, "dist/swagger-ui-bundle.js", SCRIPT),
    "favicon-32x32.png": Asset(SWAGGER, "dist/favicon-32x32.png", "image/png"),
    "redoc.standalone.js": Asset(REDOC, "templates/redoc/js/redoc.standalone.js", SCRIPT),
}

DOCS = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tollkeeper API</title>
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """\
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
"""
REDOC_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tollkeeper API</title>
<link rel="icon" href="/docs/favicon-32x32.png">
</head>
<body>
<redoc spec-url="/openapi.json"></redoc>
<script src="/docs/redoc.standalone.js"></script>
</body>
</html>
"""
_CSP = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src"
)
HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
DOCS_CSP = f"{_CSP} 'self'"
REDOC_CSP = f"{_CSP} 'self' 'unsafe-inline'; worker-src blob:"


_ELSEWHERE = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
"""A picture that ReDoc would load from its makers: the page asks nobody else for anything."""


@cache
def read_asset(name: str) -> bytes:
    """The bytes of an asset. Its package is found and not imported. Raises `PluginError`."""
    asset = ASSETS[name]
    found = importlib.util.find_spec(asset.package)
    folders = list(found.submodule_search_locations or ()) if found else []
    for folder in folders:
        if (path := Path(folder) / asset.path).is_file():
            return path.read_bytes().replace(_ELSEWHERE, b"data:,")
    raise PluginError(f"{asset.path} of the package {asset.package} is not installed")
