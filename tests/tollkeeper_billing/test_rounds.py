"""The rounds: plans as Stripe has them, their allowances, and what goes beyond."""

import pytest
import trio
from shop import BILLING, TOML, Shop, shop

from tollkeeper import PluginError
from tollkeeper.storage import StorageError
from tollkeeper.testing.stripe import Refusal
from tollkeeper_billing.draws import DAY
from tollkeeper_billing.models import Credit
from tollkeeper_billing.outbox import take_lease

MONTH = 30 * DAY


async def subscribe(house: Shop, plan: str = "pro") -> str:
    """Buy a plan; the subscription's id."""
    session = await house.buy(plan, "plan")
    await house.deliver()
    return str(house.stripe.find("checkout.session", session)["subscription"])


async def test_a_plan_is_in_force_with_its_allowance_once_it_is_paid() -> None:
    async with shop() as house:
        await subscribe(house)
        status = await house.status()
        assert (status["plan"], status["status"], status["balance"]) == ("pro", "active", "20.00")
        assert house.billing.rpm_of(house.orgs["acme"]) == 600
        await house.deliver()
        await house.round()
        assert (await house.status())["balance"] == "20.00"


async def test_without_a_meter_calls_stop_at_the_end_of_the_allowance() -> None:
    async with shop() as house:
        await subscribe(house)
        key = await house.key()
        assert (await house.chat(key, tokens=2000, most=2000)).status == 200
        assert (await house.chat(key)).status == 429
        await house.buy()
        await house.deliver()
        assert (await house.chat(key)).status == 200
        assert (await house.status())["balance"] == "9.99"


async def test_a_new_period_has_a_new_allowance_and_what_was_left_of_the_old_lapses() -> None:
    async with shop() as house:
        subscription = await subscribe(house)
        await house.buy()
        await house.deliver()
        key = await house.key()
        await house.chat(key, tokens=500, most=500)
        await house.written()
        assert (await house.status())["balance"] == "25.00"
        await house.jump(MONTH)
        house.stripe.renew(subscription)
        await house.deliver()
        assert (await house.status("acme"))["balance"] == "30.00"


async def test_an_allowance_lapses_when_the_plan_ends_and_credit_stays() -> None:
    async with shop() as house:
        subscription = await subscribe(house)
        await house.buy()
        await house.deliver()
        house.stripe.cancel(subscription)
        await house.deliver()
        status = await house.status()
        assert (status["plan"], status["status"]) == (None, "none")
        assert house.billing.rpm_of(house.orgs["acme"]) is None
        await house.jump(MONTH)
        await house.round()
        assert (await house.status())["balance"] == "10.00"


async def test_a_renewal_that_is_not_paid_gives_nothing_until_it_is() -> None:
    async with shop() as house:
        subscription = await subscribe(house)
        await house.jump(MONTH)
        house.stripe.fail_renewal(subscription)
        await house.deliver()
        status = await house.status()
        assert (status["plan"], status["status"], status["balance"]) == ("pro", "past_due", "0.00")
        assert status["hard_stop"]
        assert house.billing.rpm_of(house.orgs["acme"]) == 600
        house.stripe.renew(subscription)
        await house.deliver()
        assert (await house.status())["balance"] == "20.00"


async def test_what_goes_beyond_allowance_and_credit_is_metered_in_cents() -> None:
    async with shop() as house:
        await subscribe(house, "usage")
        await house.buy()
        await house.deliver()
        key = await house.key()
        assert (await house.chat(key, tokens=1500, most=2000)).status == 200
        assert not (await house.status())["hard_stop"]
        await house.written()
        await house.round()
        (event,) = house.stripe.meter_events
        assert event["value"] == 400
        assert (await house.status())["balance"] == "0.00"
        assert (await house.chat(key, tokens=3, most=1000)).status == 200
        await house.written()
        await house.round()
        assert [each["value"] for each in house.stripe.meter_events] == [400, 3]
        assert (await house.status())["balance"] == "0.00"


async def test_usage_of_the_last_minutes_of_a_metered_plan_is_metered() -> None:
    async with shop() as house:
        subscription = await subscribe(house, "usage")
        key = await house.key()
        await house.chat(key, tokens=150, most=150)
        await house.written()
        house.stripe.cancel(subscription)
        await house.deliver()
        assert [each["value"] for each in house.stripe.meter_events] == [50]
        assert (await house.chat(key)).status == 429


@pytest.mark.parametrize("fault", ["429", "drop_before", "drop_after"])
async def test_usage_that_waited_for_stripe_is_billed_with_the_period_that_runs(fault: str) -> None:
    async with shop() as house:
        subscription = await subscribe(house, "usage")
        house.stripe.fault = lambda _, path: fault * path.endswith("meter_events")
        await house.jump(MONTH - 60)
        await house.chat(await house.key(), tokens=150, most=150)
        await house.written()
        await house.round()
        await house.jump(60)
        house.stripe.renew(subscription)
        invoices = [house.stripe.events[-1]]
        await house.deliver()
        house.stripe.fault = lambda _method, _path: ""
        for _ in range(2):
            await house.jump(3600)
            await house.round()
        assert [each["value"] for each in house.stripe.meter_events] == [50]
        await house.jump(MONTH)
        house.stripe.renew(subscription)
        invoices.append(house.stripe.events[-1])
        metered = [
            line["quantity"]
            for invoice in invoices
            for line in invoice["data"]["object"]["lines"]["data"]
            if line["pricing"]["price_details"]["price"] == "price_metered"
        ]
        assert metered == ([50, 0] if fault == "drop_after" else [0, 50])


async def test_a_price_of_no_plan_is_no_plan(caplog: pytest.LogCaptureFixture) -> None:
    async with shop() as house:
        subscription = await subscribe(house)
        house.stripe.add_price("price_other", 100)
        house.stripe.change_price(subscription, "price_other")
        await house.deliver()
        status = await house.status()
        assert (status["plan"], status["status"]) == (None, "active")
    assert "prices of no plan" in caplog.text


async def test_while_stripe_is_down_calls_go_on_and_what_it_missed_comes_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as house:
        await subscribe(house, "usage")
        key = await house.key()
        house.stripe.fault = lambda _method, _path: "drop_before"
        for _ in range(3):
            assert (await house.chat(key, tokens=200, most=200)).status == 200
            await house.written()
            await house.round()
            house.clock.jump(3600)
        assert not house.stripe.meter_events
        assert caplog.text.count("wait for Stripe") == 1
        reply = await house.ask("POST", f"{BILLING}/checkout", {"pack": "small"})
        assert (reply.status, reply.headers["retry-after"]) == (503, "60")
        house.stripe.fault = lambda _method, _path: ""
        for _ in range(3):
            await house.round()
            house.clock.jump(3600)
        assert sum(each["value"] for each in house.stripe.meter_events) == 500
        assert "do not wait for Stripe any more" in caplog.text


async def test_what_breaks_in_the_rounds_does_not_stop_the_gateway(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop() as house:
        await house.buy()
        await house.deliver()

        async def broken(*_args: object) -> None:
            raise KeyError("items")

        assert house.billing.rounds is not None
        monkeypatch.setattr(house.billing.rounds, "look_up", broken)
        await house.round()
        assert (await house.chat(await house.key())).status == 200
    assert "subscriptions failed; they are tried again" in caplog.text


async def test_only_one_process_asks_stripe_at_a_time() -> None:
    async with shop() as house:
        await house.buy("pro", "plan")
        till = house.billing._till
        house.clock.jump(121)
        assert await till.write(take_lease, "somebody else", till.now)
        await house.deliver()
        assert (await house.status())["plan"] is None
        house.clock.jump(121)
        await house.round()
        assert (await house.status())["plan"] == "pro"


async def test_an_allowance_that_calls_hold_lapses_once_they_are_over() -> None:
    async with shop() as house:
        await subscribe(house)
        balances = house.billing._till.balances
        assert balances is not None
        org = house.orgs["acme"]
        held = balances.set_aside(org, 15 * 10**9)
        house.stripe.cancel(house.stripe.every("subscription")[0]["id"])
        await house.jump(MONTH)
        await house.deliver()
        assert balances.balance(org) == (held, held)
        balances.release(org, held)
        await house.round()
        assert balances.balance(org) == (0, 0)


async def test_every_change_of_a_balance_has_its_row() -> None:
    async with shop() as house:
        subscription = await subscribe(house)
        await house.jump(MONTH)
        house.stripe.renew(subscription)
        await house.deliver()
        database = house.gateway.generations.shared.database
        with database.reading() as db:
            rows = Credit.select(Credit.kind, Credit.amount_nanousd).order_by(Credit.id)
            kinds = [(kind, amount // 10**9) for kind, amount in rows.tuples().execute(db)]
        assert kinds == [("included", 20), ("included", 20), ("lapse", -20)]


async def test_an_allowance_comes_when_the_period_is_paid_and_the_old_one_stays_till_then() -> None:
    async with shop() as house:
        subscription = await subscribe(house)
        key = await house.key()
        await house.chat(key, tokens=500, most=500)
        await house.written()
        await house.jump(MONTH)
        house.stripe.draft_renewal(subscription)
        await house.deliver()
        assert (await house.status())["balance"] == "15.00"
        await house.jump(3600)
        house.stripe.renew(subscription)
        await house.deliver()
        assert (await house.status())["balance"] == "20.00"


async def test_while_stripe_is_down_at_a_renewal_the_allowance_stays() -> None:
    async with shop() as house:
        await subscribe(house)
        house.stripe.fault = lambda _method, _path: "drop_before"
        await house.jump(MONTH + 3600)
        await house.round()
        assert (await house.status())["balance"] == "20.00"
        assert (await house.chat(await house.key())).status == 200


async def test_a_metered_plan_without_the_price_that_bills_it_is_not_metered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as house:
        subscription = await subscribe(house)
        house.stripe.change_price(subscription, "price_base")
        await house.deliver()
        assert (await house.status())["plan"] == "usage"
        key = await house.key()
        assert (await house.chat(key, tokens=2000, most=2000)).status == 200
        assert (await house.chat(key)).status == 429
    assert "without its meter_price" in caplog.text


async def test_two_subscriptions_are_told_to_the_operator(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as house:
        first = await house.done("POST", f"{BILLING}/checkout", {"plan": "pro"})
        second = await house.done("POST", f"{BILLING}/checkout", {"plan": "usage"})
        with pytest.raises(Refusal):
            house.stripe.pay(first["id"])  # it was closed for the second
        house.stripe.pay(second["id"])
        await house.deliver()
        order = house.stripe.find("subscription", house.stripe.every("subscription")[0]["id"])
        again = {**order, "id": "sub_again"}
        house.stripe.objects["sub_again"] = again
        house.stripe.record("customer.subscription.created", again)
        await house.deliver()
    assert "pays for several subscriptions" in caplog.text


async def test_those_who_pay_a_former_price_keep_their_plan() -> None:
    async with shop() as house:
        await subscribe(house)
        house.stripe.add_price("price_new", 3000)
        toml = TOML.format(url=house.stripe.url, more="")
        new = 'stripe_price = "price_new"\nformer_prices = ["price_pro"]'
        await house.gateway.switch(toml.replace('stripe_price = "price_pro"', new))
        await house.jump(MONTH)
        house.stripe.renew(house.stripe.every("subscription")[0]["id"])
        await house.deliver()
        status = await house.status()
        assert (status["plan"], status["balance"]) == ("pro", "20.00")


async def test_a_customer_that_was_deleted_at_stripe_has_no_plan() -> None:
    async with shop() as house:
        await subscribe(house)
        customer = house.stripe.every("customer")[0]["id"]
        told = dict(house.stripe.every("subscription")[0])
        del house.stripe.objects[customer]
        house.stripe.record("customer.subscription.deleted", told)
        await house.deliver()
        assert (await house.status())["plan"] is None


async def test_organizations_without_a_plan_have_a_rate_too() -> None:
    async with shop("rpm = 2") as house:
        assert house.billing.rpm_of(house.orgs["acme"]) == 2
        await subscribe(house)
        assert house.billing.rpm_of(house.orgs["acme"]) == 600


async def test_a_reload_never_refuses_who_has_a_balance() -> None:
    async with shop() as house:
        await house.buy()
        await house.deliver()
        key, statuses, done = await house.key(), [], trio.Event()

        async def call() -> None:
            while not done.is_set():
                statuses.append((await house.chat(key, tokens=0)).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            for number in range(10):
                toml = TOML.format(url=house.stripe.url, more=f'low_balance = "{number}"')
                await house.gateway.switch(toml)
            done.set()
        assert set(statuses) == {200}
        assert len(statuses) > 10


async def test_a_database_that_is_busy_stops_no_rounds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop() as house:

        async def busy(*_args: object) -> None:
            raise StorageError("the database is busy")

        monkeypatch.setattr(house.gateway.generations.shared.database, "write", busy)
        await house.round()
        monkeypatch.undo()
        await house.buy()
        await house.deliver()
        assert (await house.status())["balance"] == "10.00"
    assert "failed; they are tried again" in caplog.text


async def test_test_money_is_not_spent_in_live_mode() -> None:
    async with shop() as house:
        await house.buy()
        await house.deliver()
        live = TOML.format(url="https://stripe.invalid", more="").replace("sk_test", "sk_live")
        with pytest.raises(PluginError, match="another database"):
            await house.gateway.switch(live)
        assert (await house.chat(await house.key())).status == 200


async def test_an_invoice_whose_webhook_got_lost_is_found_within_the_hour() -> None:
    async with shop() as house:
        subscription = await subscribe(house)
        await house.jump(MONTH)
        house.stripe.fail_renewal(subscription)
        await house.deliver()
        assert (await house.status())["status"] == "past_due"
        house.stripe.renew(subscription)
        house.delivered = len(house.stripe.events)  # and nobody hears of it
        await house.round()
        assert (await house.status())["status"] == "past_due"
        await house.jump(3600)
        await house.round()
        status = await house.status()
        assert (status["status"], status["balance"]) == ("active", "20.00")
