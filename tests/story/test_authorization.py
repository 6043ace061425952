"""Who may do what: every route, principal, field and foreign id, walked as they are registered.

Nothing here names a route that it does not have to: one that a plugin adds is walked at once, and
asks for a sample of what it takes (`House.sample`) where its fields have names that are new.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import trio
from harness import serve
from openapi_checks import Document
from processes import run

from tollkeeper._server.link import Link
from tollkeeper.gateway import Route
from tollkeeper.management import OPEN_POLICIES, ROLES, USER_POLICY
from tollkeeper.storage import Database
from tollkeeper.testing import Answered, JumpClock, TestGateway, open_gateway
from tollkeeper.testing.stripe import fake_stripe

SECRET = "a secret of this story, 32 bytes"
PASSWORD = "correct horse"
AUTH, GATEWAY = "/api/v1/auth", "/api/v1/gateway"
ME, ORG, KEYS = f"{AUTH}/me", f"{GATEWAY}/org", f"{GATEWAY}/keys"
TOML = f"""
[providers.demo]
kind = "demo"
[models.demo]
deployments = [{{ provider = "demo", model = "demo" }}]
price = {{ input = "0", output = "0" }}
max_output = 100
[models.another]
deployments = [{{ provider = "demo", model = "demo" }}]
price = {{ input = "0", output = "0" }}
max_output = 100
[plugins.keys]
[plugins.demo]
[plugins.accounts]
jwt_secret = "{SECRET}"
registration = "open"
login_attempts = 1000
[plugins.apidocs]
[plugins.metering]
[plugins.billing]
secret_key = "sk_test_fake"
webhook_secret = "whsec_fake"
api_base = "http://127.0.0.1:9"
success_url = "https://example.com/paid"
cancel_url = "https://example.com/prices"
auto_topup = true
[plugins.billing.packs.small]
price = "10.00"
credit = "10.00"
"""
OPEN = {
    "GET /healthz": "a supervisor has no credential, and learns nothing but that it lives",
    "GET /readyz": "the same, for a load balancer",
    "POST /api/v1/auth/register": "who registers is nobody yet; the setting `registration` decides",
    "POST /api/v1/auth/login": "this is where a credential comes from",
    "POST /api/v1/auth/refresh": "its credential is the refresh token in the body",
    "GET /openapi.json": "the reference tells what is turned on, and nobody's data",
    "GET /docs": "a page that reads the document",
    "GET /docs/start.js": "what starts it",
    "GET /docs/<name>": "files of installed packages, from a list",
    "GET /redoc": "another page that reads the document",
}
PAYERS = "billing owner"
EVERYBODY, KEY_USERS, MANAGERS = "admin billing member owner", "admin member owner", "admin owner"
GRANTED = {
    "POST /api/v1/auth/logout": "user",
    "POST /api/v1/auth/password": "user",
    "GET /api/v1/auth/me": "user",
    "POST /api/v1/auth/accept": "user",
    "POST /api/v1/gateway/org": "user",
    "GET /api/v1/gateway/org": EVERYBODY,
    "GET /api/v1/gateway/org/audit": MANAGERS,
    "GET /api/v1/gateway/org/members": EVERYBODY,
    "PATCH /api/v1/gateway/org/members/<member_id>": MANAGERS,
    "DELETE /api/v1/gateway/org/members/<member_id>": EVERYBODY,  # whoever leaves
    "POST /api/v1/gateway/org/invitations": MANAGERS,
    "GET /api/v1/gateway/org/invitations": MANAGERS,
    "DELETE /api/v1/gateway/org/invitations/<invitation_id>": MANAGERS,
    "POST /api/v1/gateway/keys": KEY_USERS,
    "GET /api/v1/gateway/keys": KEY_USERS,
    "PATCH /api/v1/gateway/keys/<key_id>": KEY_USERS,
    "DELETE /api/v1/gateway/keys/<key_id>": KEY_USERS,
    "POST /api/v1/gateway/keys/<key_id>/rotate": KEY_USERS,
    "GET /api/v1/gateway/providers": EVERYBODY,
    "POST /api/v1/gateway/billing/checkout": PAYERS,
    "GET /api/v1/gateway/billing/portal": PAYERS,
    "GET /api/v1/gateway/billing/status": PAYERS,
    "GET /api/v1/gateway/billing/usage": PAYERS,
    "GET /api/v1/gateway/billing/topup": PAYERS,
    "PUT /api/v1/gateway/billing/topup": PAYERS,
}
"""Who may call what of these plugins, said a second time: it changes on purpose or not at all."""
Tables = dict[str, list[tuple[Any, ...]]]


def tables(database: Database) -> Tables:
    """Everything that is stored, but what the gateway itself writes now and then."""
    names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    names += " AND name NOT IN ('billing_lease', 'billing_state')"
    with database.reading() as db:
        found = [name for (name,) in db.execute_sql(names).fetchall()]
        return {name: db.execute_sql(f'SELECT * FROM "{name}"').fetchall() for name in found}


def restore(database: Database, then: Tables) -> None:
    """Put everything that is stored back to what it was."""
    now = tables(database)
    with database.transaction() as db:
        for name in (name for name in then if now[name] != then[name]):
            db.execute_sql(f'DELETE FROM "{name}"')
            for row in then[name]:
                marks = ", ".join("?" * len(row))
                db.execute_sql(f'INSERT INTO "{name}" VALUES ({marks})', row)


def columns(database: Database) -> dict[str, list[str]]:
    """The columns of each table that the management routes write to."""
    with database.reading() as db:
        return {
            name: [row[1] for row in db.execute_sql(f'PRAGMA table_info("{name}")').fetchall()]
            for name in tables(database)
            if name.startswith(("accounts_", "billing_", "keys_", "org"))
        }


class Desk:
    """Somebody who manages over HTTP; every reply is held against the API document."""

    document: Document | None = None

    async def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Answered:
        raise NotImplementedError

    async def ask(
        self, method: str, path: str, token: str = "", body: object = None, **headers: str
    ) -> Answered:
        """A request; names of headers have underscores for hyphens."""
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            lines.setdefault("authorization", f"Bearer {token}")
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
        data = data if isinstance(data, bytes) else data.encode()
        reply = await self.send(method, path, data, lines)
        if self.document is not None:
            self.document.check(method, path, reply)
        return reply

    async def done(self, *args: Any, **more: str) -> Any:
        """The same, which must succeed; what it answers."""
        reply = await self.ask(*args, **more)
        assert reply.status == 200, (args[:2], reply.body)
        return reply.json()

    async def read_document(self) -> None:
        self.document = Document((await self.ask("GET", "/openapi.json")).json())

    async def login(self, name: str, password: str = PASSWORD) -> Any:
        body = {"email": f"{name}@example.com", "password": password}
        return await self.done("POST", f"{AUTH}/login", "", body)

    async def user(self, name: str) -> str:
        """Register somebody; their access token."""
        body = {"email": f"{name}@example.com", "password": PASSWORD}
        await self.done("POST", f"{AUTH}/register", "", body)
        return str((await self.login(name))["access_token"])

    async def invite(self, owner: str, name: str, role: str = "member") -> Any:
        body = {"email": f"{name}@example.com", "role": role}
        return await self.done("POST", f"{ORG}/invitations", owner, body)

    async def hire(self, owner: str, name: str, role: str) -> str:
        """Register somebody who joins the organization of an owner; their access token."""
        token = await self.user(name)
        invited = await self.invite(owner, name, role)
        await self.done("POST", f"{AUTH}/accept", token, {"invitation": invited["token"]})
        return token


STAFF = ("owner", "admin", "member", "billing")


@dataclass
class House(Desk):
    """A gateway with two organizations: alpha, whose people the walk sends, and beta."""

    gateway: TestGateway
    clock: JumpClock
    tokens: dict[str, str] = field(default_factory=dict)
    """Access tokens, by name: of the staff of alpha by their roles, `outsider` and `loner`."""
    invitations: dict[str, str] = field(default_factory=dict)
    """By name: the token of an invitation to where they are not yet."""
    values: dict[str, str] = field(default_factory=dict)
    """What stands in paths."""
    members: dict[str, str] = field(default_factory=dict)
    key: str = ""
    refresh_token: str = ""
    orgs: dict[str, str] = field(default_factory=dict)
    sent: int = 0

    @property
    def database(self) -> Database:
        return self.gateway.generations.shared.database

    @property
    def routes(self) -> Iterator[tuple[str, Route]]:
        registry = self.gateway.generations.current.registry
        return ((method, route) for (method, _), route in registry.routes.items())

    async def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Answered:
        self.sent += 1
        reply = await self.gateway.request(method, path, body, headers)
        assert reply.status < 500, (method, path, body, reply.body)
        return reply

    async def furnish(self) -> None:
        """People, and something of everything in both organizations."""
        for name in ("owner", "outsider", "loner"):
            self.tokens[name] = await self.user(name)
        for org, name in (("alpha", "owner"), ("beta", "outsider")):
            made = await self.done("POST", ORG, self.tokens[name], {"name": org})
            self.orgs[org] = made["id"]
            key = await self.done("POST", KEYS, self.tokens[name], {"name": f"key of {org}"})
            invited = await self.invite(self.tokens[name], "guest")
            if org == "alpha":
                self.key = key["key"]
                self.values |= {"key_id": key["id"], "invitation_id": invited["id"]}
        owner, outsider = self.tokens["owner"], self.tokens["outsider"]
        for role in STAFF[1:]:
            self.tokens[role] = await self.hire(owner, role, role)
        await self.hire(owner, "second", "owner")  # so that the other one may leave
        for name in (*STAFF, "new"):
            self.invitations[name] = (await self.invite(outsider, name))["token"]
        for name in ("outsider", "loner"):
            self.invitations[name] = (await self.invite(owner, name))["token"]
        listed = await self.done("GET", f"{ORG}/members", owner)
        self.members = {row["email"].partition("@")[0]: row["id"] for row in listed["data"]}
        self.values["name"] = "swagger-ui.css"
        self.refresh_token = (await self.login("owner"))["refresh_token"]

    def sample(self, route: Route, name: str) -> Any:
        """A value that is right for a field of a body or a query, whoever sends it."""
        samples = {
            "register.email": "new@example.com",
            "invitation": self.invitations["new"],
            "login.email": "owner@example.com",
            "email": "somebody@example.com",
            "password": PASSWORD,
            "current": PASSWORD,
            "new": "another horse",
            "refresh_token": self.refresh_token,
            "everywhere": True,
            "org.name": "gamma",
            "name": "a name",
            "role": "member",
            "rpm": 5,
            "models": ["demo"],
            "expires_at": int(self.clock.time()) + 100_000,
            "grace_seconds": 5,
            "limit": 5,
            "before": "aud_z",
            "pack": "small",
            "topup.pack": None,  # or one is bought while tables are compared
            "plan": None,  # what is bought is the one or the other
            "below": "5.00",
            "since": "7d",
            "until": "2030-01-01",
            "by": "model",
        }
        last = route.path.rpartition("/")[2]
        wanted = (f"{last}.{name}", name)
        found = [samples[each] for each in wanted if each in samples]
        assert found, f"{route.path} has a new field: tell `House.sample` of {name}"
        return found[0]

    def body(self, route: Route, who: str) -> dict[str, Any] | None:
        """A body with every field that the route declares, right for who sends it."""
        if route.body is None:
            return None
        names = route.body.model_fields
        body = {name: self.sample(route, name) for name in names}
        if who in self.tokens and route.path.endswith("/accept"):
            body["invitation"] = self.invitations[who]
        return body

    def path(self, route: Route, who: str, value: str = "", **query: Any) -> str:
        """The path with values in it that are right for who asks, or with one other value."""
        values = {**self.values, "member_id": self.members.get(who, self.members["member"])}
        path = re.sub(
            r"<(?:\w+:)?(\w+)>", lambda found: quote(value) or values[found[1]], route.path
        )
        if not query and route.query is not None:
            query = {name: self.sample(route, name) for name in route.query.model_fields}
        return f"{path}?{urlencode(query, doseq=True)}" if query else path

    @contextlib.asynccontextmanager
    async def unchanged(self, why: str) -> AsyncIterator[None]:
        """Fails where what is stored is another afterwards."""
        before = tables(self.database)
        yield
        after = tables(self.database)
        changed = [name for name in before if before[name] != after[name]]
        assert not changed, f"{why} changed {changed}"


@contextlib.asynccontextmanager
async def house(toml: str = TOML) -> AsyncIterator[House]:
    clock = JumpClock()
    async with (
        fake_stripe(clock=clock) as stripe,
        open_gateway(toml=toml.replace("http://127.0.0.1:9", stripe.url), clock=clock) as gateway,
    ):
        opened = House(gateway, clock)
        await opened.read_document()
        await opened.furnish()
        yield opened
        assert opened.document is not None
        assert opened.document.checked > opened.sent / 2


def compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))


def part(document: object) -> str:
    """JSON, or text as it is, as a part of a token."""
    text = document if isinstance(document, str) else compact(document)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


HEADER = {"alg": "HS256", "typ": "JWT"}


def mint(
    claims: object, header: object = HEADER, secret: str = SECRET, digest: str = "sha256"
) -> str:
    """A token signed with a secret, whatever stands in it."""
    signed = f"{part(header)}.{part(claims)}"
    signature = hmac.new(secret.encode(), signed.encode(), digest).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def claims_of(token: str) -> dict[str, Any]:
    middle = token.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    assert isinstance(found, dict)
    return found


async def strangers(house: House) -> dict[str, dict[str, str]]:
    """Headers of who must never be let in where a route is not open."""
    claims = claims_of(house.tokens["owner"])
    gone = (await house.login("admin"))["access_token"]
    await house.done("POST", f"{AUTH}/logout", gone, {})
    everywhere = await house.user("tired")
    await house.done("POST", f"{AUTH}/logout", everywhere, {"everywhere": True})
    expired = {**claims, "iat": claims["iat"] - 1000, "exp": claims["iat"] - 1}
    bearers = {
        "a virtual key": house.key,
        "garbage": "garbage",
        "a forged token": mint(claims, secret=SECRET[::-1]),
        "an expired token": mint(expired),
        "a token that logged out": gone,
        "a token of who logged out everywhere": everywhere,
        "a token for another audience": mint({**claims, "aud": "other"}),
        "a refresh token": house.refresh_token,
    }
    basic = base64.b64encode(f"owner@example.com:{PASSWORD}".encode()).decode()
    return {
        "nobody": {},
        "a virtual key in a header of its own": {"x_api_key": house.key},
        "a password": {"authorization": f"Basic {basic}"},
        **{name: {"authorization": f"Bearer {token}"} for name, token in bearers.items()},
    }


def expected(route: Route, who: str) -> int:
    """What a request with a right body comes to, by the policy of its route."""
    if route.policy & OPEN_POLICIES:
        return 200 if "open" in route.policy else 401
    if who not in (*STAFF, "outsider", "loner"):
        return 401
    if USER_POLICY in route.policy:
        return 200
    if who == "loner":
        return 404
    if who == "outsider":
        allowed = "owner" in route.policy
        return 403 if not allowed else 404 if "<" in route.path else 200
    return 200 if who in route.policy else 403


async def test_every_route_does_for_every_principal_what_its_policy_says_and_no_more() -> None:
    async with house() as home:
        people = {name: {"authorization": f"Bearer {t}"} for name, t in home.tokens.items()}
        principals = {**await strangers(home), **people}
        then = tables(home.database)
        for method, route in list(home.routes):
            for who, headers in principals.items():
                path, body = home.path(route, who), home.body(route, who)
                reply = await home.ask(method, path, "", body, **headers)
                told = f"{who} at {method} {path}: {reply.body[:300]!r}"
                assert reply.status == expected(route, who), told
                if reply.status != 200:
                    assert tables(home.database) == then, told
                    assert reply.code in ("auth_error", "not_found"), told
                if method == "GET":
                    async with home.gateway.open("HEAD", path, b"", headers) as head:
                        assert head.status == reply.status, told
                restore(home.database, then)
        assert home.sent > 500


async def test_exactly_these_routes_are_open_each_for_a_reason() -> None:
    async with house() as home:
        open_routes = {
            f"{method} {route.path}" for method, route in home.routes if "open" in route.policy
        }
        signed = {route.path for _, route in home.routes if "signed" in route.policy}
        assert open_routes == set(OPEN)
        assert signed == {"/api/v1/gateway/billing/webhook"}
    private = TOML.replace("[plugins.apidocs]", "[plugins.apidocs]\npublic = false")
    async with open_gateway(toml=private) as gateway:
        registry = gateway.generations.current.registry
        opened = {route.path for route in registry.routes.values() if "open" in route.policy}
        assert not [path for path in opened if "doc" in path or "openapi" in path]
        assert len(opened) == 5
        for path in ("/openapi.json", "/docs", "/docs/start.js", "/docs/favicon-32x32.png"):
            assert (await gateway.get(path)).status == 401


async def test_who_may_call_a_route_changes_on_purpose_or_not_at_all() -> None:
    async with house() as home:
        granted = {
            f"{method} {route.path}": " ".join(sorted(route.policy))
            for method, route in home.routes
            if not route.policy & OPEN_POLICIES
        }
        assert granted == GRANTED


async def test_a_path_has_no_methods_but_those_that_are_declared() -> None:
    async with house() as home:
        declared = {(method, route.path) for method, route in home.routes}
        async with home.unchanged("a method that nobody declared"):
            for route in {route.path: route for _, route in home.routes}.values():
                for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
                    if (method, route.path) not in declared:
                        path = home.path(route, "owner")
                        reply = await home.ask(method, path, home.tokens["owner"])
                        assert (reply.status, reply.code) == (405, "method_not_allowed")


async def test_the_operations_take_keys_and_nothing_else() -> None:
    async with house() as home:
        people = {name: {"authorization": f"Bearer {t}"} for name, t in home.tokens.items()}
        principals = {**await strangers(home), **people}
        operations = home.gateway.generations.current.registry.operations
        assert operations
        for method, path in operations:
            for who, headers in principals.items():
                body = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]}
                given = body if method == "POST" else None
                reply = await home.ask(method, path.replace("{id}", "demo"), "", given, **headers)
                assert (reply.status == 401) is ("virtual key" not in who), (who, path, reply)
                assert reply.status in (200, 401), (who, path, reply)


def wrong_values(document: Document, schema: dict[str, Any]) -> list[Any]:
    """Of values of every kind those that a schema does not allow."""
    candidates: list[Any] = [
        None,
        True,
        False,
        0,
        -1,
        1,
        1.5,
        2**31,
        2**63,
        10**30,
        "",
        "text",
        "1",
        "true",
    ]
    candidates += [[], [None], [1], ["text"], {}, {"id": "text"}, "x" * 100_000, "\n", "a\x00b"]
    candidates += [[""], [[]], ["text"] * 1001, "owner\n", "Owner", 5e-324, 1e300]
    return [value for value in candidates if document.errors(schema, value)]


def managers(route: Route) -> list[str]:
    """Who may call a route, of the people of alpha; somebody for one that is open."""
    if route.policy & OPEN_POLICIES:
        return ["nobody"]
    return [who for who in STAFF if USER_POLICY in route.policy or who in route.policy]


async def test_a_field_of_a_wrong_kind_is_refused_by_its_name_and_changes_nothing() -> None:
    async with house() as home:
        assert home.document is not None
        asked = 0
        for method, route in [pair for pair in home.routes if pair[1].body is not None]:
            who = managers(route)[0]
            token, path = home.tokens.get(who, ""), home.path(route, who)
            body = home.body(route, who) or {}
            schema = home.document.body(method, path)
            async with home.unchanged(f"a wrong body at {method} {path}"):
                for name, told in schema["properties"].items():
                    wrong = wrong_values(home.document, told)
                    assert len(wrong) > 5, (path, name)
                    for value in wrong:
                        reply = await home.ask(method, path, token, {**body, name: value})
                        assert reply.status == 400, (method, path, name, value, reply.body)
                        blamed = reply.json()["error"]["param"] or ""
                        # What no integer of the gateway holds is refused before fields are read.
                        assert blamed.partition(".")[0] == name or value in (2**63, 10**30)
                        asked += 1
                for name in schema.get("required", ()):
                    less = {each: value for each, value in body.items() if each != name}
                    reply = await home.ask(method, path, token, less)
                    assert (reply.status, reply.json()["error"]["param"]) == (400, name)
                twice = json.dumps(body)[:-1] + ', "' + min(body) + '": null}'
                for no_object in (b"[]", b"null", b'"text"', b"{", b"\xff", b"[" * 9999, twice):
                    raw = no_object if isinstance(no_object, bytes) else no_object.encode()
                    assert (await home.ask(method, path, token, raw)).status == 400, (path, raw)
        assert asked > 200


async def test_no_column_of_any_table_is_written_by_a_field_that_a_route_does_not_declare() -> None:
    async with house() as home:
        with home.database.transaction() as db:
            db.execute_sql("ALTER TABLE keys_key ADD COLUMN is_admin INTEGER DEFAULT 0")
        names = {name for each in columns(home.database).values() for name in each}
        assert {"id", "org", "role", "created_at", "is_admin", "hash", "epoch"} <= names
        for method, route in [pair for pair in home.routes if pair[1].body is not None]:
            assert route.body is not None
            undeclared = sorted({*names, "surprise", "Name", "__class__", ""})
            undeclared = [name for name in undeclared if name not in route.body.model_fields]
            for who in managers(route):
                token, path = home.tokens.get(who, ""), home.path(route, who)
                body = home.body(route, who) or {}
                async with home.unchanged(f"{who} at {method} {path}"):
                    for name in undeclared:
                        reply = await home.ask(method, path, token, {**body, name: 1})
                        assert reply.status == 400, (who, method, path, name, reply.body)
                        assert reply.json()["error"]["param"] == (name or None)


async def test_a_query_that_is_not_declared_is_refused() -> None:
    async with house() as home:
        assert home.document is not None
        queried = [pair for pair in home.routes if pair[1].query is not None]
        assert queried
        for method, route in queried:
            assert route.query is not None
            who = managers(route)[0]
            token = home.tokens.get(who, "")
            right = {name: home.sample(route, name) for name in route.query.model_fields}
            wrong: list[dict[str, Any]] = [{**right, "org": home.orgs["beta"]}]
            wrong += [{**right, name: [value, value]} for name, value in right.items()]
            wrong += [{"limit": value} for value in ("0", "-1", "x", "1.5", "1e3", "", 10**30)]
            for query in wrong:
                reply = await home.ask(method, home.path(route, who, **query), token)
                assert reply.status == 400, (query, reply.body)


async def test_nobody_raises_themselves_or_others_above_what_they_are() -> None:
    async with house() as home:
        members = f"{ORG}/members"
        for who, allowed in (("admin", ("member", "billing")), ("member", ()), ("billing", ())):
            token, mine = home.tokens[who], home.members[who]
            async with home.unchanged(f"{who} above themselves"):
                for role in ROLES:
                    change, body = f"{members}/{home.members['owner']}", {"role": role}
                    assert (await home.ask("PATCH", change, token, body)).status == 403, who
                    if role == "owner" or who != "admin":
                        change = f"{members}/{mine}"
                        assert (await home.ask("PATCH", change, token, body)).status == 403, who
                        invite = {"email": "somebody@example.com", "role": role}
                        reply = await home.ask("POST", f"{ORG}/invitations", token, invite)
                        assert reply.status == 403, who
                for other in set(home.members) - {who, *allowed}:
                    path = f"{members}/{home.members[other]}"
                    assert (await home.ask("DELETE", path, token)).status == 403, (who, other)
            for other in allowed:
                then = tables(home.database)
                await home.done("DELETE", f"{members}/{home.members[other]}", token)
                restore(home.database, then)
        await home.done("DELETE", f"{members}/{home.members['second']}", home.tokens["owner"])
        async with home.unchanged("the last owner"):
            last = f"{members}/{home.members['owner']}"
            for method, given in (("DELETE", None), ("PATCH", {"role": "admin"})):
                reply = await home.ask(method, last, home.tokens["owner"], given)
                assert (reply.status, reply.code) == (409, "conflict")


async def test_what_a_route_does_not_declare_is_refused_by_those_that_take_nothing_too() -> None:
    async with house() as home:
        for method, route in list(home.routes):
            who = managers(route)[0]
            if route.policy & OPEN_POLICIES:
                continue  # the health of a gateway is asked for with queries that defeat caches
            token, path, body = home.tokens[who], home.path(route, who), home.body(route, who)
            async with home.unchanged(f"{method} {path}"):
                if route.query is None:
                    reply = await home.ask(method, f"{path}?org={home.orgs['beta']}", token, body)
                    assert reply.status == 400, (method, path, reply.body)
                if route.body is None:
                    reply = await home.ask(method, path, token, {"org": home.orgs["beta"]})
                    assert reply.status == 400, (method, path, reply.body)


async def test_of_two_credentials_neither_counts() -> None:
    async with house() as home:
        right, other = (f"Bearer {home.tokens[who]}" for who in ("owner", "outsider"))
        for first, second in ((right, other), (right, "Bearer x"), ("Bearer x", right)):
            both = {"authorization": first, "Authorization": second}
            for method, path in (("GET", ME), ("GET", KEYS), ("GET", "/v1/models")):
                assert (await home.ask(method, path, **both)).status == 401, both


def shown(reply: Answered) -> tuple[int, bytes, dict[str, str]]:
    """All of a reply but what is another for every request."""
    own = {"x-request-id", "date"}
    return reply.status, reply.body, {k: v for k, v in reply.headers.items() if k not in own}


def ids_beyond(database: Database, org: str) -> list[str]:
    """Every id and text that names something, but in rows of one organization."""
    found: set[str] = set()
    ours: set[str] = set()
    named = columns(database)
    for table, rows in tables(database).items():
        for row in rows if table in named else ():
            told = dict(zip(named[table], row, strict=True))
            names = {
                told[name]
                for name in ("id", "org", "user", "session", "name", "prefix", "hash", "made_by")
                if isinstance(told.get(name), str)
            }
            (ours if org in (told.get("org"), told.get("id")) else found).update(names)
    return sorted(name for name in found - ours if name and "/" not in name)


async def test_what_belongs_to_others_is_answered_like_what_never_was_byte_for_byte() -> None:
    async with house() as home:
        asked = 0
        with_values = [
            (method, route)
            for method, route in home.routes
            if "<" in route.path and not route.policy & OPEN_POLICIES
        ]
        for org, crew in (("alpha", STAFF), ("beta", ("outsider",))):
            foreign = ids_beyond(home.database, home.orgs[org])
            assert {value[:4] for value in foreign} >= {"key_", "mem_", "inv_", "usr_", "org_"}
            for method, route in with_values:
                for who in crew:
                    if not {who if who in ROLES else "owner", USER_POLICY} & route.policy:
                        continue
                    token, body = home.tokens[who], home.body(route, who)
                    never = home.path(route, who, "key_000000000000000000000000")
                    absent = await home.ask(method, never, token, body)
                    assert absent.status == 404, (who, method, never, absent.body)
                    async with home.unchanged(f"{who} of {org} at {method} {route.path}"):
                        for value in foreign:
                            path = home.path(route, who, value)
                            reply = await home.ask(method, path, token, body)
                            assert shown(reply) == shown(absent), (who, method, path, reply.body)
                            asked += 1
        assert asked > 500


async def test_an_organization_of_others_cannot_be_named_by_header() -> None:
    async with house() as home:
        for method, route in list(home.routes):
            if route.policy & OPEN_POLICIES:
                continue
            for who, org in (*((who, "beta") for who in STAFF), ("outsider", "alpha")):
                token, path, body = home.tokens[who], home.path(route, who), home.body(route, who)
                async with home.unchanged(f"{who} in {org} at {method} {path}"):
                    absent = await home.ask(method, path, token, body, x_org_id="org_00")
                    assert absent.status == 404, (who, method, path, absent.body)
                    for named in (home.orgs[org], org, "default", "*", "%", "' OR 1=1 --"):
                        reply = await home.ask(method, path, token, body, x_org_id=named)
                        assert shown(reply) == shown(absent), (who, path, named, reply.body)
                    # A script whose variable is empty means no organization, least of all another.
                    reply = await home.ask(method, path, token, body, x_org_id="")
                    assert reply.status in (400, 404), (who, method, path, reply.body)


async def test_nothing_that_is_read_shows_what_belongs_to_others() -> None:
    async with house() as home:
        foreign = ids_beyond(home.database, home.orgs["alpha"])
        foreign = [value for value in foreign if re.match(r"(key|mem|inv|org|aud)_", value)]
        assert foreign
        for method, route in list(home.routes):
            if method != "GET" or route.policy & OPEN_POLICIES:
                continue
            for who in managers(route):
                reply = await home.ask(method, home.path(route, who), home.tokens[who])
                leaked = [value for value in foreign if value.encode() in reply.body]
                assert not leaked, (who, route.path, leaked)


async def test_an_invitation_of_somebody_else_is_answered_like_one_that_never_was() -> None:
    async with house() as home:
        path, token = f"{AUTH}/accept", home.tokens["loner"]
        absent = await home.ask("POST", path, token, {"invitation": "inv-" + "0" * 43})
        assert absent.status == 404
        async with home.unchanged("an invitation of somebody else"):
            for name in STAFF:
                given = {"invitation": home.invitations[name]}
                assert shown(await home.ask("POST", path, token, given)) == shown(absent)


CLAIMS = ("iss", "aud", "sub", "jti", "iat", "exp", "epoch")


def forged_headers(claims: dict[str, Any]) -> Iterator[str]:
    """Other algorithms, and headers that name other keys."""
    names = ["none", "None", "NONE", "nOnE", "", "hs256", "HS384", "HS512", "RS256", "RS512"]
    names += ("PS256", "ES256", "EdDSA", "A256KW", "dir", "HS256 ", "HS256\x00", "SHA256")
    for name in names:
        header = {**HEADER, "alg": name}
        unsigned = f"{part(header)}.{part(claims)}."
        yield from (unsigned, unsigned + part("x" * 32), unsigned.rstrip("."))
        for digest in ("sha256", "sha384", "sha512"):
            yield mint(claims, header, SECRET, digest)
    for odd in (None, 0, 256, True, ["HS256"], {"HS256": 1}):
        yield mint(claims, {**HEADER, "alg": odd})
    yield mint(claims, {"typ": "JWT"})
    kids = ["0", "1", "/dev/null", "../../../../dev/null", "/proc/self/environ", "' OR 1=1 --"]
    kids += ("x' UNION SELECT 'k", "|id", "$(id)", "http://127.0.0.1/k", "", "a" * 300, "\x00")
    for kid in kids:
        for secret in ("", "k", "\n", SECRET):
            yield mint(claims, {**HEADER, "kid": kid}, secret)
    jwk = {"kty": "oct", "k": part("k" * 32)}
    more: dict[str, Any] = {"jku": "http://127.0.0.1/k", "x5u": "http://127.0.0.1/k", "jwk": jwk}
    more |= {"x5c": ["k"], "crit": ["exp"], "b64": False, "zip": "DEF", "cty": "JWT", "enc": "dir"}
    for name, value in more.items():
        yield from (mint(claims, {**HEADER, name: value}, key) for key in ("k" * 32, SECRET))
    for typ in ("jwt", "at+jwt", "JWE", None, 1):
        yield mint(claims, {**HEADER, "typ": typ})


def forged_claims(claims: dict[str, Any]) -> Iterator[str]:
    """Signed as ours are: what they say is not what ours say."""
    odd: tuple[Any, ...] = (None, "", "x", True, False, 0, -1, 1.5, [], {}, 10**18, 2**63 - 1)
    for name in CLAIMS:
        yield mint({each: value for each, value in claims.items() if each != name})
        for value in odd:
            if value != claims[name] or type(value) is not type(claims[name]):
                yield mint({**claims, name: value})
        yield mint({**claims, name: [claims[name]]})
        yield mint({**claims, name: {"value": claims[name]}})
        yield mint({**claims, name.upper(): claims[name]})
    now = claims["iat"]
    for change in ({"exp": now}, {"exp": now - 1}, {"iat": now + 60}, {"exp": now + 90_000}):
        yield mint({**claims, **change})
    text = compact(claims)
    for literal in ("1e18", "1E18", "1e999", "NaN", "Infinity", "-Infinity", "0x7fffffff", "1.0e7"):
        yield mint(text.replace(f'"exp":{claims["exp"]}', f'"exp":{literal}'))
    for name in ("role", "org", "admin", "nbf", "scope", "kid", "id"):
        yield mint({**claims, name: "owner"})


def forged_documents(claims: dict[str, Any]) -> Iterator[str]:
    """Claims that are no plain object, or that say something twice."""
    text = compact(claims)
    for name in CLAIMS:
        again = compact({name: claims[name]})[1:-1]
        yield from (mint(f"{text[:-1]},{again}}}"), mint(f"{{{again},{text[1:]}"))
    for whole in ("[]", "null", '"text"', "{}", "", "{", "[" * 200, f"{text} {text}", f"[{text}]"):
        yield mint(whole)


def forged_signatures(token: str, claims: dict[str, Any]) -> Iterator[str]:
    """Signed with what is not the secret, or put together from parts of real ones."""
    others = ["", "secret", "x" * 32, SECRET[:-1], SECRET + "x", SECRET + "\n"]
    others += [SECRET.upper(), SECRET[::-1], SECRET * 2, part(SECRET), PASSWORD, "changeme" * 4]
    others += [hashlib.sha256(SECRET.encode()).hexdigest()]
    yield from (mint(claims, HEADER, secret) for secret in others)
    header, payload, signature = token.split(".")
    raw = base64.urlsafe_b64decode(signature + "=")
    for index in range(len(raw)):
        flipped = bytes([*raw[:index], raw[index] ^ 1, *raw[index + 1 :]])
        yield f"{header}.{payload}.{base64.urlsafe_b64encode(flipped).decode().rstrip('=')}"
    for name in CLAIMS:
        yield f"{header}.{part({**claims, name: 'x'})}.{signature}"
    yield f"{part({**HEADER, 'alg': 'none'})}.{payload}.{signature}"
    yield from (f"{header}.{payload}", f"{header}.{payload}.", f".{payload}.{signature}")
    yield from (f"{token}.{signature}", f"{token}=", f"{token}A", f".{token}", f"{token} x")
    yield from (f"{header}..{signature}", f"{payload}.{header}.{signature}", f"x{token}", "a.b.c")
    yield from (token.replace(".", "%2e"), token.swapcase(), f'"{token}"', f"{token},{token}")
    twice = '{"alg":"none","alg":"HS256","typ":"JWT"}'
    yield from (f"{part(twice)}.{payload}.{signature}", mint(claims, twice))
    yield mint(claims, '{"alg":"HS256","typ":"JWT","typ":"JWT"}')


async def test_four_hundred_forged_tokens_are_all_refused() -> None:
    async with house() as home:
        token = home.tokens["owner"]
        claims = claims_of(token)
        assert mint(claims) == token, "what is forged here is not what the gateway makes"
        other = claims_of(home.tokens["outsider"])
        forged = {
            *forged_headers(claims),
            *forged_claims(claims),
            *forged_documents(claims),
            *forged_signatures(token, claims),
            *(mint({**claims, name: other[name]}) for name in ("sub", "jti")),
        }
        assert len(forged) >= 400
        assert token not in forged
        async with home.unchanged("a forged token"):
            for each in sorted(forged):
                sent = each.encode("ascii", "ignore").decode()
                for method, path, body in (("GET", ME, None), ("POST", KEYS, {"name": "stolen"})):
                    reply = await home.ask(method, path, sent, body)
                    assert (reply.status, reply.code) == (401, "auth_error"), each
        assert (await home.ask("GET", ME, token)).status == 200


async def test_a_token_is_over_to_the_second() -> None:
    async with house() as home:
        token = home.tokens["owner"]
        home.clock.jump(899)
        assert (await home.ask("GET", ME, token)).status == 200
        home.clock.jump(1)
        assert (await home.ask("GET", ME, token)).status == 401


TOY = """
class Toy:
    def __init__(self, settings): pass
    @hookimpl
    def register(self, gateway): gateway.add_route("/toys", self.toys{policy})
    async def toys(self): return {{}}
"""


@pytest.mark.parametrize("policy", ["", ', policy=""', ', policy="chief"', ", policy=frozenset()"])
def test_a_route_without_a_policy_stops_the_start_with_one_clear_line(
    project: Path, policy: str
) -> None:
    info = project / "toy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tollkeeper]\ntoy = toy:Toy\n")
    (project / "toy.py").write_text("from tollkeeper import hookimpl\n" + TOY.format(policy=policy))
    config = project / "tollkeeper.toml"
    config.write_text(config.read_text() + "[plugins.toy]\n")
    found = os.pathsep.join([str(project), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    stopped = run("serve", cwd=project, PYTHONPATH=found)
    assert stopped.returncode != 0
    lines = (stopped.stdout + stopped.stderr).strip().splitlines()
    assert len(lines) == 1, lines
    assert "plugin toy: route /toys needs a policy of: admin, billing, member, open" in lines[0]


async def test_a_new_column_is_not_writable() -> None:
    async with house() as home:
        with home.database.transaction() as db:
            db.execute_sql("ALTER TABLE keys_key ADD COLUMN is_admin INTEGER NOT NULL DEFAULT 0")
        token, body = home.tokens["owner"], {"name": "mine"}
        made = await home.done("POST", KEYS, token, body)
        path = f"{KEYS}/{made['id']}"
        async with home.unchanged("a column that no policy knows"):
            for method, where in (("POST", KEYS), ("PATCH", path), ("POST", f"{path}/rotate")):
                reply = await home.ask(method, where, token, {**body, "is_admin": 1})
                assert (reply.status, reply.code) == (400, "invalid_request")
        assert (await home.done("PATCH", path, token, {"name": "other"}))["name"] == "other"
        with home.database.reading() as db:
            (most,) = db.execute_sql("SELECT max(is_admin) FROM keys_key").fetchone()
        assert most == 0


@dataclass
class Wire(Desk):
    """One connection to a gateway on a socket, which is never made anew."""

    link: Link

    async def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Answered:
        lines = {"host": "x", "content-length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.link.request(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        parts = []
        while part := await self.link.chunk():
            parts.append(part)
        return Answered(self.link.status, dict(self.link.headers), b"".join(parts))

    async def chat(self, key: str, model: str = "demo") -> Answered:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        return await self.ask("POST", "/v1/chat/completions", key, body)


@contextlib.asynccontextmanager
async def wires(count: int) -> AsyncIterator[list[Wire]]:
    """A gateway on a socket, and connections to it."""
    async with serve(TOML) as gateway:
        opened = [Wire(Link(await gateway.connect())) for _ in range(count)]
        try:
            for wire in opened:
                await wire.read_document()
            yield opened
        finally:
            for wire in opened:
                await wire.link.aclose()


async def test_a_key_that_was_revoked_is_refused_by_the_next_request_of_its_connection() -> None:
    async with wires(2) as (caller, manager):
        owner = await manager.user("owner")
        await manager.done("POST", ORG, owner, {"name": "alpha"})
        for _ in range(20):
            key = await manager.done("POST", KEYS, owner, {"name": "short-lived"})
            assert (await caller.chat(key["key"])).status == 200
            await manager.done("DELETE", f"{KEYS}/{key['id']}", owner)
            refused = await caller.chat(key["key"])
            assert (refused.status, refused.code) == (401, "auth_error")
            assert key["id"] not in str(await manager.done("GET", KEYS, owner))


async def test_a_key_that_was_changed_is_judged_by_its_new_terms_at_once() -> None:
    async with wires(2) as (caller, manager):
        owner = await manager.user("owner")
        await manager.done("POST", ORG, owner, {"name": "alpha"})
        key = await manager.done("POST", KEYS, owner, {"name": "changing"})
        path = f"{KEYS}/{key['id']}"
        assert (await caller.chat(key["key"])).status == 200
        await manager.done("PATCH", path, owner, {"models": ["another"]})
        refused = await caller.chat(key["key"])
        assert (refused.status, refused.code) == (403, "auth_error")
        await manager.done("PATCH", path, owner, {"models": None})
        assert (await caller.chat(key["key"])).status == 200
        rotated = await manager.done("POST", f"{path}/rotate", owner, {"grace_seconds": 0})
        assert (await caller.chat(key["key"])).status == 401
        assert (await caller.chat(rotated["key"])).status == 200


async def test_a_logout_is_in_force_with_the_next_request_of_every_connection() -> None:
    async with wires(2) as (here, there):
        await here.user("ann")
        first, second = await here.login("ann"), await there.login("ann")
        token = first["access_token"]
        for wire in (here, there):
            assert (await wire.ask("GET", ME, token)).status == 200
        await here.done("POST", f"{AUTH}/logout", token, {})
        for wire in (here, there):
            assert (await wire.ask("GET", ME, token)).status == 401
        again = {"refresh_token": first["refresh_token"]}
        assert (await there.ask("POST", f"{AUTH}/refresh", "", again)).status == 401
        assert (await there.ask("GET", ME, second["access_token"])).status == 200


@pytest.mark.parametrize("how", ["logout", "password"])
async def test_what_ends_all_sessions_does_so_at_once(how: str) -> None:
    async with wires(2) as (here, there):
        await here.user("ann")
        stays = await here.user("bob")
        sessions = [await wire.login("ann") for wire in (here, there, here)]
        bodies = {"logout": {"everywhere": True}}
        bodies["password"] = {"current": PASSWORD, "new": "another horse"}  # type: ignore[dict-item]
        await here.done("POST", f"{AUTH}/{how}", sessions[0]["access_token"], bodies[how])
        for session in sessions:
            for wire in (here, there):
                assert (await wire.ask("GET", ME, session["access_token"])).status == 401
            again = {"refresh_token": session["refresh_token"]}
            assert (await there.ask("POST", f"{AUTH}/refresh", "", again)).status == 401
        assert (await there.ask("GET", ME, stays)).status == 200
        right = PASSWORD if how == "logout" else "another horse"
        assert (await there.login("ann", right))["access_token"]


async def test_a_member_who_was_removed_or_has_another_role_is_judged_anew_at_once() -> None:
    async with wires(2) as (here, there):
        owner = await here.user("owner")
        org = (await here.done("POST", ORG, owner, {"name": "alpha"}))["id"]
        worker = await here.hire(owner, "worker", "admin")
        listed = await here.done("GET", f"{ORG}/members", owner)
        (member,) = [row["id"] for row in listed["data"] if row["role"] == "admin"]
        path = f"{ORG}/members/{member}"
        invite = {"email": "somebody@example.com", "role": "member"}
        for role, invites, makes_keys in (
            ("member", 403, 200),
            ("billing", 403, 403),
            ("admin", 200, 200),
        ):
            await here.done("PATCH", path, owner, {"role": role})
            asked = await there.ask("POST", f"{ORG}/invitations", worker, invite)
            made = await there.ask("POST", KEYS, worker, {"name": "mine"})
            assert (asked.status, made.status) == (invites, makes_keys), role
        await here.done("DELETE", path, owner)
        for named in ({}, {"x_org_id": org}):
            for method, where, body in (("GET", ORG, None), ("POST", KEYS, {"name": "mine"})):
                assert (await there.ask(method, where, worker, body, **named)).status == 404
        assert (await there.done("GET", ME, worker))["orgs"] == []


async def count_keys(home: Desk, token: str) -> int:
    return len((await home.done("GET", KEYS, token))["data"])


async def test_a_write_that_is_sent_again_under_its_key_is_answered_again_and_not_done() -> None:
    async with house() as home:
        for who, method, path, body in (
            ("owner", "POST", f"{ORG}/invitations", {"email": "x@example.com", "role": "member"}),
            ("owner", "PATCH", f"{KEYS}/{home.values['key_id']}", {"name": "renamed"}),
            ("owner", "DELETE", f"{KEYS}/{home.values['key_id']}", None),
            ("loner", "POST", ORG, {"name": "the loner's"}),
            ("loner", "POST", ORG, {"name": "alpha"}),  # taken: a refusal is an answer, too
        ):
            token, once = home.tokens[who], f"{method} {path} {body}"
            first = await home.ask(method, path, token, body, idempotency_key=once)
            async with home.unchanged("a write that is answered again"):
                second = await home.ask(method, path, token, body, idempotency_key=once)
            assert second.status == first.status
            hidden = {**first.json(), "token": None} if "token" in first.json() else first.json()
            assert second.json() == hidden
            other = {"name": "different"} if method != "DELETE" else None
            elsewhere = path if other else f"{path}x"
            async with home.unchanged("another request under the same key"):
                taken = await home.ask(method, elsewhere, token, other, idempotency_key=once)
            assert taken.status in (400, 409), taken.body
            if taken.status == 400:
                right = {**(body or {}), "email": "y@example.com"}
                taken = await home.ask(method, path, token, right, idempotency_key=once)
            assert (taken.status, taken.code) == (409, "conflict")


async def test_a_key_that_was_made_is_shown_once_however_often_it_is_asked_for() -> None:
    async with house() as home:
        token, before = home.tokens["owner"], await count_keys(home, home.tokens["owner"])
        first = await home.done("POST", KEYS, token, {"name": "one"}, idempotency_key="k-1")
        again = await home.done("POST", KEYS, token, {"name": "one"}, idempotency_key="k-1")
        assert first["key"].startswith("tk-")
        assert again == {**first, "key": None}
        assert await count_keys(home, token) == before + 1
        path = f"{KEYS}/{first['id']}/rotate"
        rotated = await home.done("POST", path, token, {}, idempotency_key="k-2")
        assert await home.done("POST", path, token, {}, idempotency_key="k-2") == {
            **rotated,
            "key": None,
        }
        stored = repr(tables(home.database))
        for secret in (first["key"], rotated["key"]):
            assert secret not in stored
            assert secret[3:] not in stored


async def test_of_two_writes_at_once_under_one_key_one_is_done() -> None:
    async with house() as home:
        token, before = home.tokens["owner"], await count_keys(home, home.tokens["owner"])
        statuses: list[int] = []

        async def make() -> None:
            body = {"name": "one"}
            reply = await home.ask("POST", KEYS, token, body, idempotency_key="at once")
            statuses.append(reply.status)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(make)
        assert set(statuses) <= {200, 409}
        assert 200 in statuses
        assert await count_keys(home, token) == before + 1


async def test_an_idempotency_key_is_free_again_after_a_day() -> None:
    async with house(TOML.replace("registration", "access_seconds = 86400\nregistration")) as home:
        token, body = home.tokens["owner"], {"name": "daily"}
        first = await home.done("POST", KEYS, token, body, idempotency_key="daily")
        home.clock.jump(86_399)
        again = await home.done("POST", KEYS, token, body, idempotency_key="daily")
        home.clock.jump(1)
        token = (await home.login("owner"))["access_token"]
        anew = await home.done("POST", KEYS, token, body, idempotency_key="daily")
        assert again["id"] == first["id"] != anew["id"]
        assert anew["key"]


async def test_users_do_not_share_idempotency_keys() -> None:
    async with house() as home:
        made = [
            await home.done("POST", KEYS, home.tokens[who], {"name": who}, idempotency_key="1")
            for who in ("owner", "admin", "outsider")
        ]
        assert len({key["id"] for key in made}) == 3
        assert all(key["key"] for key in made)


async def test_an_idempotency_key_that_is_none_is_refused() -> None:
    async with house() as home:
        for odd in ("", "x" * 201, "caf\u00e9"):
            async with home.unchanged("a write without a sensible key"):
                reply = await home.ask(
                    "POST", KEYS, home.tokens["owner"], {"name": "x"}, idempotency_key=odd
                )
            assert reply.status == 400, odd
