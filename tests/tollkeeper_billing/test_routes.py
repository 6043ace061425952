"""The routes of billing, as an owner meets them."""

import json
from typing import Any

import pytest
from openapi_checks import Document
from shop import BILLING, TOML, WEBHOOK, Shop, shop

from tollkeeper.management import RateGrants
from tollkeeper.testing import open_gateway


async def test_a_checkout_names_either_a_pack_or_a_plan_that_is_sold() -> None:
    async with shop() as house:
        for body, param in (
            ({}, "pack"),
            ({"pack": "small", "plan": "pro"}, "pack"),
            ({"pack": "huge"}, "pack"),
            ({"plan": "huge"}, "plan"),
            ({"pack": ""}, "pack"),
            ({"pack": "small", "price": "1.00"}, "price"),
        ):
            reply = await house.ask("POST", f"{BILLING}/checkout", body)
            assert (reply.status, reply.json()["error"]["param"]) == (400, param), body
        assert (
            "small, large"
            in (await house.ask("POST", f"{BILLING}/checkout", {"pack": "x"})).json()["error"][
                "message"
            ]
        )
        assert not house.stripe.every("checkout.session")


async def test_an_organization_is_one_customer_however_often_it_buys() -> None:
    async with shop() as house:
        for _ in range(2):
            await house.done("POST", f"{BILLING}/checkout", {"pack": "small"})
        await house.done("GET", f"{BILLING}/portal")
        (customer,) = house.stripe.every("customer")
        assert customer["metadata"] == {"tollkeeper_org": house.orgs["acme"]}
        assert customer["email"] == "acme@example.com"


async def test_a_customer_that_was_made_and_never_noted_is_not_made_again() -> None:
    async with shop() as house:
        house.stripe.fault = lambda _method, _path: "drop_after"
        assert (await house.ask("GET", f"{BILLING}/portal")).status == 503
        house.stripe.fault = lambda _method, _path: ""
        assert "url" in await house.done("GET", f"{BILLING}/portal")
        assert len(house.stripe.every("customer")) == 1


async def test_a_failure_that_stripe_keeps_is_not_repeated_for_a_day() -> None:
    async with shop() as house:
        house.stripe.fault = lambda _method, _path: "500_before"
        assert (await house.ask("GET", f"{BILLING}/portal")).status == 503
        house.stripe.fault = lambda _method, _path: ""
        assert "url" in await house.done("GET", f"{BILLING}/portal")


async def test_the_price_is_the_one_of_the_file() -> None:
    async with shop() as house:
        opened = await house.done("POST", f"{BILLING}/checkout", {"pack": "large"})
        session = house.stripe.find("checkout.session", opened["id"])
        assert (session["amount_total"], session["currency"]) == (10_000, "usd")
        assert session["success_url"] == "https://example.com/paid"
        plan = await house.done("POST", f"{BILLING}/checkout", {"plan": "usage"})
        assert house.stripe.find("checkout.session", plan["id"])["mode"] == "subscription"


async def test_whoever_has_a_plan_changes_it_in_the_portal() -> None:
    async with shop() as house:
        await house.buy("pro", "plan")
        await house.deliver()
        reply = await house.ask("POST", f"{BILLING}/checkout", {"plan": "usage"})
        assert (reply.status, reply.code) == (409, "conflict")
        assert "portal" in reply.json()["error"]["message"]
        await house.buy()  # credit can be bought beside it


async def test_a_checkout_that_is_asked_for_again_under_its_key_is_the_same() -> None:
    async with shop() as house:
        token = {"authorization": f"Bearer {house.tokens['acme']}", "idempotency-key": "k"}
        body = json.dumps({"pack": "small"}).encode()
        both = [
            (await house.gateway.request("POST", f"{BILLING}/checkout", body, token)).json()
            for _ in range(2)
        ]
        assert both[0] == both[1]
        assert len(house.stripe.every("checkout.session")) == 1


@pytest.mark.parametrize(
    ("fault", "status"), [("drop_before", 503), ("500_after", 503), ("429", 503)]
)
async def test_while_stripe_fails_buying_says_so_and_status_and_usage_go_on(
    fault: str, status: int
) -> None:
    async with shop() as house:
        house.stripe.fault = lambda _method, _path: fault
        for method, path, body in (
            ("POST", "checkout", {"pack": "small"}),
            ("GET", "portal", None),
        ):
            reply = await house.ask(method, f"{BILLING}/{path}", body)
            assert (reply.status, reply.code) == (status, "server_error")
            assert "sk_test" not in reply.body.decode()
        assert (await house.status())["balance"] == "0.00"
        assert (await house.done("GET", f"{BILLING}/usage"))["data"] == []


async def test_what_stripe_refuses_is_the_operators_to_mend(
    caplog: pytest.LogCaptureFixture,
) -> None:
    toml = TOML.replace("price_pro", "price_gone")
    async with shop() as house:
        await house.gateway.switch(toml.format(url=house.stripe.url, more=""))
        reply = await house.ask("POST", f"{BILLING}/checkout", {"plan": "pro"})
        assert (reply.status, reply.code) == (500, "server_error")
        assert "operator" in reply.json()["error"]["message"]
    assert "price_gone" in caplog.text


async def test_usage_is_told_by_day_model_and_key_in_dollars() -> None:
    async with shop() as house:
        await house.join("rival")
        await house.buy()
        await house.deliver()
        key = await house.key()
        await house.chat(key, tokens=7)
        await house.chat(key, tokens=1)
        await house.written()
        (by_model,) = (await house.done("GET", f"{BILLING}/usage?by=model"))["data"]
        assert by_model == {
            "key": "paid",
            "requests": 2,
            "input_tokens": 2,
            "output_tokens": 8,
            "cost": "0.08",
            "charge": "0.02",
        }
        (by_key,) = (await house.done("GET", f"{BILLING}/usage?by=key"))["data"]
        assert by_key["key"].startswith("key_")
        assert (await house.done("GET", f"{BILLING}/usage?since=2026-11-26"))["data"] == []
        assert (await house.done("GET", f"{BILLING}/usage?until=2026-11-25"))["data"] == []
        assert len((await house.done("GET", f"{BILLING}/usage?since=2026-11-25"))["data"]) == 1
        assert (await house.done("GET", f"{BILLING}/usage", None, "rival"))["data"] == []


@pytest.mark.parametrize("query", ["since=yesterday", "until=1", "by=org", "by=hour", "org=x"])
async def test_a_query_that_makes_no_sense_is_refused(query: str) -> None:
    async with shop() as house:
        reply = await house.ask("GET", f"{BILLING}/usage?{query}")
        assert reply.status == 400


async def test_a_webhook_is_nothing_to_whoever_logs_in_or_has_a_key() -> None:
    async with shop() as house:
        key = await house.key()
        for credential in (house.tokens["acme"], key, ""):
            headers = {"authorization": f"Bearer {credential}"} if credential else {}
            reply = await house.gateway.request("POST", WEBHOOK, b"{}", headers)
            assert (reply.status, reply.code) == (401, "auth_error")
        assert (await house.gateway.request("GET", WEBHOOK)).status == 405


async def test_a_secret_that_is_not_that_of_the_endpoint_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as house:
        await house.buy()
        for _ in range(3):
            assert (await house.post(house.stripe.events[-1], secret="whsec_other")).status == 401
        assert (await house.gateway.request("POST", WEBHOOK, b"{}")).status == 401
    assert caplog.text.count("not signed with webhook_secret") == 1


async def test_a_payment_that_is_not_as_it_was_offered_is_told_to_the_operator(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as house:
        await house.buy()
        (paid,) = [e for e in house.stripe.events if e["type"] == "checkout.session.completed"]
        paid["data"]["object"]["amount_subtotal"] = 5
        assert (await house.post(paid)).status == 200
        assert (await house.status())["balance"] == "0.00"
    assert "nothing was credited" in caplog.text


async def test_topups_are_offered_only_where_they_are_on() -> None:
    async with shop() as house:
        assert (await house.ask("GET", f"{BILLING}/topup")).status == 404


async def checked(house: Shop, document: Document, method: str, path: str, body: Any = None) -> int:
    reply = await house.ask(method, path, body)
    document.check(method, path, reply)
    return reply.status


async def test_every_reply_is_as_the_api_document_says() -> None:
    async with shop("auto_topup = true", "[plugins.apidocs]\n") as house:
        document = Document((await house.ask("GET", "/openapi.json", None, "")).json())
        await house.buy()
        await house.buy("pro", "plan")
        await house.deliver()
        await house.chat(await house.key(), tokens=3, most=3)
        await house.written()
        asked = [
            ("POST", "checkout", {"pack": "small"}, 200),
            ("POST", "checkout", {"plan": "pro"}, 409),
            ("POST", "checkout", {"pack": "x"}, 400),
            ("GET", "portal", None, 200),
            ("GET", "status", None, 200),
            ("GET", "usage", None, 200),
            ("GET", "usage?by=model&since=7d&until=2027-01-01", None, 200),
            ("GET", "usage?since=never", None, 400),
            ("GET", "topup", None, 200),
            ("PUT", "topup", {"pack": "small", "below": "5.00"}, 200),
            ("PUT", "topup", {"pack": "small", "below": "5.001"}, 400),
            ("GET", "topup", None, 200),
            ("PUT", "topup", {"pack": None}, 200),
            ("POST", "webhook", None, 401),
        ]
        for method, path, body, status in asked:
            assert await checked(house, document, method, f"{BILLING}/{path}", body) == status
        reply = await house.post(house.stripe.events[0])
        document.check("POST", WEBHOOK, reply)
        assert reply.status == 200
        house.stripe.fault = lambda _method, _path: "drop_before"
        for method, path, body in (
            ("POST", "checkout", {"pack": "small"}),
            ("GET", "portal", None),
        ):
            assert await checked(house, document, method, f"{BILLING}/{path}", body) == 503


async def test_a_plans_rate_is_of_all_keys_of_the_organization_together() -> None:
    async with shop() as house:
        await house.gateway.switch(
            TOML.format(url=house.stripe.url, more="").replace("rpm = 600", "rpm = 3")
        )
        await house.buy("pro", "plan")
        await house.deliver()
        first, second = await house.key(), await house.key()
        statuses = [(await house.chat(key)).status for key in (first, second, first, second)]
        assert statuses == [200, 200, 200, 429]
        refused = await house.chat(first)
        assert "3 RPM for all keys of this organization" in refused.json()["error"]["message"]
        assert refused.headers["x-ratelimit-limit-requests"] == "3"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert int(refused.headers["retry-after"]) == 60
        await house.jump(60)
        assert (await house.chat(second)).status == 200


async def test_billing_without_what_it_needs_does_not_start() -> None:
    toml = TOML.format(url="http://127.0.0.1:9", more="")
    for missing, named in (("metering", "Ledger"), ("accounts", "Authorizer")):
        cut = toml.replace(f"[plugins.{missing}]", f"[plugins.{missing}]\nenabled = false")
        with pytest.raises(Exception, match=named) as refused:
            async with open_gateway(toml=cut):
                pass
        assert str(refused.value).count(named) == 1


async def test_billing_grants_rates() -> None:
    async with shop() as house:
        assert isinstance(house.billing, RateGrants)
