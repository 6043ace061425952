"""`/api/v1/auth` in front of a gateway."""

import logging
import re
from typing import Any

import argon2
import pytest

from tollkeeper_accounts import attempts, service

ME = "/api/v1/auth/me"
PASSWORD = "correct horse"
ANN = {"email": "ann@example.com", "password": PASSWORD}


async def test_anybody_may_register_where_it_is_open_and_logs_in_at_once(opened: Any) -> None:
    async with opened() as stage:
        made = await stage.auth("register", email=" Ann@Example.com ", password=PASSWORD)
        assert made.status == 200
        assert set(made.json()) == {"id", "email"}
        assert made.json()["email"] == "ann@example.com"
        session = (await stage.auth("login", **ANN)).json()
        assert set(session) == {"access_token", "token_type", "expires_in", "refresh_token"}
        assert (session["token_type"], session["expires_in"]) == ("bearer", 900)
        me = (await stage.call("GET", ME, session["access_token"])).json()
        assert me == {**made.json(), "created_at": 1_000_000, "orgs": []}


async def test_an_address_is_one_whatever_its_letters(opened: Any) -> None:
    async with opened() as stage:
        await stage.user("ann")
        taken = await stage.auth("register", email="ANN@example.COM", password=PASSWORD)
        assert (taken.status, taken.code) == (409, "conflict")
        shouted = await stage.auth("login", email="ANN@EXAMPLE.COM", password=PASSWORD)
        assert shouted.status == 200


@pytest.mark.parametrize("what", ["register", "login", "refresh", "logout", "password", "accept"])
async def test_a_body_holds_known_fields_only(opened: Any, what: str) -> None:
    async with opened() as stage:
        token = await stage.user("ann")
        for body in ({"role": "owner"}, {"epoch": 5}, {"id": "usr_0"}):
            refused = await stage.auth(what, token, **body)
            assert (refused.status, refused.code) == (400, "invalid_request")


async def test_a_wrong_login_is_told_the_same_whatever_is_wrong(opened: Any) -> None:
    async with opened() as stage:
        await stage.user("ann")
        bodies = set()
        for email, password in (
            ("ann@example.com", "wrong"),
            ("bob@example.com", PASSWORD),
            ("ann@example.com", PASSWORD + " "),
        ):
            refused = await stage.auth("login", email=email, password=password)
            assert (refused.status, refused.code) == (401, "auth_error")
            bodies.add(refused.body)
        assert len(bodies) == 1


async def test_guesses_for_one_address_are_limited_and_the_wait_is_exact(opened: Any) -> None:
    async with opened(login_attempts=3) as stage:
        await stage.user("ann")
        await stage.user("bob")
        for _ in range(3):
            assert (await stage.auth("login", **{**ANN, "password": "wrong"})).status == 401
            stage.clock.jump(10)
        limited = await stage.auth("login", **ANN)
        assert (limited.status, limited.code) == (429, "rate_limit")
        assert limited.headers["retry-after"] == "870"
        assert (await stage.auth("login", **{**ANN, "email": "bob@example.com"})).status == 200
        stage.clock.jump(869)
        assert (await stage.auth("login", **ANN)).status == 429
        stage.clock.jump(1)
        assert (await stage.auth("login", **ANN)).status == 200


async def test_guesses_of_one_client_are_limited_whomever_they_are_for(opened: Any) -> None:
    async with opened(login_attempts=1) as stage:
        await stage.user("ann")
        for number in range(10):
            guess = await stage.auth("login", email=f"{number}@example.com", password="wrong")
            assert guess.status == 401
        limited = await stage.auth("login", **ANN)
        assert (limited.status, limited.headers["retry-after"]) == (429, "900")


async def test_logins_that_are_right_are_not_limited(opened: Any) -> None:
    async with opened(login_attempts=1) as stage:
        await stage.user("ann")
        for _ in range(5):
            assert (await stage.auth("login", **ANN)).status == 200


async def test_attempts_are_remembered_when_the_settings_change(opened: Any) -> None:
    async with opened(login_attempts=1) as stage:
        await stage.auth("login", **ANN)
        await stage.gateway.switch(
            '[plugins.accounts]\njwt_secret = "0123456789abcdef0123456789abcdef"\n'
            "login_attempts = 1\naccess_seconds = 60\n[plugins.keys]\n"
        )
        assert (await stage.auth("login", **ANN)).status == 429


async def test_registering_is_limited_by_client_where_anybody_may(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(login_attempts=1) as stage:
        for number in range(10):
            await stage.auth("register", email=f"{number}@example.com", password=PASSWORD)
        limited = await stage.auth("register", **ANN)
        assert (limited.status, limited.headers["retry-after"]) == (429, "900")
        stage.clock.jump(attempts.WINDOW)
        assert (await stage.auth("register", **ANN)).status == 200


async def test_a_weak_hash_is_replaced_at_the_next_login(opened: Any) -> None:
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    async with opened() as stage:
        database = stage.gateway.generations.shared.database
        await database.write(service.add_user, "ann@example.com", weak, 0)
        await stage.login("ann")
        stored = await database.read(service.find_user, "ann@example.com")
        assert stored.password != weak
        await stage.login("ann")


async def test_a_refresh_token_is_good_once_and_twice_ends_it_all(opened: Any) -> None:
    async with opened() as stage:
        await stage.user("ann")
        first = await stage.login("ann")
        second = await stage.auth("refresh", refresh_token=first["refresh_token"])
        assert second.status == 200
        assert set(second.json()) == set(first)
        access = second.json()["access_token"]
        assert (await stage.call("GET", ME, access)).status == 200
        for token in (first["refresh_token"], second.json()["refresh_token"], "rt-x"):
            stolen = await stage.auth("refresh", refresh_token=token)
            assert (stolen.status, stolen.code) == (401, "auth_error")
        assert (await stage.call("GET", ME, access)).status == 401


async def test_tokens_live_as_long_as_the_settings_say(opened: Any) -> None:
    async with opened(access_seconds=60, refresh_seconds=120) as stage:
        await stage.user("ann")
        session = await stage.login("ann")
        assert session["expires_in"] == 60
        stage.clock.jump(59)
        assert (await stage.call("GET", ME, session["access_token"])).status == 200
        stage.clock.jump(1)
        assert (await stage.call("GET", ME, session["access_token"])).status == 401
        stage.clock.jump(60)
        assert (await stage.auth("refresh", refresh_token=session["refresh_token"])).status == 401


async def test_logging_out_ends_this_session_or_all(opened: Any) -> None:
    async with opened() as stage:
        token = await stage.user("ann")
        others = [await stage.login("ann") for _ in range(2)]
        out = await stage.auth("logout", others[0]["access_token"])
        assert (out.status, out.json()) == (200, {"status": "ok"})
        for what in ("access_token", "refresh_token"):
            assert others[0][what] != others[1][what]
        assert (await stage.call("GET", ME, others[0]["access_token"])).status == 401
        refused = await stage.auth("refresh", refresh_token=others[0]["refresh_token"])
        assert refused.status == 401
        assert (await stage.call("GET", ME, token)).status == 200
        assert (await stage.auth("logout", token, everywhere=True)).status == 200
        for ended in (token, others[1]["access_token"]):
            assert (await stage.call("GET", ME, ended)).status == 401
        refused = await stage.auth("refresh", refresh_token=others[1]["refresh_token"])
        assert refused.status == 401
        await stage.login("ann")


async def test_a_new_password_wants_the_old_one_and_ends_all_sessions(opened: Any) -> None:
    async with opened() as stage:
        token = await stage.user("ann")
        wrong = await stage.auth("password", token, current="wrong", new="battery staple")
        assert (wrong.status, wrong.code) == (403, "auth_error")
        changed = await stage.auth("password", token, current=PASSWORD, new="battery staple")
        assert (changed.status, changed.json()) == (200, {"status": "ok"})
        assert (await stage.call("GET", ME, token)).status == 401
        assert (await stage.auth("login", **ANN)).status == 401
        assert await stage.login("ann", "battery staple")


async def test_guessing_the_old_password_is_limited_too(opened: Any) -> None:
    async with opened(login_attempts=2) as stage:
        token = await stage.user("ann")
        guesses = [
            (await stage.auth("password", token, current="wrong", new="battery staple")).status
            for _ in range(3)
        ]
        assert guesses == [403, 403, 429]


@pytest.mark.parametrize("mode", ["closed", "invite"])
async def test_the_first_user_comes_by_the_token_in_the_log_and_nobody_after(
    opened: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with opened(registration=mode) as stage:
            (line,) = [m for m in caplog.messages if "No user exists yet" in m]
            found = re.search(r"with this invitation: (inv-\S+)$", line)
            assert found is not None
            for wrong in (None, "inv-x", found[1] + "x", found[1][:-1]):
                body = ANN if wrong is None else {**ANN, "invitation": wrong}
                refused = await stage.auth("register", **body)
                assert (refused.status, refused.code) == (403, "auth_error")
            await stage.user("ann", invitation=found[1])
            again = {"email": "eve@example.com", "password": PASSWORD, "invitation": found[1]}
            assert (await stage.auth("register", **again)).status == 403


async def test_where_there_are_users_or_anybody_registers_no_token_is_made(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    closed = '[plugins.accounts]\njwt_secret = "0123456789abcdef0123456789abcdef"\n[plugins.keys]\n'
    with caplog.at_level(logging.WARNING):
        async with opened() as stage:
            await stage.user("ann")
            await stage.gateway.switch(closed)
        assert "No user exists yet" not in caplog.text


async def test_by_invitation_who_was_invited_registers_and_joins(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(registration="invite") as stage:
        first = caplog.messages[-1].rpartition(" ")[2]
        ann = await stage.user("ann", invitation=first)
        org = await stage.made("org", ann, name="acme")
        invited = await stage.made("org/invitations", ann, email="bob@example.com", role="billing")
        stranger = {"email": "eve@example.com", "password": PASSWORD}
        for body in (stranger, {**stranger, "invitation": invited["token"]}):
            assert (await stage.auth("register", **body)).status == 403
        bob = await stage.user("bob", invitation=invited["token"])
        me = (await stage.call("GET", ME, bob)).json()
        assert me["orgs"] == [{"id": org["id"], "name": "acme", "role": "billing"}]


async def test_closed_means_that_no_invitation_registers_anybody(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(registration="closed") as stage:
        ann = await stage.user("ann", invitation=caplog.messages[-1].rpartition(" ")[2])
        await stage.made("org", ann, name="acme")
        invited = await stage.made("org/invitations", ann, email="bob@example.com", role="member")
        bob = {"email": "bob@example.com", "password": PASSWORD}
        refused = await stage.auth("register", **bob, invitation=invited["token"])
        assert (refused.status, refused.code) == (403, "auth_error")


async def test_an_invitation_that_is_wrong_is_no_way_in_where_it_is_open_either(
    opened: Any,
) -> None:
    async with opened() as stage:
        assert (await stage.auth("register", **ANN, invitation="inv-x")).status == 403
        assert (await stage.auth("register", **ANN)).status == 200


async def test_an_invitation_is_accepted_by_whom_it_is_for(opened: Any) -> None:
    async with opened() as stage:
        ann, bob, eve = [await stage.user(name) for name in ("ann", "bob", "eve")]
        org = await stage.made("org", ann, name="acme")
        invited = await stage.made("org/invitations", ann, email="BOB@example.com", role="admin")
        assert (await stage.auth("accept", eve, invitation=invited["token"])).status == 404
        joined = await stage.auth("accept", bob, invitation=invited["token"])
        assert joined.json() == {**org, "role": "admin"}
        again = await stage.auth("accept", bob, invitation=invited["token"])
        assert (again.status, again.code) == (404, "not_found")
