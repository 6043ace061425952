"""Selling access, from the checkout to the last cent."""

from shop import BILLING, shop


async def test_credit_is_bought_spent_to_the_last_cent_and_then_calls_are_refused() -> None:
    async with shop() as house:
        key = await house.key()
        refused = await house.chat(key)
        assert (refused.status, refused.code) == (429, "rate_limit")
        assert refused.headers["x-should-retry"] == "false"
        assert "Buy credit" in refused.json()["error"]["message"]
        opened = await house.done("POST", f"{BILLING}/checkout", {"pack": "small"})
        assert opened["url"].startswith(house.stripe.url)
        house.stripe.pay(opened["id"])
        assert (await house.status())["balance"] == "0.00"
        await house.deliver()
        assert await house.status() == {
            "plan": None,
            "status": "none",
            "balance": "10.00",
            "held": "0.00",
            "currency": "usd",
            "hard_stop": False,
        }
        assert (await house.chat(key, tokens=37, most=100)).status == 200
        assert (await house.status())["balance"] == "9.63"
        refused = await house.chat(key, most=964)
        assert refused.status == 429
        assert (await house.chat(key, tokens=963, most=963)).status == 200
        assert (await house.chat(key)).status == 429
        status = await house.status()
        assert (status["balance"], status["hard_stop"]) == ("0.00", True)
        await house.written()
        (day,) = (await house.done("GET", f"{BILLING}/usage"))["data"]
        assert day == {
            "key": "2026-11-25",
            "requests": 2,
            "input_tokens": 2,
            "output_tokens": 1000,
            "cost": "10.00",
            "charge": "10.00",
        }
