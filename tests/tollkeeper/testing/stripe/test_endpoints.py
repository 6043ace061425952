"""Lists, page by page."""

from typing import Any

import pytest

from tollkeeper.testing.stripe import Refusal
from tollkeeper.testing.stripe.endpoints import listed

THINGS = [{"id": str(number)} for number in range(25)]


def ids(**asked: object) -> list[str]:
    return [one["id"] for one in listed(THINGS, dict(asked), "/u")["data"]]


def test_a_page_has_ten_unless_asked_otherwise() -> None:
    page = listed(THINGS, {}, "/u")
    assert (page["object"], page["has_more"], page["url"]) == ("list", True, "/u")
    assert ids() == [str(number) for number in range(10)]
    assert len(ids(limit=100)) == 25
    assert not listed(THINGS, {"limit": 25}, "/u")["has_more"]


def test_pages_follow_and_precede() -> None:
    assert ids(limit=2, starting_after="3") == ["4", "5"]
    assert ids(starting_after="24") == []
    assert ids(limit=2, ending_before="3") == ["1", "2"]
    assert listed(THINGS, {"limit": 2, "ending_before": "3"}, "/u")["has_more"]
    assert not listed(THINGS, {"limit": 3, "ending_before": "3"}, "/u")["has_more"]


@pytest.mark.parametrize("asked", [{"limit": 0}, {"limit": 101}, {"starting_after": "x"}])
def test_a_page_that_is_not_there_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(Refusal):
        listed(THINGS, asked, "/u")


async def test_the_library_pages_through_a_list(shop: Any) -> None:
    customer = await shop.customer()
    for _ in range(5):
        await shop.paid(
            customer=customer, payment_intent_data={"setup_future_usage": "off_session"}
        )
    page = await shop.client.v1.customers.payment_methods.list_async(customer, {"limit": 2})
    assert page.has_more
    assert len([card async for card in page.auto_paging_iter()]) == 5
