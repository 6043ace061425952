"""The pages, and the files that they load."""

import re

import pytest

from tollkeeper import PluginError
from tollkeeper_apidocs import pages
from tollkeeper_apidocs.pages import ASSETS, Asset, read_asset


@pytest.mark.parametrize("name", ASSETS)
def test_every_file_is_installed(name: str) -> None:
    assert len(read_asset(name)) > 100


@pytest.mark.parametrize("page", [pages.DOCS, pages.REDOC_PAGE])
def test_a_page_loads_from_its_own_origin_and_what_there_is(page: str) -> None:
    found = re.findall(r'(?:src|href|spec-url)="([^"]+)"', page)
    assert found
    for link in found:
        name = link.removeprefix("/docs/")
        assert name in ASSETS or link in ("/docs/start.js", "/openapi.json"), link


@pytest.mark.parametrize("page", [pages.DOCS, pages.REDOC_PAGE])
def test_a_page_holds_no_script_of_its_own(page: str) -> None:
    assert not re.search(r"<script>|\son\w+=|<style|\sstyle=", page)


def test_only_redoc_may_style_inline_and_work_from_blobs() -> None:
    assert "unsafe-inline" not in pages.DOCS_CSP
    assert "blob:" not in pages.DOCS_CSP
    script = re.search(r"script-src ([^;]*)", pages.REDOC_CSP)
    assert script
    assert script[1] == "'self'"


def test_redoc_asks_its_makers_for_nothing() -> None:
    assert b"cdn.redoc.ly" not in read_asset("redoc.standalone.js")


def test_a_file_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ASSETS, "x.js", Asset("no_such_package", "x.js", pages.SCRIPT))
    with pytest.raises(PluginError, match="no_such_package"):
        read_asset("x.js")
