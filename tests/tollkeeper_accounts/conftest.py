"""A database with this plugin's tables, users in it, and a gateway to manage."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.storage import Database, make_database
from tollkeeper.testing import Answered, JumpClock, TestGateway, open_gateway
from tollkeeper_accounts import Accounts, service

Run = Callable[..., Any]
NOW = 1_000_000
PASSWORD = "correct horse"
AUTH, GATEWAY = "/api/v1/auth/", "/api/v1/gateway/"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = make_database("sqlite:///my.db", tmp_path)
    opened.open()
    opened.migrate_package("accounts", "tollkeeper_accounts")
    yield opened
    opened.close()


@pytest.fixture
def run(database: Database) -> Run:
    """Calls a function in a transaction of its own, as `Database.write` does."""

    def run(work: Callable[..., Any], *args: object) -> Any:
        with database.transaction() as connection:
            return work(connection, *args)

    return run


@pytest.fixture
def ann(run: Run) -> Any:
    return run(service.add_user, "ann@example.com", "hash of ann", NOW)


@pytest.fixture
def bob(run: Run) -> Any:
    return run(service.add_user, "bob@example.com", "hash of bob", NOW)


@dataclass
class Stage:
    """A gateway, and people who manage it."""

    gateway: TestGateway
    clock: JumpClock

    async def call(
        self, method: str, path: str, token: str = "", body: object = None, **headers: str
    ) -> Answered:
        """A request; names of headers have underscores for hyphens."""
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            lines["authorization"] = f"Bearer {token}"
        data = b"" if body is None else json.dumps(body).encode()
        return await self.gateway.request(method, path, data, lines)

    async def auth(self, what: str, token: str = "", **body: Any) -> Answered:
        """A POST below `/api/v1/auth/`."""
        return await self.call("POST", AUTH + what, token, body)

    async def made(self, path: str, token: str, **body: object) -> Any:
        """What a POST below `/api/v1/gateway/` made."""
        answered = await self.call("POST", GATEWAY + path, token, body)
        assert answered.status == 200, answered.body
        return answered.json()

    async def login(self, name: str, password: str = PASSWORD) -> Any:
        """The session of a user."""
        email = f"{name}@example.com"
        answered = await self.auth("login", email=email, password=password)
        assert answered.status == 200, answered.body
        return answered.json()

    async def user(self, name: str, **more: str) -> str:
        """Register somebody; their access token."""
        email = f"{name}@example.com"
        answered = await self.auth("register", email=email, password=PASSWORD, **more)
        assert answered.status == 200, answered.body
        return str((await self.login(name))["access_token"])

    async def hire(self, owner: str, name: str, role: str, org: str) -> str:
        """Invite a user into an organization; the access token of who accepted."""
        token = await self.user(name)
        email = f"{name}@example.com"
        invited = await self.call(
            "POST",
            f"{GATEWAY}org/invitations",
            owner,
            {"email": email, "role": role},
            x_org_id=org,
        )
        accepted = await self.auth("accept", token, invitation=invited.json()["token"])
        assert accepted.status == 200, accepted.body
        return token


@pytest.fixture
def opened() -> Callable[..., contextlib.AbstractAsyncContextManager[Stage]]:
    """Opens a gateway where anybody may register, unless settings say otherwise."""

    @contextlib.asynccontextmanager
    async def opened(**settings: object) -> AsyncIterator[Stage]:
        given = {"jwt_secret": "0123456789abcdef0123456789abcdef", "registration": "open"}
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in {**given, **settings}.items()]
        clock = JumpClock()
        toml = "[plugins.accounts]\n" + "".join(lines) + "[plugins.keys]\n"
        async with open_gateway(toml=toml, plugins={"accounts": Accounts}, clock=clock) as gateway:
            yield Stage(gateway, clock)

    return opened
