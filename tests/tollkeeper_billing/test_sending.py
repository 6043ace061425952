"""Usage on its way to Stripe: there once, whatever goes wrong in between."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tollkeeper import Notice
from tollkeeper.storage import make_database
from tollkeeper.testing import JumpClock
from tollkeeper.testing.stripe import FakeStripe, fake_stripe
from tollkeeper_billing.draws import Terms
from tollkeeper_billing.models import MeterEvent
from tollkeeper_billing.processor import Declined, Unreachable, connected
from tollkeeper_billing.sending import Sender
from tollkeeper_billing.settings import BillingSettings
from tollkeeper_billing.till import Till

NOW = 1_795_564_800
HOUR = 3600


@dataclass
class Post:
    """A sender, Stripe, and an outbox between them."""

    stripe: FakeStripe
    clock: JumpClock
    till: Till
    sender: Sender
    notices: list[Notice]
    customer: str

    async def put(self, identifier: str, units: int = 5, meter: str = "usd_cents") -> None:
        now = self.till.now
        row = {"org": "acme", "day": NOW, "units": units, "meter": meter, "at": now}
        row |= {"identifier": identifier, "customer": self.customer, "state": "waiting"}
        row |= {"first_try": 0, "last_try": 0, "next_try": 0, "tries": 0, "error": ""}
        await self.till.write(lambda db: MeterEvent.insert(**row).execute(db))

    async def state(self, identifier: str) -> str:
        ours = MeterEvent.select(MeterEvent.state).where(MeterEvent.identifier == identifier)
        return str((await self.till.read(lambda db: list(ours.tuples().execute(db))))[0][0])

    async def send(self, fault: str = "") -> None:
        """Go once, and tolerate what Stripe does."""
        self.stripe.fault = lambda _method, _path: fault
        with contextlib.suppress(Unreachable, Declined):
            await self.sender.send()

    @property
    def arrived(self) -> list[str]:
        return [each["identifier"] for each in self.stripe.meter_events]


@contextlib.asynccontextmanager
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    clock = JumpClock()
    clock.now = float(NOW)
    database = make_database("sqlite:///my.db", tmp_path)
    database.open()
    database.migrate_package("billing", "tollkeeper_billing")
    async with fake_stripe(clock=clock) as stripe:
        stripe.add_meter("usd_cents")
        settings = BillingSettings.model_validate(
            {
                "secret_key": "sk_test_fake",
                "webhook_secret": "whsec_fake",
                "api_base": stripe.url,
                "success_url": "https://example.com/",
                "cancel_url": "https://example.com/",
            }
        )
        till, notices = Till(database, clock), list[Notice]()
        async with connected(settings) as processor:
            customer = await processor.create_customer("acme", "nonce", "")
            sender = Sender(till, processor, notices.append, lambda _: Terms())
            yield Post(stripe, clock, till, sender, notices, customer)
    database.close()


async def test_what_is_due_arrives_with_its_units_and_its_moment(tmp_path: Path) -> None:
    async with post(tmp_path) as office:
        await office.put("one", 7)
        office.clock.jump(100)
        await office.send()
        (event,) = office.stripe.meter_events
        assert (event["value"], event["timestamp"], event["customer"]) == (7, NOW, office.customer)
        assert await office.state("one") == "sent"
        await office.send()
        assert office.arrived == ["one"]


@pytest.mark.parametrize("fault", ["drop_after", "500_after", "drop_before", "500_before"])
async def test_what_may_have_arrived_is_sent_again_within_the_window_and_counts_once(
    tmp_path: Path, fault: str
) -> None:
    async with post(tmp_path) as office:
        await office.put("one")
        await office.send(fault)
        assert await office.state("one") == "unsure"
        for _ in range(3):
            office.clock.jump(HOUR)
            await office.send(fault)
        office.clock.jump(19 * HOUR)
        await office.send()
        assert await office.state("one") == "sent"
        assert office.arrived == ["one"]


@pytest.mark.parametrize("fault", ["drop_after", "500_after", "drop_before", "500_before"])
async def test_beyond_the_window_stripe_is_asked_and_nothing_is_sent_blindly(
    tmp_path: Path, fault: str
) -> None:
    async with post(tmp_path) as office:
        await office.put("before", 100)
        await office.send()
        await office.put("one", 5)
        await office.put("two", 3)
        await office.send(fault)
        office.clock.jump(72 * HOUR)
        await office.send(fault)  # asked, and not answered
        assert await office.state("one") == "unsure"
        office.clock.jump(HOUR)
        for _ in range(4):
            await office.send()
            office.clock.jump(HOUR)
        assert office.arrived == ["before", "one", "two"]
        assert [await office.state(name) for name in ("one", "two")] == ["sent", "sent"]
        assert not office.notices


async def test_what_did_not_arrive_for_certain_is_sent_whenever_stripe_is_back(
    tmp_path: Path,
) -> None:
    async with post(tmp_path) as office:
        await office.put("one")
        await office.send("429")
        assert await office.state("one") == "waiting"
        office.clock.jump(60 * HOUR)
        await office.send()
        assert office.arrived == ["one"]


async def test_what_stripe_refuses_waits_until_the_operator_has_made_the_meter(
    tmp_path: Path,
) -> None:
    async with post(tmp_path) as office:
        await office.put("one", meter="forgotten")
        await office.send()
        assert await office.state("one") == "waiting"
        office.stripe.add_meter("forgotten")
        office.clock.jump(HOUR)
        await office.send()
        assert office.arrived == ["one"]


async def test_a_count_that_fits_nothing_is_asked_for_a_day_then_told_and_lets_others_pass(
    tmp_path: Path,
) -> None:
    async with post(tmp_path) as office:
        await office.put("one", 5)
        await office.send("500_before")
        office.stripe.fault = lambda _method, _path: ""
        other = {"event_name": "usd_cents", "identifier": "stranger", "timestamp": NOW}
        other |= {"payload": {"stripe_customer_id": office.customer, "value": "2"}}
        await office.sender._stripe.send_usage(other)
        await office.put("two", 3)
        office.clock.jump(24 * HOUR)
        for _ in range(24):
            await office.send()
            assert await office.state("one") == "unsure"
            office.clock.jump(HOUR)
        assert office.arrived == ["stranger"]
        assert not office.notices
        await office.send()
        assert await office.state("one") == "dead"
        assert [notice.kind for notice in office.notices] == ["usage_not_billed"]
        await office.send()
        assert office.arrived == ["stranger", "two"]


async def test_what_is_too_old_for_stripe_is_told_and_lets_others_pass(tmp_path: Path) -> None:
    async with post(tmp_path) as office:
        await office.put("one")
        office.clock.jump(34 * 24 * HOUR + 1)
        await office.put("two")
        await office.send()
        await office.send()
        assert await office.state("one") == "dead"
        assert office.arrived == ["two"]
        assert "0.05 USD of acme" in office.notices[0].message


async def test_an_event_of_which_stripe_cannot_be_asked_is_given_up_after_a_day_and_told(
    tmp_path: Path,
) -> None:
    async with post(tmp_path) as office:
        await office.put("one")
        await office.put("two")
        await office.send("drop_before")
        for meter in office.stripe.every("billing.meter"):
            meter["event_name"] = "another"  # somebody has renamed it
        office.clock.jump(72 * HOUR)
        for _ in range(30):
            await office.send()
            office.clock.jump(HOUR)
        assert await office.state("one") == "dead"
        assert [notice.kind for notice in office.notices] == ["usage_not_billed"]
