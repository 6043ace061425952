"""Meters, what was reported to them, and the sums of it."""

import re
import secrets

from tollkeeper.testing.stripe.endpoints import LISTED, Endpoint, listed
from tollkeeper.testing.stripe.forms import FREE
from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import DAY, State, Thing

OLDEST = 35 * DAY
AHEAD = 300
"""How far ahead of the clock a meter event may be, in seconds."""
MAX_IDENTIFIER = 100
WINDOWS = {"hour": 3600, "day": DAY}


def new_meter(state: State, event_name: str) -> Thing:
    """A meter that sums what is reported under a name."""
    return state.add(
        "billing.meter",
        "mtr",
        {
            "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
            "default_aggregation": {"formula": "sum"},
            "display_name": event_name,
            "event_name": event_name,
            "status": "active",
            "value_settings": {"event_payload_key": "value"},
        },
    )


def used(state: State, event_name: str, customer: str, start: int, end: int) -> int:
    """The sum of what was reported of a customer from `start` up to `end`."""
    return sum(
        event["value"]
        for event in state.meter_events
        if (event["event_name"], event["customer"]) == (event_name, customer)
        and start <= event["timestamp"] < end
    )


def _report(state: State, asked: Thing) -> Thing:
    payload = asked["payload"]
    if not state.every("billing.meter", event_name=asked["event_name"]):
        raise Refusal(
            f"No active meter found for event name '{asked['event_name']}'.", param="event_name"
        )
    for name in ("stripe_customer_id", "value"):
        if name not in payload:
            raise Refusal(f"The payload lacks '{name}'.", param=f"payload[{name}]")
    customer = state.find("customer", payload["stripe_customer_id"], "payload[stripe_customer_id]")
    if not re.fullmatch(r"[0-9]{1,15}", payload["value"]):
        raise Refusal("A meter event's value is a whole number, 0 or more.", param="payload[value]")
    timestamp = asked.get("timestamp", state.now())
    _check_timestamp(state.clock.time(), timestamp)
    identifier = asked.get("identifier") or secrets.token_hex(16)
    _take_identifier(state, identifier)
    event = {"event_name": asked["event_name"], "identifier": identifier, "timestamp": timestamp}
    event["created"] = state.now()
    made = {"customer": customer["id"], "value": int(payload["value"])}
    state.meter_events.append({**event, **made})
    return {"object": "billing.meter_event", "livemode": False, "payload": payload, **event}


def _check_timestamp(now: float, timestamp: int) -> None:
    if timestamp < now - OLDEST:
        raise Refusal("The timestamp is more than 35 days in the past.", param="timestamp")
    if timestamp > now + AHEAD:
        raise Refusal("The timestamp is more than 5 minutes in the future.", param="timestamp")


def _take_identifier(state: State, identifier: str) -> None:
    if len(identifier) > MAX_IDENTIFIER:
        raise Refusal(
            f"Invalid string: it has more than {MAX_IDENTIFIER} characters.", param="identifier"
        )
    now = state.clock.time()
    if identifier in state.identifiers and now - state.identifiers[identifier] < DAY:
        # There is no code to tell it by, and after a day it is not told at all.
        raise Refusal(f"An event already exists with identifier {identifier}.")
    state.identifiers[identifier] = now


def _list(state: State, asked: Thing) -> Thing:
    return listed(state.every("billing.meter"), asked, "/v1/billing/meters")


def _sum(state: State, asked: Thing) -> Thing:
    meter = state.find("billing.meter", asked["id"])
    customer = state.find("customer", asked["customer"], "customer")["id"]
    start, end = asked["start_time"], asked["end_time"]
    step = WINDOWS.get(asked.get("value_grouping_window", ""), 0)
    for name in ("start_time", "end_time"):
        if asked[name] % (step or 60):
            raise Refusal(f"{name} has to be on a whole {_unit(step)}.", param=name)
    if start >= end:
        raise Refusal("start_time has to be before end_time.", param="start_time")
    windows = [(at, min(at + (step or end), end)) for at in range(start, end, step or end - start)]
    found = []
    for first, last in reversed(windows):
        value = used(state, meter["event_name"], customer, first, last)
        if value or not step:  # a window in which nothing was reported is not told
            found.append(_summary(meter, value, first, last))
    return listed(found, asked, f"/v1/billing/meters/{meter['id']}/event_summaries")


def _unit(step: int) -> str:
    return {3600: "hour", DAY: "UTC day"}.get(step, "minute")


def _summary(meter: Thing, value: int, start: int, end: int) -> Thing:
    return {
        "id": f"mtrusg_{meter['id'][4:]}_{start}",
        "object": "billing.meter_event_summary",
        "aggregated_value": value,
        "end_time": end,
        "livemode": False,
        "meter": meter["id"],
        "start_time": start,
    }


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/billing/meter_events",
        _report,
        {"event_name!": str, "payload!": FREE, "identifier": str, "timestamp": int},
    ),
    Endpoint("GET", "/v1/billing/meters", _list, {**LISTED, "status": ("active", "inactive")}),
    Endpoint(
        "GET",
        "/v1/billing/meters/<id>/event_summaries",
        _sum,
        {
            **LISTED,
            "customer!": str,
            "start_time!": int,
            "end_time!": int,
            "value_grouping_window": tuple(WINDOWS),
        },
    ),
]
