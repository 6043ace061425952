"""Objects and events."""

import pytest

from tollkeeper.testing import JumpClock
from tollkeeper.testing.stripe import Refusal
from tollkeeper.testing.stripe.state import API_VERSION, State


def test_an_object_is_found_by_its_kind_and_id(clock: JumpClock) -> None:
    state = State(clock)
    made = state.add("customer", "cus", {"name": "Ada"})
    assert made["id"].startswith("cus_")
    assert made["created"] == 1_000_000
    assert made["livemode"] is False
    assert state.find("customer", made["id"]) is made
    with pytest.raises(Refusal) as caught:
        state.find("price", made["id"])
    assert (caught.value.status, caught.value.code) == (404, "resource_missing")
    with pytest.raises(Refusal) as caught:
        state.find("customer", "cus_x", "customer")
    assert (caught.value.status, caught.value.param) == (400, "customer")


def test_every_tells_the_newest_first(clock: JumpClock) -> None:
    state = State(clock)
    first, second = (state.add("card", "c", {"of": "a"}) for _ in range(2))
    state.add("card", "c", {"of": "b"})
    assert state.every("card", of="a") == [second, first]
    assert len(state.every("card")) == 3


def test_an_event_is_a_snapshot(clock: JumpClock) -> None:
    state = State(clock)
    made = state.add("thing", "t", {"n": {"deep": 1}, "same": 2})
    event = state.record("thing.made", made)
    made["n"]["deep"] = 5
    later = state.record("thing.updated", made, {**made, "n": {"deep": 1}})
    assert event["data"] == {"object": {**made, "n": {"deep": 1}}}
    assert later["data"]["previous_attributes"] == {"n": {"deep": 1}}
    assert event["api_version"] == API_VERSION
    assert event["id"].startswith("evt_")
    assert state.events == [event, later]
