"""What is bought by itself, as an owner sets it."""

import pytest
from shop import BILLING, shop

TOPUP = f"{BILLING}/topup"


async def test_nothing_is_bought_until_somebody_says_so() -> None:
    async with shop("auto_topup = true") as house:
        assert await house.done("GET", TOPUP) == {"pack": None, "below": "0.00", "error": None}


async def test_what_was_set_is_shown_until_it_is_taken_back() -> None:
    async with shop("auto_topup = true") as house:
        wanted = {"pack": "small", "below": "5.00"}
        told = {**wanted, "error": None}
        assert await house.done("PUT", TOPUP, wanted) == told
        assert await house.done("GET", TOPUP) == told
        none = {"pack": None, "below": "0.00", "error": None}
        assert await house.done("PUT", TOPUP, {"pack": None, "below": "5.00"}) == none
        assert await house.done("GET", TOPUP) == none


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"pack": "huge"}, "pack"),
        ({"pack": "small", "below": "-1"}, "below"),
        ({"pack": "small", "below": "1e3"}, "below"),
        ({"pack": "small", "below": 5}, "below"),
        ({"below": "5.00"}, "pack"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused(body: object, param: str) -> None:
    async with shop("auto_topup = true") as house:
        reply = await house.ask("PUT", TOPUP, body)
        assert (reply.status, reply.json()["error"]["param"]) == (400, param)
