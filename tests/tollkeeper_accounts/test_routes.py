"""`/api/v1/gateway/org` in front of a gateway."""

from typing import Any

import pytest

from tollkeeper.management import ROLES

ORG = "/api/v1/gateway/org"


async def people(stage: Any) -> dict[str, str]:
    """An organization of Ann's with one member of each role: their tokens, by role."""
    owner = await stage.user("ann")
    org = (await stage.made("org", owner, name="acme"))["id"]
    tokens = {"owner": owner}
    for role in ROLES[1:]:
        tokens[role] = await stage.hire(owner, role, role, org)
    return tokens


async def test_any_user_makes_an_organization_and_owns_it(opened: Any) -> None:
    async with opened() as stage:
        ann = await stage.user("ann")
        without = await stage.call("GET", ORG, ann)
        assert (without.status, without.code) == (404, "not_found")
        made = await stage.made("org", ann, name="Acme Ltd")
        assert made == {
            "id": made["id"],
            "name": "Acme Ltd",
            "role": "owner",
            "created_at": 1_000_000,
        }
        assert (await stage.call("GET", ORG, ann)).json() == made
        bob = await stage.user("bob")
        taken = await stage.call("POST", ORG, bob, {"name": "Acme Ltd"})
        assert (taken.status, taken.code) == (409, "conflict")


async def test_the_newest_organization_is_current_and_another_can_be_named(opened: Any) -> None:
    async with opened() as stage:
        ann = await stage.user("ann")
        first, second = [await stage.made("org", ann, name=name) for name in ("one", "two")]
        bob = await stage.user("bob")
        foreign = await stage.made("org", bob, name="three")
        assert (await stage.call("GET", ORG, ann)).json() == second
        assert (await stage.call("GET", ORG, ann, x_org_id=first["id"])).json() == first
        absent = [
            await stage.call("GET", ORG, ann, x_org_id=org) for org in (foreign["id"], "org_0")
        ]
        assert {(reply.status, reply.body) for reply in absent} == {(404, absent[0].body)}


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("GET", "", None, ROLES),
        ("GET", "/members", None, ROLES),
        ("GET", "/invitations", None, ("owner", "admin")),
        ("GET", "/audit", None, ("owner", "admin")),
        ("POST", "/invitations", {"email": "x@example.com", "role": "member"}, ("owner", "admin")),
        ("PATCH", "/members/mem_0", {"role": "member"}, ("owner", "admin")),
        ("DELETE", "/invitations/inv_0", None, ("owner", "admin")),
        ("DELETE", "/members/mem_0", None, ROLES),
    ],
)
async def test_each_role_may_do_what_its_route_says(
    opened: Any, method: str, path: str, body: object, allowed: tuple[str, ...]
) -> None:
    async with opened() as stage:
        for role, token in (await people(stage)).items():
            reply = await stage.call(method, ORG + path, token, body)
            expected = (404 if path.endswith("_0") else 200) if role in allowed else 403
            assert reply.status == expected, role
        assert (await stage.call(method, ORG + path, "", body)).status == 401


async def test_members_are_listed_changed_and_removed(opened: Any) -> None:
    async with opened() as stage:
        tokens = await people(stage)
        listed = (await stage.call("GET", ORG + "/members", tokens["billing"])).json()
        assert listed["object"] == "list"
        assert [set(item) for item in listed["data"]] == [{"id", "email", "role"}] * 4
        ids = {item["role"]: item["id"] for item in listed["data"]}
        path = f"{ORG}/members/{ids['member']}"
        changed = await stage.call("PATCH", path, tokens["admin"], {"role": "billing"})
        assert changed.json() == {
            "id": ids["member"],
            "email": "member@example.com",
            "role": "billing",
        }
        assert (await stage.call("DELETE", path, tokens["billing"])).status == 403
        assert (await stage.call("DELETE", path, tokens["admin"])).json() == changed.json()
        assert (await stage.call("GET", ORG, tokens["member"])).status == 404
        last = f"{ORG}/members/{ids['owner']}"
        assert (await stage.call("DELETE", last, tokens["admin"])).status == 403
        assert (await stage.call("PATCH", last, tokens["admin"], {"role": "admin"})).status == 403
        assert (await stage.call("PATCH", last, tokens["owner"], {"role": "admin"})).status == 409
        assert (await stage.call("DELETE", last, tokens["owner"])).status == 409
        mine = f"{ORG}/members/{ids['billing']}"
        assert (await stage.call("DELETE", mine, tokens["billing"])).status == 200


async def test_a_role_that_was_taken_is_gone_with_the_next_request(opened: Any) -> None:
    async with opened() as stage:
        tokens = await people(stage)
        listed = (await stage.call("GET", ORG + "/members", tokens["owner"])).json()["data"]
        admin = next(item["id"] for item in listed if item["role"] == "admin")
        assert (await stage.call("GET", ORG + "/audit", tokens["admin"])).status == 200
        demotion = f"{ORG}/members/{admin}"
        await stage.call("PATCH", demotion, tokens["owner"], {"role": "member"})
        assert (await stage.call("GET", ORG + "/audit", tokens["admin"])).status == 403
        await stage.call("DELETE", demotion, tokens["owner"])
        assert (await stage.call("GET", ORG, tokens["admin"])).status == 404


async def test_invitations_are_made_listed_and_withdrawn(opened: Any) -> None:
    async with opened(invitation_seconds=100) as stage:
        tokens = await people(stage)
        made = await stage.made("org/invitations", tokens["admin"], email=" X@y.z", role="member")
        assert set(made) == {"id", "email", "role", "token", "expires_at"}
        assert (made["email"], made["expires_at"]) == ("x@y.z", 1_000_100)
        listed = (await stage.call("GET", ORG + "/invitations", tokens["owner"])).json()
        item = {name: made[name] for name in ("id", "email", "role", "expires_at")}
        item["created_at"] = 1_000_000
        assert listed == {"object": "list", "data": [item]}
        owners = {"email": "e@y.z", "role": "owner"}
        path = ORG + "/invitations"
        assert (await stage.call("POST", path, tokens["admin"], owners)).status == 403
        gone = await stage.call("DELETE", f"{path}/{made['id']}", tokens["admin"])
        assert gone.json() == item
        assert (await stage.call("DELETE", f"{path}/{made['id']}", tokens["admin"])).status == 404
        assert (await stage.call("GET", path, tokens["owner"])).json()["data"] == []


async def test_ids_of_another_organization_are_as_absent_as_none(opened: Any) -> None:
    async with opened() as stage:
        tokens = await people(stage)
        bob = await stage.user("bob")
        await stage.made("org", bob, name="theirs")
        invited = await stage.made("org/invitations", bob, email="x@y.z", role="member")
        member = (await stage.call("GET", ORG + "/members", bob)).json()["data"][0]["id"]
        for method, path, foreign, body in (
            ("PATCH", "members", member, {"role": "member"}),
            ("DELETE", "members", member, None),
            ("DELETE", "invitations", invited["id"], None),
        ):
            replies = [
                await stage.call(method, f"{ORG}/{path}/{each}", tokens["owner"], body)
                for each in (foreign, "nothing", foreign[:-1])
            ]
            assert {(reply.status, reply.body) for reply in replies} == {(404, replies[0].body)}
        assert len((await stage.call("GET", ORG + "/invitations", bob)).json()["data"]) == 1


async def test_the_log_tells_the_story_of_an_organization(opened: Any) -> None:
    async with opened() as stage:
        ann = await stage.user("ann")
        org = await stage.made("org", ann, name="acme")
        await stage.hire(ann, "bob", "member", org["id"])
        key = await stage.made("keys", ann, name="ci")
        await stage.call("DELETE", f"/api/v1/gateway/keys/{key['id']}", ann)
        await stage.call("DELETE", f"/api/v1/gateway/keys/{key['id']}", ann)
        entries = (await stage.call("GET", ORG + "/audit", ann)).json()["data"]
        assert [(e["email"].partition("@")[0], e["action"]) for e in entries] == [
            ("ann", f"DELETE /api/v1/gateway/keys/{key['id']}"),
            ("ann", "POST /api/v1/gateway/keys"),
            ("bob", "POST /api/v1/auth/accept"),
            ("ann", "POST /api/v1/gateway/org/invitations"),
            ("ann", "POST /api/v1/gateway/org"),
        ]
        assert set(entries[0]) == {"id", "at", "user", "email", "action", "target"}
        assert entries[1]["target"] == key["id"]
        page = f"{ORG}/audit?limit=2&before={entries[1]['id']}"
        assert (await stage.call("GET", page, ann)).json()["data"] == entries[2:4]
        for wrong in ("limit=0", "limit=1001", "limit=x", "user=1"):
            assert (await stage.call("GET", f"{ORG}/audit?{wrong}", ann)).status == 400


async def test_a_write_under_a_key_is_answered_again_but_for_its_secret(opened: Any) -> None:
    async with opened() as stage:
        ann = await stage.user("ann")
        headers = {"idempotency_key": "once"}
        made = await stage.call("POST", ORG, ann, {"name": "acme"}, **headers)
        again = await stage.call("POST", ORG, ann, {"name": "acme"}, **headers)
        assert (again.status, again.json()) == (made.status, made.json())
        other = await stage.call("POST", ORG, ann, {"name": "other"}, **headers)
        assert (other.status, other.code) == (409, "conflict")
        wanted = {"email": "x@y.z", "role": "member"}
        path, key = ORG + "/invitations", {"idempotency_key": "two"}
        first = (await stage.call("POST", path, ann, wanted, **key)).json()
        second = (await stage.call("POST", path, ann, wanted, **key)).json()
        assert first["token"]
        assert second == {**first, "token": None}
        assert len((await stage.call("GET", path, ann)).json()["data"]) == 1
        long = await stage.call("POST", path, ann, wanted, idempotency_key="x" * 201)
        assert (long.status, long.code) == (400, "invalid_request")
