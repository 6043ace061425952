"""`/api/v1/gateway/keys` and `providers` in front of a gateway."""

from typing import Any

import pytest

from tollkeeper.management import ROLES

KEYS = "/api/v1/gateway/keys"
ITEM = {"id", "prefix", "name", "rpm", "models", "created_at", "last_used_at", "expires_at"}


async def owner(stage: Any, name: str = "ann") -> str:
    token = str(await stage.user(name))
    await stage.made("org", token, name=f"{name}'s")
    return token


async def chat(stage: Any, key: str, model: str = "test") -> int:
    stage.gateway.key = key
    try:
        return int((await stage.gateway.chat(model=model)).status)
    finally:
        stage.gateway.key = ""


async def test_a_key_is_made_used_and_revoked(opened: Any) -> None:
    async with opened() as stage:
        ann = await owner(stage)
        made = await stage.made("keys", ann, name="ci", rpm=9)
        fields = {"id", "key", "prefix", "name", "org", "rpm", "created_at", "models", "expires_at"}
        assert set(made) == fields
        assert (made["name"], made["rpm"], made["models"]) == ("ci", 9, None)
        org = (await stage.call("GET", "/api/v1/gateway/org", ann)).json()["id"]
        assert made["org"] == org
        assert await chat(stage, made["key"]) == 200
        assert stage.gateway.settled[-1].principal.org == org
        listed = (await stage.call("GET", KEYS, ann)).json()
        assert listed["object"] == "list"
        (item,) = listed["data"]
        assert set(item) == ITEM
        assert item["id"] == made["id"]
        gone = await stage.call("DELETE", f"{KEYS}/{made['id']}", ann)
        assert (gone.status, set(gone.json())) == (200, ITEM)
        assert await chat(stage, made["key"]) == 401
        assert (await stage.call("GET", KEYS, ann)).json()["data"] == []
        assert (await stage.call("DELETE", f"{KEYS}/{made['id']}", ann)).status == 404


async def test_a_change_leaves_what_it_does_not_name_and_null_clears(opened: Any) -> None:
    async with opened() as stage:
        ann = await owner(stage)
        terms = {"rpm": 5, "models": ["test", "test"], "expires_at": 2_000_000}
        made = await stage.made("keys", ann, name="ci", **terms)
        assert made["models"] == ["test"]
        path = f"{KEYS}/{made['id']}"
        for change, changed in (
            ({}, {}),
            ({"name": "cd"}, {"name": "cd"}),
            ({"rpm": None}, {"rpm": None}),
            ({"models": ["test"]}, {"models": ["test"]}),
            ({"models": None, "expires_at": None}, {"models": None, "expires_at": None}),
            ({"expires_at": 1_000_001, "rpm": 7}, {"expires_at": 1_000_001, "rpm": 7}),
        ):
            before = (await stage.call("GET", KEYS, ann)).json()["data"][0]
            reply = await stage.call("PATCH", path, ann, change)
            assert reply.json() == {**before, **changed}
            assert (await stage.call("GET", KEYS, ann)).json()["data"][0] == reply.json()
        for wrong in ({"name": None}, {"key": "tk-x"}, {"org": "default"}, {"expires_at": 1}):
            assert (await stage.call("PATCH", path, ann, wrong)).status == 400


async def test_terms_are_in_force_at_once(opened: Any) -> None:
    async with opened() as stage:
        ann = await owner(stage)
        made = await stage.made("keys", ann, name="ci", expires_at=1_000_200)
        await stage.call("PATCH", f"{KEYS}/{made['id']}", ann, {"expires_at": 1_000_100})
        assert await chat(stage, made["key"]) == 200
        stage.clock.jump(100)
        assert await chat(stage, made["key"]) == 401


async def test_a_key_cannot_expire_in_the_past(opened: Any) -> None:
    async with opened() as stage:
        ann = await owner(stage)
        for moment in (1, 999_999, 1_000_000):
            reply = await stage.call("POST", KEYS, ann, {"name": "ci", "expires_at": moment})
            assert (reply.status, reply.json()["error"]["param"]) == (400, "expires_at")
        assert (await stage.call("GET", KEYS, ann)).json()["data"] == []


async def test_a_rotated_key_has_another_secret_and_the_old_one_its_grace(opened: Any) -> None:
    async with opened() as stage:
        ann = await owner(stage)
        made = await stage.made("keys", ann, name="ci")
        rotated = await stage.made(f"keys/{made['id']}/rotate", ann, grace_seconds=60)
        assert set(rotated) == {*ITEM, "key"}
        assert rotated["id"] == made["id"]
        assert [await chat(stage, each["key"]) for each in (made, rotated)] == [200, 200]
        stage.clock.jump(60)
        assert [await chat(stage, each["key"]) for each in (made, rotated)] == [401, 200]
        newest = await stage.made(f"keys/{made['id']}/rotate", ann)
        assert [await chat(stage, each["key"]) for each in (rotated, newest)] == [401, 200]


async def test_a_key_of_another_organization_is_as_absent_as_none(opened: Any) -> None:
    async with opened() as stage:
        ann, bob = await owner(stage), await owner(stage, "bob")
        made = await stage.made("keys", ann, name="ci")
        for method, rest, body in (
            ("PATCH", "", {"name": "mine"}),
            ("DELETE", "", None),
            ("POST", "/rotate", {}),
        ):
            replies = [
                await stage.call(method, f"{KEYS}/{key}{rest}", bob, body)
                for key in (made["id"], "key_none")
            ]
            assert {(reply.status, reply.body) for reply in replies} == {(404, replies[0].body)}
        assert (await stage.call("GET", KEYS, bob)).json()["data"] == []
        assert await chat(stage, made["key"]) == 200


@pytest.mark.parametrize("role", ROLES)
async def test_all_but_billing_use_keys_and_everybody_sees_providers(
    opened: Any, role: str
) -> None:
    async with opened() as stage:
        ann = await owner(stage)
        org = (await stage.call("GET", "/api/v1/gateway/org", ann)).json()["id"]
        token = ann if role == "owner" else await stage.hire(ann, "bob", role, org)
        made = await stage.call("POST", KEYS, token, {"name": "ci"})
        listed = await stage.call("GET", KEYS, token)
        providers = await stage.call("GET", "/api/v1/gateway/providers", token)
        expected = 403 if role == "billing" else 200
        assert [made.status, listed.status, providers.status] == [expected, expected, 200]


async def test_providers_are_shown_with_what_they_serve_and_no_secret(opened: Any) -> None:
    async with opened() as stage:
        ann = await owner(stage)
        listed = (await stage.call("GET", "/api/v1/gateway/providers", ann)).json()
        provider = {"id": "scripted", "kind": "scripted", "models": ["test"], "healthy": None}
        assert listed == {"object": "list", "data": [provider]}


async def test_a_provider_is_healthy_or_not_once_it_was_tried(opened: Any) -> None:
    async with opened() as stage:
        ann = await owner(stage)
        stage.gateway.generations.shared.healthy["scripted"] = False
        (shown,) = (await stage.call("GET", "/api/v1/gateway/providers", ann)).json()["data"]
        assert shown["healthy"] is False


async def test_a_key_that_is_made_twice_under_one_idempotency_key_is_made_once(
    opened: Any,
) -> None:
    async with opened() as stage:
        ann = await owner(stage)
        replies = [
            await stage.call("POST", KEYS, ann, {"name": "ci"}, idempotency_key="k")
            for _ in range(2)
        ]
        first, second = [reply.json() for reply in replies]
        assert second == {**first, "key": None}
        assert len((await stage.call("GET", KEYS, ann)).json()["data"]) == 1
        assert await chat(stage, first["key"]) == 200


async def test_a_key_may_name_models_that_there_are_and_no_more_requests_than_is_allowed(
    opened: Any,
) -> None:
    async with opened(max_rpm=20) as stage:
        ann = await owner(stage)
        for terms, param in (({"models": ["other"]}, "models"), ({"rpm": 21}, "rpm")):
            reply = await stage.call("POST", KEYS, ann, {"name": "ci", **terms})
            assert (reply.status, reply.json()["error"]["param"]) == (400, param)
        made = await stage.made("keys", ann, name="ci", rpm=20, models=["test"])
        reply = await stage.call("PATCH", f"{KEYS}/{made['id']}", ann, {"rpm": 21})
        assert reply.status == 400
