"""The API document, and a gateway that does what it says whatever is sent to it."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from processes import CONFIG, address, free_port, running, running_stripe

SEED = int(os.environ.get("TOLLKEEPER_SEED", "20260607"))
EXAMPLES = int(os.environ.get("TOLLKEEPER_EXAMPLES", "10"))
"""Generated requests per operation and kind, beside those that cover each rule of its schema."""

PLUGINS = """
[plugins.accounts]
jwt_secret = "a secret of this story, 32 bytes"
registration = "open"
access_seconds = 86400
login_attempts = 1000
[plugins.apidocs]
[plugins.metering]
[plugins.messages]
[plugins.responses]
store = true
[plugins.completions]
[plugins.embeddings]
[plugins.moderations]
[plugins.images]
[plugins.audio]
[plugins.rerank]
[plugins.billing]
secret_key = "sk_test_fake"
webhook_secret = "whsec_fake"
api_base = "{stripe}"
success_url = "https://example.com/paid"
cancel_url = "https://example.com/prices"
auto_topup = true
[plugins.billing.packs.small]
price = "10.00"
credit = "10.00"
"""
PASSWORD = "correct horse"
PRICE = 'price = { input = "0.15", output = "0.60" }'
OWN = "^/v1/(chat/completions|models(/{id})?)$"
"""Operations whose requests reach the demo model as they are."""
HOOKS = """
import json, os, schemathesis

def has_float(value):
    if isinstance(value, dict):
        return any(map(has_float, value.values()))
    return any(map(has_float, value)) if isinstance(value, list) else isinstance(value, float)

@schemathesis.hook
def filter_body(context, body):
    # To JSON Schema 107.0 is an integer. To the gateway it is not, and no schema can say so.
    return not has_float(body)

@schemathesis.hook
def before_call(context, case, kwargs):
    # A model that nobody serves is a fine request, and answered 404: half of the honest ones ask
    # for the one that is there, so that replies are seen too.
    honest = case.meta is None or case.meta.generation.mode.value == "positive"
    if honest and isinstance(case.body, dict) and case.path.startswith("/v1/"):
        if len(repr(case.body)) % 2 and case.media_type == "application/json":
            case.body["model"] = "demo"
    # A key may be bound to models that exist, and to no others.
    if honest and isinstance(case.body, dict) and isinstance(case.body.get("models"), list):
        case.body["models"] = ["demo"]
    # Nor can a schema say what is still to come.
    if honest and isinstance(case.body, dict) and isinstance(case.body.get("expires_at"), int):
        case.body["expires_at"] = max(case.body["expires_at"], 4_000_000_000)

    # What is sold, and which days there are, stands in no schema.
    if honest and case.path.endswith(("/billing/checkout", "/billing/topup")):
        if isinstance(case.body, dict):
            case.body.pop("plan", None)
            case.body["pack"] = "small"
    if honest and case.path.endswith("/billing/usage"):
        for name in ("since", "until"):
            if name in (case.query or {}):
                case.query[name] = "2026-11-25"

@schemathesis.hook
def after_call(context, case, response):
    with open(os.environ["SEEN"], "a") as seen:
        print(case.method, case.operation.path, response.status_code, file=seen)
"""


@dataclass(frozen=True)
class Gateway:
    """A gateway in a process of its own, and credentials for it."""

    url: str
    folder: Path
    token: str
    leaving: str
    """A token of another session, to log out with."""
    key: str


def call(url: str, body: object = None, token: str = "") -> Any:
    """A request that succeeds; what it answers."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    headers |= {"authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, data, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("schema")
    config = CONFIG.format(port=free_port())
    config = config.replace("[plugins.limits]", "[plugins.limits]\nrpm = 1000000")
    config = config.replace(PRICE, "price = { input = 0, output = 0 }\nmax_output = 4096")
    with contextlib.ExitStack() as stack:
        stripe = stack.enter_context(running_stripe())
        (folder / "tollkeeper.toml").write_text(config + PLUGINS.format(stripe=stripe))
        process, printed = stack.enter_context(running("serve", cwd=folder))
        log = (folder / "log.txt").open("w")
        assert process.stdout is not None
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=log)
        try:
            url = address(printed)
            who = {"email": "ann@example.com", "password": PASSWORD}
            call(f"{url}/api/v1/auth/register", who)
            token, leaving = (
                call(f"{url}/api/v1/auth/login", who)["access_token"] for _ in range(2)
            )
            call(f"{url}/api/v1/gateway/org", {"name": "alpha"}, token)
            key = call(f"{url}/api/v1/gateway/keys", {"name": "story"}, token)["key"]
            yield Gateway(url, folder, token, leaving, key)
            assert process.poll() is None, "the gateway ended while it was asked"
        finally:
            process.kill()
            drain.wait()
            log.close()
    logged = (folder / "log.txt").read_text()
    assert "Traceback" not in logged, logged[logged.index("Traceback") :][:3000]


def explore(gateway: Gateway, credential: str, *args: str) -> dict[str, set[int]]:
    """Send what the document allows and what it does not; the statuses seen, by operation.

    Every check of schemathesis runs on every reply, but for those named in `args`.
    """
    (gateway.folder / "story_hooks.py").write_text(HOOKS)
    seen = gateway.folder / "seen.txt"
    seen.write_text("")
    tool = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{gateway.url}/openapi.json"]
    options = ["--checks", "all", "--seed", str(SEED), "--max-examples", str(EXAMPLES)]
    options += ["--continue-on-failure", "--no-color", "--generation-database", "none"]
    options += ["--warnings", "off", "--header", f"Authorization: Bearer {credential}"]
    mine = {"SCHEMATHESIS_HOOKS": "story_hooks", "PYTHONPATH": str(gateway.folder)}
    mine |= {"SEEN": str(seen), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    told = subprocess.run(
        [*tool, *options, *args],
        cwd=gateway.folder,
        env={**os.environ, **mine},
        capture_output=True,
        text=True,
        timeout=600,
    )
    run = f"TOLLKEEPER_SEED={SEED} TOLLKEEPER_EXAMPLES={EXAMPLES}"
    assert told.returncode == 0, f"{run} found:\n{told.stdout[-20000:]}{told.stderr}"
    found: dict[str, set[int]] = {}
    for line in seen.read_text().splitlines():
        method, path, status = line.split()
        assert int(status) < 500, line
        found.setdefault(f"{method.upper()} {path}", set()).add(int(status))
    return found


def operations(document: Any) -> set[str]:
    return {f"{m.upper()} {path}" for path, told in document["paths"].items() for m in told}


def test_the_document_of_all_endpoints_is_valid_and_whole(gateway: Gateway) -> None:
    document = call(f"{gateway.url}/openapi.json")
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert len(operations(document)) > 40
    ids = [told["operationId"] for path in document["paths"].values() for told in path.values()]
    assert len(ids) == len(set(ids))


def test_the_management_endpoints_do_what_the_document_says(gateway: Gateway) -> None:
    found = explore(gateway, gateway.token, "--exclude-path-regex", "^/v1/|/auth/logout$")
    told = operations(call(f"{gateway.url}/openapi.json"))
    elsewhere = (" /v1/", "logout", "GET /openapi.json")  # the last is read to begin with
    expected = {each for each in told if not any(part in each for part in elsewhere)}
    assert set(found) >= expected
    # Nobody can guess these: an invitation, a refresh token, an id, the password, a signature.
    secret = ("/accept", "/refresh", "/password", "/login", "/webhook", "{")
    for each in expected:
        if not any(part in each for part in secret):
            assert 200 in found[each], (each, found[each])


def test_logging_out_does_what_the_document_says(gateway: Gateway) -> None:
    # A session of its own, for it is over after the first request that is right.
    found = explore(gateway, gateway.leaving, "--include-path-regex", "/auth/logout$")
    assert {200, 401} <= found["POST /api/v1/auth/logout"]


def test_the_operations_that_the_model_speaks_do_what_the_document_says(gateway: Gateway) -> None:
    found = explore(gateway, gateway.key, "--include-path-regex", OWN)
    for each in ("POST /v1/chat/completions", "GET /v1/models"):
        assert 200 in found[each], found


def test_the_other_operations_do_what_the_document_says(gateway: Gateway) -> None:
    # The document tells what the gateway relies on. A request that is right by it is refused with
    # 400 where it asks the model for what it does not offer, or in words that cannot be translated
    # into those of the model. And a response that was not to be stored is not there.
    less = ["--exclude-checks", "positive_data_acceptance,ensure_resource_availability"]
    where = ["--include-path-regex", "^/v1/", "--exclude-path-regex", OWN]
    found = explore(gateway, gateway.key, *where, *less)
    told = operations(call(f"{gateway.url}/openapi.json"))
    assert set(found) >= {each for each in told if " /v1/" in each} - {
        "POST /v1/chat/completions",
        "GET /v1/models",
        "GET /v1/models/{id}",
    }
    for each in ("POST /v1/messages", "POST /v1/responses"):
        assert 200 in found[each], found
