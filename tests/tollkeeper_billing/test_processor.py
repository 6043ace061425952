"""Stripe through its own library: what is asked of it, and what its failures become."""

import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from harness import http_reply, raw_upstream, replying
from processes import free_port
from pydantic import ValidationError

from tollkeeper.testing import JumpClock
from tollkeeper.testing.stripe import FakeStripe, fake_stripe
from tollkeeper_billing import processor, promise_of
from tollkeeper_billing.processor import (
    Declined,
    Processor,
    Unreachable,
    connected,
    is_signed,
)
from tollkeeper_billing.purchases import Bought
from tollkeeper_billing.settings import STRIPE, BillingSettings
from tollkeeper_billing.shapes import read_subscription

NOW = 1_795_564_800
DAY = 86_400
MONTH = 30 * DAY
SECRET = "sk_test_never-to-be-shown"
SETTINGS: dict[str, Any] = {
    "secret_key": SECRET,
    "webhook_secret": "whsec_never-to-be-shown",
    "success_url": "https://example.com/paid",
    "cancel_url": "https://example.com/prices",
}
PLAN = (("price_base", True), ("price_metered", False))


def settings(**more: object) -> BillingSettings:
    return BillingSettings.model_validate(SETTINGS | more)


@contextlib.asynccontextmanager
async def account(**more: object) -> AsyncIterator[tuple[FakeStripe, Processor]]:
    """A Stripe that sells a plan, and the account there."""
    clock = JumpClock()
    clock.now = float(NOW)
    async with fake_stripe(clock=clock, secret_key=SECRET) as stripe:
        stripe.add_price("price_base", 500)
        stripe.add_price("price_metered", 1, meter=stripe.add_meter("usd_cents"))
        async with connected(settings(api_base=stripe.url, **more)) as opened:
            yield stripe, opened


def bought(customer: str, name: str = "co_1", kind: str = "pack") -> Bought:
    cents, credit = (1000, 10**10) if kind != "plan" else (0, 0)
    return Bought(
        name, "acme", kind, "small", cents, credit, customer, None, None, 0, 0, "open", NOW
    )


def usage(customer: str, identifier: str = "one", units: int = 5) -> dict[str, Any]:
    payload = {"stripe_customer_id": customer, "value": str(units)}
    told = {"event_name": "usd_cents", "identifier": identifier, "timestamp": NOW}
    return told | {"payload": payload}


def fail(stripe: FakeStripe, fault: str) -> None:
    """Let every request go wrong in this way, none for an empty one."""
    stripe.fault = lambda _method, _path: fault


async def with_card(stripe: FakeStripe, opened: Processor) -> str:
    """A customer who left a card at checkout."""
    customer = await opened.create_customer("acme", "nonce", "")
    session, _ = await opened.open_session(bought(customer, "co_first"))
    stripe.pay(session)
    return customer


async def test_a_customer_is_named_after_the_organization_and_made_once() -> None:
    async with account() as (stripe, opened):
        first = await opened.create_customer("acme", "nonce", "ann@example.com")
        assert await opened.create_customer("acme", "nonce", "ann@example.com") == first
        other = await opened.create_customer("other", "another nonce", "")
        assert other != first
        made = stripe.find("customer", first)
        assert (made["name"], made["email"]) == ("acme", "ann@example.com")
        assert made["metadata"] == {"tollkeeper_org": "acme"}
        assert stripe.find("customer", other)["email"] is None


async def test_a_pack_is_sold_at_our_price_to_our_customer() -> None:
    async with account() as (stripe, opened):
        customer = await opened.create_customer("acme", "nonce", "")
        name, url = await opened.open_session(bought(customer))
        assert (await opened.open_session(bought(customer)))[0] == name
        assert url.startswith(stripe.url)
        session = stripe.find("checkout.session", name)
        assert (session["mode"], session["customer"]) == ("payment", customer)
        assert (session["amount_total"], session["currency"]) == (1000, "usd")
        assert session["client_reference_id"] == "co_1"
        assert session["metadata"] == {"tollkeeper_checkout": "co_1", "tollkeeper_org": "acme"}
        assert session["success_url"] == "https://example.com/paid"
        assert session["cancel_url"] == "https://example.com/prices"
        assert session["automatic_tax"]["enabled"] is False
        assert (stripe.orders[name].intent, stripe.orders[name].invoice) == ({}, False)


async def test_cards_are_kept_taxes_computed_and_invoices_written_where_the_file_says_so() -> None:
    async with account(auto_topup=True, automatic_tax=True, invoices=True) as (stripe, opened):
        customer = await opened.create_customer("acme", "nonce", "")
        name, _ = await opened.open_session(bought(customer))
        assert stripe.find("checkout.session", name)["automatic_tax"]["enabled"] is True
        assert stripe.orders[name].intent == {"setup_future_usage": "off_session"}
        assert stripe.orders[name].invoice is True
        plan, _ = await opened.open_session(bought(customer, "co_2", "plan"), PLAN)
        assert stripe.find("checkout.session", plan)["automatic_tax"]["enabled"] is True


async def test_a_plan_is_sold_by_its_prices_and_by_the_piece_only_what_is_not_metered() -> None:
    async with account() as (stripe, opened):
        customer = await opened.create_customer("acme", "nonce", "")
        name, _ = await opened.open_session(bought(customer, kind="plan"), PLAN)
        assert stripe.find("checkout.session", name)["mode"] == "subscription"
        order = stripe.orders[name]
        assert [(price["id"], count) for price, count in order.lines] == [
            ("price_base", 1),
            ("price_metered", 0),
        ]
        assert order.metadata == {"tollkeeper_checkout": "co_1", "tollkeeper_org": "acme"}


async def test_a_session_is_read_as_an_event_would_show_it() -> None:
    async with account() as (stripe, opened):
        customer = await opened.create_customer("acme", "nonce", "")
        name, _ = await opened.open_session(bought(customer))
        assert (await opened.read_session(name))["payment_status"] == "unpaid"
        stripe.pay(name)
        assert await opened.read_session(name) == stripe.events[-1]["data"]["object"]


async def test_the_portal_leads_back_to_where_customers_go_after_paying() -> None:
    async with account() as (stripe, opened):
        customer = await opened.create_customer("acme", "nonce", "")
        url = await opened.open_portal(customer)
        (portal,) = stripe.every("billing_portal.session")
        assert (portal["url"], portal["customer"]) == (url, customer)
        assert portal["return_url"] == "https://example.com/paid"


async def test_subscriptions_are_shown_with_prices_and_period_until_they_are_over() -> None:
    async with account() as (stripe, opened):
        customer = await opened.create_customer("acme", "nonce", "")
        assert await opened.subscriptions(customer) == []
        name, _ = await opened.open_session(bought(customer, kind="plan"), PLAN)
        stripe.pay(name)
        (found,) = await opened.subscriptions(customer)
        assert found.id == stripe.find("checkout.session", name)["subscription"]
        assert (found.status, found.prices) == ("active", ("price_base", "price_metered"))
        assert (found.period_start, found.period_end, found.created) == (NOW, NOW + MONTH, NOW)
        stripe.fail_renewal(found.id)
        (failed,) = await opened.subscriptions(customer)
        assert (failed.status, failed.period_start) == ("past_due", NOW + MONTH)
        stripe.cancel(found.id)
        assert await opened.subscriptions(customer) == []


def test_before_2025_the_period_of_a_subscription_stood_at_the_whole() -> None:
    item = {"price": {"id": "price_base"}}
    told = {"id": "sub_1", "status": "active", "created": 1, "items": {"data": [item]}}
    found = read_subscription(told | {"current_period_start": 2, "current_period_end": 3})
    assert (found.period_start, found.period_end) == (2, 3)


async def test_a_card_that_was_left_pays_once_for_each_checkout() -> None:
    async with account(auto_topup=True) as (stripe, opened):
        customer = await with_card(stripe, opened)
        topup = bought(customer, "co_2", "topup")
        paid = await opened.pay(topup)
        assert (paid["status"], paid["amount_received"], paid["currency"]) == (
            "succeeded",
            1000,
            "usd",
        )
        assert (paid["customer"], paid["metadata"]["tollkeeper_checkout"]) == (customer, "co_2")
        assert (await opened.pay(topup))["id"] == paid["id"]
        assert len(stripe.every("payment_intent")) == 2
        again = await opened.pay(bought(customer, "co_3", "topup"))
        assert again["id"] != paid["id"]


async def test_a_payment_that_nobody_sees_never_leads_a_browser_away() -> None:
    taken: list[bytes] = []

    async def script(stream: trio.SocketStream, received: Any) -> None:
        taken.append(received.body)
        await stream.send_all(http_reply(b'{"object": "list", "data": [{"id": "pm_1"}]}'))

    async with raw_upstream(script) as upstream:
        url = upstream.base_url.removesuffix("/v1")
        async with connected(settings(api_base=url)) as opened:
            await opened.pay(bought("cus_1"))
    assert b"automatic_payment_methods[allow_redirects]=never" in taken[-1].replace(
        b"%5B", b"["
    ).replace(b"%5D", b"]")
    assert b"off_session=true" in taken[-1]


async def test_without_a_card_nothing_is_paid() -> None:
    async with account() as (stripe, opened):
        customer = await with_card(stripe, opened)  # which was not kept
        with pytest.raises(Declined) as declined:
            await opened.pay(bought(customer, "co_2"))
        assert (declined.value.code, declined.value.transient) == ("no_card", False)
        assert ("POST", "/v1/payment_intents") not in stripe.requests


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("card_declined", "card_declined"),
        ("insufficient_funds", "card_declined"),
        ("expired_card", "expired_card"),
        ("authentication_required", "authentication_required"),
    ],
)
async def test_a_card_that_does_not_pay_is_declined_for_good(reason: str, code: str) -> None:
    async with account(auto_topup=True) as (stripe, opened):
        customer = await with_card(stripe, opened)
        stripe.declining = reason
        with pytest.raises(Declined, match="declined") as declined:
            await opened.pay(bought(customer, "co_2"))
        assert (declined.value.code, declined.value.transient) == (code, False)


async def test_a_meter_event_is_counted_by_customer_and_day() -> None:
    async with account() as (stripe, opened):
        customer = await opened.create_customer("acme", "nonce", "")
        assert await opened.usage_of("usd_cents", customer, NOW, NOW + DAY) == 0
        await opened.send_usage(usage(customer))
        await opened.send_usage(usage(customer, "two", 7))
        assert await opened.usage_of("usd_cents", customer, NOW, NOW + DAY) == 12
        assert await opened.usage_of("usd_cents", customer, NOW - DAY, NOW) == 0
        assert [each["timestamp"] for each in stripe.meter_events] == [NOW, NOW]


async def test_a_meter_event_that_stripe_knows_already_is_as_good_as_sent() -> None:
    async with account() as (stripe, opened):
        customer = await opened.create_customer("acme", "nonce", "")
        for _ in range(3):
            await opened.send_usage(usage(customer))
        assert len(stripe.meter_events) == 1


async def test_a_meter_event_that_stripe_refuses_is_not_sent() -> None:
    async with account() as (_, opened):
        with pytest.raises(Declined) as declined:
            await opened.send_usage(usage("cus_unknown"))
        assert (declined.value.code, declined.value.transient) == ("resource_missing", False)
        with pytest.raises(Declined) as declined:
            await opened.usage_of("no_such_meter", "cus_1", NOW, NOW + DAY)
        assert declined.value.code == "no_meter"


CALLS: list[Callable[[Processor], Awaitable[object]]] = [
    lambda opened: opened.create_customer("acme", "nonce", "ann@example.com"),
    lambda opened: opened.open_session(bought("cus_1")),
    lambda opened: opened.read_session("cs_1"),
    lambda opened: opened.open_portal("cus_1"),
    lambda opened: opened.subscriptions("cus_1"),
    lambda opened: opened.pay(bought("cus_1", "co_2")),
    lambda opened: opened.send_usage(usage("cus_1")),
    lambda opened: opened.usage_of("usd_cents", "cus_1", NOW, NOW + DAY),
]


async def failures(opened: Processor) -> list[Declined | Unreachable]:
    """How each call fails, which each does."""
    found: list[Declined | Unreachable] = []
    for call in CALLS:
        try:
            await call(opened)
        except (Declined, Unreachable) as failed:
            found.append(failed)
    assert len(found) == len(CALLS)
    return found


async def test_whether_the_secret_key_is_told_of_nobody_learns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    async with account() as (stripe, opened):
        for fault in ("drop_before", "500_before", "429", ""):
            fail(stripe, fault)
            told += [repr(each) for each in await failures(opened)]
        stripe.secret_key = "sk_test_another"
        told += [repr(each) for each in await failures(opened)]
        told.append(repr(settings()))
    assert len(told) == 5 * len(CALLS) + 1
    assert "never-to-be-shown" not in "".join(told) + caplog.text


@pytest.mark.parametrize("key", [SECRET, "rk_live_0123456789abcdefABCDEF"])
async def test_a_key_in_stripes_own_words_is_not_handed_on(key: str) -> None:
    body = b'{"error": {"message": "The key \'%s\' may not, says 42."}}' % key.encode()
    for status in (400, 401, 402, 403, 404, 429):
        async with raw_upstream(replying(http_reply(body, status))) as upstream:
            url = upstream.base_url.removesuffix("/v1")
            async with connected(settings(api_base=url)) as opened:
                with pytest.raises(Declined) as declined:
                    await opened.open_portal("cus_1")
        words = "secret_key: " * (status in (401, 403)) + "The key '***' may not, says 42."
        assert str(declined.value) == words


async def test_where_nobody_listens_nothing_was_done_and_it_may_go_another_time() -> None:
    async with connected(settings(api_base=f"http://127.0.0.1:{free_port()}")) as opened:
        for failed in await failures(opened):
            assert isinstance(failed, Declined)
            assert (failed.code, failed.transient) == ("unreachable", True)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "500_before", "500_after"])
async def test_after_a_line_that_drops_and_after_a_500_nobody_knows(fault: str) -> None:
    async with account(auto_topup=True) as (stripe, opened):
        customer = await with_card(stripe, opened)
        fail(stripe, fault)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: opened.create_customer("other", "another nonce", ""),
            lambda: opened.open_session(bought(customer, "co_3")),
            lambda: opened.open_portal(customer),
            lambda: opened.subscriptions(customer),
            lambda: opened.pay(bought(customer, "co_2")),
            lambda: opened.send_usage(usage(customer)),
            lambda: opened.usage_of("usd_cents", customer, NOW, NOW + DAY),
        ]
        for call in calls:
            with pytest.raises(Unreachable):
                await call()


@pytest.mark.parametrize(
    ("fault", "answered"), [("500_before", True), ("500_after", True), ("drop_after", False)]
)
async def test_a_500_is_what_stripe_says_for_as_long_as_the_key_is_the_same(
    fault: str, answered: bool
) -> None:
    async with account() as (stripe, opened):
        fail(stripe, fault)
        with pytest.raises(Unreachable) as failed:
            await opened.create_customer("acme", "nonce", "")
        assert failed.value.answered is answered
        fail(stripe, "")
        with pytest.raises(Unreachable) if answered else contextlib.nullcontext():
            await opened.create_customer("acme", "nonce", "")


async def test_what_was_done_before_the_line_dropped_is_not_done_again() -> None:
    async with account(auto_topup=True) as (stripe, opened):
        customer = await with_card(stripe, opened)
        posts = {"/v1/customers", "/v1/payment_intents", "/v1/billing/meter_events"}
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: opened.create_customer("other", "another nonce", ""),
            lambda: opened.pay(bought(customer, "co_2")),
            lambda: opened.send_usage(usage(customer)),
        ]
        for call in calls:
            stripe.fault = lambda _method, path: "drop_after" if path in posts else ""
            with pytest.raises(Unreachable):
                await call()
            fail(stripe, "")
            await call()
        assert len(stripe.every("customer")) == 2
        assert len(stripe.every("payment_intent")) == 2
        assert len(stripe.meter_events) == 1


async def test_a_stripe_that_does_not_answer_in_time_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processor, "TIMEOUT", 0.05)
    async with account() as (stripe, opened):
        stripe.slowness = lambda _method, _path: 5
        with trio.fail_after(2), pytest.raises(Unreachable, match="Timeout"):
            await opened.create_customer("acme", "nonce", "")


async def test_each_try_is_one_request() -> None:
    async with account() as (stripe, opened):
        for fault in ("drop_before", "500_before", "429"):
            fail(stripe, fault)
            stripe.requests.clear()
            with pytest.raises((Declined, Unreachable)):
                await opened.open_portal("cus_1")
            assert len(stripe.requests) == 1


async def test_too_many_requests_are_declined_for_now() -> None:
    async with account() as (stripe, opened):
        fail(stripe, "429")
        for failed in await failures(opened):
            assert isinstance(failed, Declined)
            assert failed.transient


async def test_a_key_of_ours_that_was_used_for_something_else_is_declined_for_now() -> None:
    async with account() as (stripe, opened):
        await opened.create_customer("acme", "nonce", "")
        with pytest.raises(Declined) as declined:
            await opened.create_customer("other", "nonce", "")
        assert declined.value.transient
        assert len(stripe.every("customer")) == 1


async def test_what_is_under_way_already_may_yet_be_done() -> None:
    async with account() as (stripe, opened):
        stripe.slowness = lambda _method, _path: 0.2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.create_customer, "acme", "nonce", "")
            while not stripe.requests:
                await trio.sleep(0.005)
            with pytest.raises(Unreachable, match="409") as failed:
                await opened.create_customer("acme", "nonce", "")
        assert not failed.value.answered
        assert len(stripe.every("customer")) == 1


async def test_a_wrong_secret_key_is_the_operators_to_mend() -> None:
    async with account() as (stripe, opened):
        stripe.secret_key = "sk_test_another"
        for failed in await failures(opened):
            assert isinstance(failed, Declined)
            assert (failed.code, failed.transient) == ("forbidden", False)


async def test_a_key_without_the_permission_is_the_operators_to_mend() -> None:
    reply = http_reply(b'{"error": {"message": "The permission customer_write is needed."}}', 403)
    async with raw_upstream(replying(reply)) as upstream:
        url = upstream.base_url.removesuffix("/v1")
        async with connected(settings(api_base=url)) as opened:
            for failed in await failures(opened):
                assert isinstance(failed, Declined)
                assert (failed.code, failed.transient) == ("forbidden", False)
                assert "customer_write" in str(failed)


async def test_a_price_that_stripe_does_not_know_is_refused() -> None:
    async with account() as (stripe, opened):
        customer = await opened.create_customer("acme", "nonce", "")
        plan = bought(customer, kind="plan")
        with pytest.raises(Declined, match="price_gone") as declined:
            await opened.open_session(plan, [("price_gone", True)])
        assert (declined.value.code, declined.value.transient) == ("resource_missing", False)
        assert not stripe.every("checkout.session")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<html>"),
        (200, b"\xff\xfe"),
        (200, b"[]"),
        (200, b"null"),
        (200, b'{"data": 5}'),
        (200, b'{"object": "list", "data": [{}]}'),
        (302, b""),
        (400, b"{}"),
        (400, b'{"error": null}'),
        (400, b'{"error": "denied"}'),
        (500, b"<html>"),
        (503, b""),
    ],
)
async def test_whatever_else_answers_in_its_place_was_not_stripe(status: int, body: bytes) -> None:
    async with raw_upstream(replying(http_reply(body, status))) as upstream:
        url = upstream.base_url.removesuffix("/v1")
        async with connected(settings(api_base=url)) as opened:
            for failed in await failures(opened):
                assert isinstance(failed, Unreachable)


async def test_an_account_is_left_when_it_is_not_needed_any_more() -> None:
    async with account() as (stripe, opened):
        async with connected(settings(api_base=stripe.url)) as other:
            await other.create_customer("acme", "nonce", "")
        with pytest.raises(Unreachable):
            await other.create_customer("acme", "nonce", "")
        await opened.create_customer("acme", "nonce", "")


def test_a_signature_is_of_its_body_and_secret_and_of_any_age() -> None:
    import stripe

    sign = stripe.WebhookSignature.generate_signature_header
    assert is_signed(b"{}", sign("{}", "whsec_1", 1), "whsec_1")
    assert not is_signed(b"{} ", sign("{}", "whsec_1", 1), "whsec_1")
    assert not is_signed(b"{}", sign("{}", "whsec_1", 1), "whsec_2")
    assert not is_signed(b"\xff", sign("{}", "whsec_1", 1), "whsec_1")
    assert not is_signed(b"{}", "", "whsec_1")


def test_the_library_is_imported_only_once_it_is_needed() -> None:
    script = "import sys, tollkeeper_billing; sys.exit('stripe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# ---- Settings: which account, and what is sold. They have no test file of their own. ----


@pytest.mark.parametrize(
    ("key", "live"),
    [("sk_test_x", False), ("rk_test_x", False), ("sk_live_x", True), ("rk_live_x", True)],
)
def test_the_key_says_whether_real_money_moves(key: str, live: bool) -> None:
    given = settings(secret_key=key)
    assert given.livemode is live
    assert ("real money" in promise_of(given)) is live


@pytest.mark.parametrize(
    "fields",
    [
        {"secret_key": ""},
        {"secret_key": "pk_test_x"},
        {"secret_key": "sk_test_"},
        {"secret_key": "sk_test_a b"},
        {"secret_key": "whsec_x"},
        {"webhook_secret": "sk_test_x"},
        {"webhook_secret": "whsec_"},
        {"api_base": "http://stripe.example.com"},
        {"api_base": "ftp://127.0.0.1"},
        {"api_base": "127.0.0.1:12111"},
        {"success_url": "/paid"},
        {"success_url": "javascript:alert(1)"},
        {"cancel_url": ""},
        {"low_balance": "-1"},
        {"packs": {"small": {"price": "0.49", "credit": "1"}}},
        {"packs": {"small": {"price": "1.005", "credit": "1"}}},
        {"packs": {"small": {"price": "1000000", "credit": "1"}}},
        {"packs": {"small": {"price": "1", "credit": "0"}}},
        {"packs": {"small": {"price": "1", "credit": "-1"}}},
        {"packs": {"small": {"price": "1"}}},
        {"plans": {"pro": {"stripe_price": ""}}},
        {"plans": {"pro": {"stripe_price": "price_1", "rpm": 0}}},
        {"plans": {"pro": {"stripe_price": "price_1", "included": "-1"}}},
        {"plans": {"pro": {"stripe_price": "price_1", "price": "1"}}},
    ],
)
def test_settings_that_cannot_be_meant_are_an_error_that_shows_no_secret(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError) as wrong:
        settings(**fields)
    assert "never-to-be-shown" not in str(wrong.value)


def test_a_stand_in_for_stripe_is_on_this_machine_or_behind_https() -> None:
    for url in ("http://127.0.0.1:12111", "http://localhost:1", "http://[::1]:1", "https://x.y"):
        given = settings(api_base=f"{url}/")
        assert given.api_base == url
        assert f"at {url} instead of Stripe" in promise_of(given)
    assert settings().api_base == STRIPE
    assert "instead of" not in promise_of(settings())


def test_a_pack_costs_whole_cents_and_may_give_more_than_it_costs() -> None:
    pack = settings(packs={"a": {"price": "0.50", "credit": "0.000000001"}}).packs["a"]
    assert (pack.cents, pack.credit) == (50, Decimal("0.000000001"))
    assert settings(packs={"a": {"price": "19.99", "credit": "25"}}).packs["a"].cents == 1999


@pytest.mark.parametrize(
    ("plan", "prices"),
    [
        ({}, (("price_1", True),)),
        ({"meter": "usd_cents"}, (("price_1", False),)),
        ({"meter": "usd_cents", "meter_price": "price_2"}, (("price_1", True), ("price_2", False))),
    ],
)
def test_a_plan_is_sold_by_the_piece_or_metered_or_both(
    plan: dict[str, str], prices: tuple[tuple[str, bool], ...]
) -> None:
    given = settings(plans={"pro": {"stripe_price": "price_1", **plan}})
    assert given.plans["pro"].prices == prices
