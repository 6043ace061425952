"""The API reference in a real browser, which can reach nothing but the gateway."""

import json
import shutil
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from processes import CONFIG, address, free_port, need, running

PASSWORD = "correct horse"
PLUGINS = """
[plugins.accounts]
jwt_secret = "a secret of this story, 32 bytes"
registration = "open"
[plugins.apidocs]
[plugins.metering]
"""


def call(url: str, body: object, token: str = "") -> Any:
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
        return json.load(reply)


@dataclass(frozen=True)
class Gateway:
    """A gateway in a process of its own, and credentials for it."""

    url: str
    token: str
    key: str


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    need("chromium", "apt-get install chromium")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "tollkeeper.toml").write_text(CONFIG.format(port=free_port()) + PLUGINS)
    with running("serve", cwd=folder) as (_, printed):
        url, who = address(printed), {"email": "ann@example.com", "password": PASSWORD}
        call(f"{url}/api/v1/auth/register", who)
        token = call(f"{url}/api/v1/auth/login", who)["access_token"]
        call(f"{url}/api/v1/gateway/org", {"name": "alpha"}, token)
        key = call(f"{url}/api/v1/gateway/keys", {"name": "browser"}, token)["key"]
        yield Gateway(url, token, key)


@dataclass
class Visit:
    """A page, and what went on behind it."""

    page: Any
    origin: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Of the console: errors, warnings, and violations of the page's policy."""

    def watch(self) -> None:
        """Note every request and every complaint from now on."""
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation', event =>"
            " console.error('policy: ' + event.violatedDirective + ' ' + event.blockedURI))"
        )

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def check(self) -> None:
        """Fail where a request left the origin, or the browser complained of anything."""
        mine = (f"{self.origin}/", "blob:", "data:")
        assert f"{self.origin}/openapi.json" in self.requests
        assert [url for url in self.requests if not url.startswith(mine)] == []
        assert self.complaints == []


def browse(gateway: Gateway, story: Callable[[Visit], None]) -> None:
    """Tell a story to a browser, in a thread of its own for the loop that it brings along."""
    failures: list[BaseException] = []

    def run() -> None:
        from playwright.sync_api import sync_playwright

        path = shutil.which("chromium")
        offline = ["--no-sandbox", "--no-proxy-server", "--disable-background-networking"]
        offline += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=offline)
            page = browser.new_page(viewport={"width": 1200, "height": 1000})
            visit = Visit(page, gateway.url)
            visit.watch()
            try:
                story(visit)
                visit.check()
            finally:
                browser.close()

    def guarded() -> None:
        try:
            run()
        except BaseException as failure:  # noqa: BLE001 -- raised again below, in the test
            failures.append(failure)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join(timeout=120)
    assert not thread.is_alive(), "the browser does not come to an end"
    if failures:
        raise failures[0]


KEY, LOGIN = 0, 1
"""Places of the two kinds of credential in the dialog, which gives both inputs one id."""


def authorize(page: Any, place: int, secret: str) -> None:
    page.click(".btn.authorize")
    page.locator("#auth-bearer-value").nth(place if place == KEY else -1).fill(secret)
    page.locator(".auth-btn-wrapper .authorize").nth(place if place == KEY else -1).click()
    page.locator(".btn-done").first.click()


def execute(page: Any, operation: str, shot: Path) -> tuple[str, str]:
    """Expand an operation, try it out and run it: the status shown and the answer shown."""
    page.click(f"#{operation} .opblock-summary")
    page.click(f"#{operation} .try-out__btn")
    page.click(f"#{operation} .execute")
    page.wait_for_selector(f"#{operation} .live-responses-table .response", timeout=10_000)
    page.locator(f"#{operation} .live-responses-table").scroll_into_view_if_needed()
    page.screenshot(path=str(shot))
    live = f"#{operation} .live-responses-table .response"
    status = page.inner_text(f"{live} td.response-col_status").strip()
    return status.split()[0], page.inner_text(f"{live} .highlight-code")


def test_swagger_ui_executes_a_call_with_a_key_and_one_by_logging_in(
    gateway: Gateway, tmp_path: Path
) -> None:
    def story(visit: Visit) -> None:
        page = visit.page
        page.goto(f"{gateway.url}/docs")
        page.wait_for_selector(".opblock", timeout=20_000)
        page.screenshot(path=str(tmp_path / "docs.png"))
        authorize(page, KEY, gateway.key)
        status, answer = execute(page, "operations-gateway-models", tmp_path / "key.png")
        assert status == "200"
        assert '"id": "demo"' in answer
        authorize(page, LOGIN, gateway.token)
        mine = "operations-accounts-get_api_v1_auth_me"
        status, answer = execute(page, mine, tmp_path / "login.png")
        assert status == "200"
        assert "ann@example.com" in answer
        assert f"{gateway.url}/v1/models" in visit.requests
        assert f"{gateway.url}/api/v1/auth/me" in visit.requests

    browse(gateway, story)


def test_swagger_ui_shows_how_a_call_without_a_credential_is_refused(
    gateway: Gateway, tmp_path: Path
) -> None:
    def story(visit: Visit) -> None:
        page = visit.page
        page.goto(f"{gateway.url}/docs")
        page.wait_for_selector(".opblock", timeout=20_000)
        status, answer = execute(page, "operations-gateway-models", tmp_path / "refused.png")
        assert status == "401"
        assert "auth_error" in answer
        # The browser tells its console of the refusal, and of nothing else.
        assert [text for text in visit.complaints if "401" not in text] == []
        visit.complaints.clear()

    browse(gateway, story)


def test_redoc_shows_every_operation(gateway: Gateway, tmp_path: Path) -> None:
    def story(visit: Visit) -> None:
        page = visit.page
        page.goto(f"{gateway.url}/redoc")
        page.set_default_timeout(5_000)
        page.wait_for_selector("[data-section-id]", timeout=20_000)
        page.locator("li[data-item-id='tag/accounts'] > label").click()
        page.locator("li[data-item-id$='operation/post_api_v1_gateway_keys'] label").click()
        section = page.locator("[data-section-id$='operation/post_api_v1_gateway_keys']").first
        section.locator("button", has_text="200").first.click()
        section.locator("text=Shown this once").first.wait_for()
        page.screenshot(path=str(tmp_path / "redoc.png"))
        shown = " ".join(page.text_content("body").split())
        told = page.evaluate("fetch('/openapi.json').then(reply => reply.json())")
        operations = [each for path in told["paths"].values() for each in path.values()]
        assert len(operations) > 20
        for each in operations:
            assert each["summary"] in shown

    browse(gateway, story)


def test_what_would_leave_the_origin_is_found_out(gateway: Gateway) -> None:
    def story(visit: Visit) -> None:
        visit.page.goto(f"{gateway.url}/docs")
        visit.page.wait_for_selector(".opblock", timeout=20_000)
        visit.page.evaluate("fetch('http://127.0.0.2:9/').catch(() => 0)")

    with pytest.raises(AssertionError):
        browse(gateway, story)
