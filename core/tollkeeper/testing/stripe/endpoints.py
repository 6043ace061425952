"""What an endpoint is, and how lists are told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tollkeeper.testing.stripe.refusals import Refusal
from tollkeeper.testing.stripe.state import State, Thing

LISTED: dict[str, Any] = {"limit": int, "starting_after": str, "ending_before": str}
"""The parameters of every list."""
MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path: what it takes, and what it does with it."""

    method: str
    path: str
    """With `<id>` where an id stands; it is among the parameters as `id`."""
    answer: Callable[[State, Thing], Thing]
    takes: dict[str, Any] = field(default_factory=dict)


def shown(path: str, kind: str) -> Endpoint:
    """The endpoint that shows one object."""
    return Endpoint("GET", path, lambda state, asked: state.find(kind, asked["id"]))


def listed(things: list[Thing], asked: Thing, url: str) -> Thing:
    """One page of a list that is given newest first."""
    limit = asked.get("limit", 10)
    if not 1 <= limit <= MAX_LISTED:
        raise Refusal(f"Invalid limit: it is between 1 and {MAX_LISTED}.", param="limit")
    ids = [thing["id"] for thing in things]
    start, end = 0, len(things)
    if "starting_after" in asked:
        start = _place(ids, asked, "starting_after") + 1
    if "ending_before" in asked:
        end = _place(ids, asked, "ending_before")
        start = max(start, end - limit)
        more = start > 0
    else:
        more = end - start > limit
    page = things[start:end][:limit]
    return {"object": "list", "data": page, "has_more": more, "url": url}


def check_urls(asked: Thing, *names: str) -> None:
    """Raise `Refusal` for a parameter of these names that is no address of a page."""
    for name in names:
        if name in asked and urlsplit(asked[name]).scheme not in ("http", "https"):
            raise Refusal("Not a valid URL", code="url_invalid", param=name)


def _place(ids: list[str], asked: Thing, param: str) -> int:
    if asked[param] not in ids:
        raise Refusal(f"No such object: '{asked[param]}'", code="resource_missing", param=param)
    return ids.index(asked[param])
