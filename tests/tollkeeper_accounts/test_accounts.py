"""The plugin in front of a gateway: the whole story, and who may not take part in it."""

from typing import Any

import jwt
import pytest

from tollkeeper import ConfigError
from tollkeeper.catalogue import Catalogue
from tollkeeper.config import parse_config
from tollkeeper.errors import PluginError
from tollkeeper.gateway import Route
from tollkeeper.management import OPEN_POLICIES
from tollkeeper.testing import open_gateway
from tollkeeper_accounts import SWEEP_SECONDS, Accounts
from tollkeeper_accounts.models import DatabaseError

SECRET = "0123456789abcdef0123456789abcdef"
PASSWORD = "correct horse"
ORG, KEYS, ME = "/api/v1/gateway/org", "/api/v1/gateway/keys", "/api/v1/auth/me"
OPEN = {f"/api/v1/auth/{what}" for what in ("register", "login", "refresh")}


def routes(stage: Any) -> list[Route]:
    found = stage.gateway.generations.current.registry.routes.values()
    return [route for route in dict.fromkeys(found) if route.plugin == "accounts"]


async def test_the_story_of_a_gateway_that_is_shared(opened: Any) -> None:
    async with opened() as stage:
        # Ann registers, makes an organization, and invites Bob.
        ann = await stage.user("ann")
        org = await stage.made("org", ann, name="acme")
        invited = await stage.made("org/invitations", ann, email="bob@example.com", role="member")
        bob = await stage.user("bob", invitation=invited["token"])
        assert (await stage.call("GET", ORG, bob)).json() == {**org, "role": "member"}
        # Bob makes a key and calls the gateway with it.
        key = await stage.made("keys", bob, name="bob's laptop", models=["test"])
        stage.gateway.key = key["key"]
        assert (await stage.gateway.chat()).text() == "hello"
        assert stage.gateway.settled[-1].principal.org == org["id"]
        # Ann sees the key and ends it; the next call is refused.
        (seen,) = (await stage.call("GET", KEYS, ann)).json()["data"]
        assert (seen["id"], seen["name"]) == (key["id"], "bob's laptop")
        assert (await stage.call("DELETE", f"{KEYS}/{key['id']}", ann)).status == 200
        assert (await stage.gateway.chat()).code == "auth_error"
        stage.gateway.key = ""
        # Bob logs out everywhere; neither of his tokens is worth anything.
        second = (await stage.login("bob"))["access_token"]
        assert (await stage.auth("logout", second, everywhere=True)).status == 200
        for token in (bob, second):
            refused = await stage.call("GET", ME, token)
            assert (refused.status, refused.code) == (401, "auth_error")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert (await stage.call("GET", ME, ann)).status == 200


async def test_each_credential_opens_its_own_half(opened: Any) -> None:
    async with opened() as stage:
        ann = await stage.user("ann")
        await stage.made("org", ann, name="acme")
        key = (await stage.made("keys", ann, name="ci"))["key"]
        for path in (ORG, KEYS, ME):
            for headers in ({"authorization": f"Bearer {key}"}, {"x_api_key": key}):
                refused = await stage.call("GET", path, **headers)
                assert (refused.status, refused.code) == (401, "auth_error")
        for headers in ({"authorization": f"Bearer {ann}"}, {"x_api_key": ann}):
            refused = await stage.call("GET", "/v1/models", **headers)
            assert (refused.status, refused.code) == (401, "auth_error")


async def test_the_open_routes_are_these_and_no_others(opened: Any) -> None:
    async with opened() as stage:
        assert {route.path for route in routes(stage) if route.policy & OPEN_POLICIES} == OPEN
        assert len(routes(stage)) == 22
        assert all(route.reply is not None and route.summary for route in routes(stage))


def forged(stage: Any, good: str) -> dict[str, str]:
    claims = jwt.decode(good, options={"verify_signature": False})
    now = int(stage.clock.time())
    return {
        "none": "",
        "garbage": "garbage",
        "unsigned": jwt.encode(claims, "", "none"),
        "other secret": jwt.encode(claims, SECRET[::-1], "HS256"),
        "other algorithm": jwt.encode(claims, SECRET * 2, "HS512"),
        "expired": jwt.encode({**claims, "iat": now - 901, "exp": now - 1}, SECRET, "HS256"),
        "never expires": jwt.encode({**claims, "exp": 10**18}, SECRET, "HS256"),
        "other user": jwt.encode({**claims, "sub": "usr_" + "0" * 16}, SECRET, "HS256"),
        "other session": jwt.encode(
            {**claims, "jti": f"ses_{'0' * 16}.{'0' * 16}"}, SECRET, "HS256"
        ),
        "other epoch": jwt.encode({**claims, "epoch": 7}, SECRET, "HS256"),
    }


async def test_no_route_but_the_open_ones_answers_a_caller_who_is_not_logged_in(
    opened: Any,
) -> None:
    async with opened() as stage:
        good = await stage.user("ann")
        tokens = forged(stage, good)
        for route in routes(stage):
            if route.policy & OPEN_POLICIES:
                continue
            for method in route.methods:
                path = route.path.replace("<", "").replace(">", "")
                answers = {
                    name: (await stage.call(method, path, token, {"junk": 1})).status
                    for name, token in tokens.items()
                }
                assert set(answers.values()) == {401}, (method, path, answers)
        assert (await stage.call("GET", ME, good)).status == 200


async def test_what_an_earlier_secret_signed_is_taken_after_a_change_of_secrets(
    opened: Any,
) -> None:
    def toml(secret: str, *previous: str) -> str:
        quoted = ", ".join(f'"{each}"' for each in previous)
        return (
            f'[plugins.accounts]\njwt_secret = "{secret}"\n'
            f"jwt_previous_secrets = [{quoted}]\n[plugins.keys]\n"
        )

    async with opened() as stage:
        token = await stage.user("ann")
        await stage.gateway.switch(toml(SECRET[::-1], SECRET))
        assert (await stage.call("GET", ME, token)).status == 200
        newer = (await stage.login("ann"))["access_token"]
        await stage.gateway.switch(toml(SECRET[::-1]))
        assert (await stage.call("GET", ME, token)).status == 401
        assert (await stage.call("GET", ME, newer)).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        "",
        'jwt_secret = "too short to sign with"',
        f'jwt_secret = "{SECRET}"\njwt_previous_secrets = ["too short to sign with"]',
        f'jwt_secret = "{SECRET}"\nregistration = "everybody"',
        f'jwt_secret = "{SECRET}"\naccess_seconds = 86401',
        f'jwt_secret = "{SECRET}"\nlogin_attempts = 0',
    ],
)
def test_settings_that_are_not_safe_stop_the_start_and_show_no_secret(lines: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"[plugins.accounts]\n{lines}\n", Catalogue({"accounts": Accounts}))
    assert "too short to sign" not in str(caught.value)
    assert SECRET not in str(caught.value)


async def test_without_a_plugin_that_keeps_keys_the_start_is_stopped() -> None:
    toml = f'[plugins.accounts]\njwt_secret = "{SECRET}"\n'
    with pytest.raises((PluginError, ConfigError), match="KeyStore"):
        async with open_gateway(toml=toml, plugins={"accounts": Accounts}):
            raise AssertionError("it started")


async def test_what_is_out_of_date_is_deleted_and_a_database_that_balks_is_survived(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    import trio

    from tollkeeper_accounts.settings import AccountsSettings

    class Table:
        def __init__(self) -> None:
            self.deleted: list[object] = []
            self.is_broken = False

        async def read(self, *_: object) -> bool:
            return True

        async def write(self, work: object, now: int) -> None:
            if self.is_broken:
                raise DatabaseError("locked")
            self.deleted.append(work)

    class Clock:
        def time(self) -> float:
            return 1_000_000.0

    plugin, table = Accounts(AccountsSettings.model_validate({"jwt_secret": SECRET})), Table()
    plugin._database, plugin._clock = table, Clock()  # type: ignore[assignment] # as little as is used
    async with trio.open_nursery() as nursery:
        await nursery.start(plugin.run)
        await trio.sleep(1)
        assert len(table.deleted) == 3
        table.is_broken = True
        await trio.sleep(SWEEP_SECONDS)
        assert len([r for r in caplog.records if "out of date" in r.message]) == 3
        table.is_broken = False
        await trio.sleep(SWEEP_SECONDS)
        assert len(table.deleted) == 6
        nursery.cancel_scope.cancel()
