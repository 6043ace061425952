"""Meters: what they take, what they refuse, what they sum."""

from typing import Any

import pytest
import stripe

from tollkeeper.testing import JumpClock
from tollkeeper.testing.stripe import FakeStripe

DAY = 86400


@pytest.fixture
async def meter(shop: Any, fake: FakeStripe) -> "Meter":
    return Meter(shop, fake.add_meter("tokens"), await shop.customer())


class Meter:
    def __init__(self, shop: Any, meter_id: str, customer: str) -> None:
        self.shop = shop
        self.id = meter_id
        self.customer = customer

    async def report(self, value: object = 5, **fields: Any) -> Any:
        payload = {"stripe_customer_id": self.customer, "value": str(value)}
        params = {"event_name": "tokens", "payload": payload, **fields}
        return await self.shop.client.v1.billing.meter_events.create_async(params=params)

    async def refused(self, value: object = 5, **fields: Any) -> Any:
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await self.report(value, **fields)
        assert caught.value.http_status == 400
        return caught.value

    async def sums(self, start: int, end: int, **fields: Any) -> Any:
        params = {"customer": self.customer, "start_time": start, "end_time": end, **fields}
        summaries = self.shop.client.v1.billing.meters.event_summaries
        return await summaries.list_async(self.id, params)


async def test_an_event_is_taken(meter: Meter, fake: FakeStripe) -> None:
    made = await meter.report(5, identifier="a", timestamp=999_990)
    assert (made.object, made.identifier, made.timestamp) == ("billing.meter_event", "a", 999_990)
    await meter.report(0)
    assert fake.meter_events[0] == {
        "event_name": "tokens",
        "identifier": "a",
        "customer": meter.customer,
        "value": 5,
        "timestamp": 999_990,
        "created": 1_000_000,
    }
    assert fake.meter_events[1]["timestamp"] == 1_000_000
    assert len(fake.meter_events[1]["identifier"]) == 32


@pytest.mark.parametrize("value", ["1.5", "-1", "x", "1e3", " 1"])
async def test_a_value_is_a_whole_number(meter: Meter, fake: FakeStripe, value: str) -> None:
    await meter.refused(value)
    assert fake.meter_events == []


async def test_what_names_nothing_known_is_refused(meter: Meter) -> None:
    await meter.refused(event_name="unknown")
    await meter.refused(payload={"value": "1"})
    await meter.refused(payload={"stripe_customer_id": meter.customer})
    await meter.refused(payload={"stripe_customer_id": "cus_x", "value": "1"})
    await meter.refused(identifier="x" * 101)
    await meter.report(identifier="x" * 100)


async def test_a_timestamp_is_of_the_last_weeks(meter: Meter) -> None:
    now = 1_000_000
    await meter.report(timestamp=now - 35 * DAY if now > 35 * DAY else 0)
    await meter.report(timestamp=now + 300)
    await meter.refused(timestamp=now + 301)


async def test_a_timestamp_can_be_too_old(meter: Meter, clock: JumpClock) -> None:
    clock.now = 100 * DAY
    await meter.report(timestamp=65 * DAY)
    await meter.refused(timestamp=65 * DAY - 1)


async def test_an_identifier_is_known_for_exactly_a_day(
    meter: Meter, clock: JumpClock, fake: FakeStripe
) -> None:
    await meter.report(1, identifier="a")
    clock.jump(DAY - 1)
    error = await meter.refused(2, identifier="a")
    assert error.code is None
    assert error.user_message == "An event already exists with identifier a."
    assert error.error.type == "invalid_request_error"
    clock.jump(1)
    await meter.report(3, identifier="a")
    await meter.refused(4, identifier="a")
    assert [event["value"] for event in fake.meter_events] == [1, 3]


async def test_a_refused_event_does_not_take_its_identifier(meter: Meter) -> None:
    await meter.refused("x", identifier="a")
    await meter.report(1, identifier="a")


async def test_meters_are_listed(meter: Meter, fake: FakeStripe) -> None:
    fake.add_meter("images")
    found = (await meter.shop.client.v1.billing.meters.list_async()).data
    assert [(one.event_name, one.status) for one in found] == [
        ("images", "active"),
        ("tokens", "active"),
    ]
    assert found[1].id == meter.id


async def test_events_are_summed_by_day_and_over_all(meter: Meter, clock: JumpClock) -> None:
    clock.now = 100 * DAY + 3600
    for value, day in ((1, 97), (2, 97), (4, 99)):
        await meter.report(value, timestamp=day * DAY + 5)
    days = await meter.sums(97 * DAY, 100 * DAY, value_grouping_window="day")
    assert [(one.start_time // DAY, one.aggregated_value) for one in days.data] == [
        (99, 4),
        (97, 3),
    ]
    [whole] = (await meter.sums(97 * DAY + 60, 100 * DAY)).data
    assert (whole.aggregated_value, whole.end_time) == (4, 100 * DAY)
    [none] = (await meter.sums(98 * DAY, 99 * DAY)).data
    assert none.aggregated_value == 0


@pytest.mark.parametrize(
    ("start", "end", "window"),
    [(DAY + 1, 2 * DAY, ""), (DAY + 60, 2 * DAY, "day"), (DAY, 2 * DAY + 60, "day"), (60, 60, "")],
)
async def test_a_sum_is_of_whole_minutes_or_days(
    meter: Meter, start: int, end: int, window: str
) -> None:
    fields = {"value_grouping_window": window} if window else {}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await meter.sums(start, end, **fields)
    assert caught.value.http_status == 400


async def test_a_sum_is_of_a_meter_and_a_customer(meter: Meter) -> None:
    for wrong in ({"customer": "cus_x"}, {"customer": None}):
        with pytest.raises(stripe.InvalidRequestError):
            await meter.sums(0, 60, **wrong)
    meter.id = "mtr_x"
    with pytest.raises(stripe.InvalidRequestError):
        await meter.sums(0, 60)
