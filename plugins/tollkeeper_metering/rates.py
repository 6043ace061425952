"""What each deployment costs: the TOML's price, or the bundled data's, found once."""

import logging
from dataclasses import dataclass

from tollkeeper import Deployment, PriceSettings
from tollkeeper.amounts import nanousd
from tollkeeper_metering.prices import UNKNOWN, Price, find_bundled, make_price

log = logging.getLogger("tollkeeper.metering")


@dataclass(frozen=True, slots=True)
class Rate:
    """A deployment, in money."""

    deployment: Deployment
    name: str
    price: Price
    settings: PriceSettings | None
    """The price as a table, None where nobody knows it."""
    max_output: int | None
    """Output tokens that one answer of it has at most, None where nobody knows."""
    drain_tokens: int
    """Output tokens that its provider's `drain_usd` buys."""


class Rates:
    """The rates of the current set of plugins, and of the one before, whose calls still run."""

    def __init__(self) -> None:
        self._known: dict[int, Rate] = {}
        """By the identity of the deployment, which is much cheaper than its hash."""
        self._older: dict[int, Rate] = {}
        self._warned: set[str] = set()

    def follow(self) -> None:
        """A new set of plugins begins, with deployments of its own."""
        self._known, self._older = {}, self._known

    def of(self, deployment: Deployment) -> Rate:
        """The rate of a deployment."""
        rate = self._known.get(id(deployment)) or self._older.get(id(deployment))
        if rate is None:
            rate = self._known[id(deployment)] = find_rate(deployment)
        return rate

    def warn_of_window(self, rate: Rate) -> None:
        """Say once that a context window stands in for a bound that its provider may refuse."""
        if rate.name not in self._warned:
            self._warned.add(rate.name)
            log.warning(
                "no max_output is set for %s: where a budget covers a call, it is bound to the"
                " context window of %s tokens, which its provider may refuse",
                rate.name,
                rate.max_output,
            )


def find_rate(deployment: Deployment) -> Rate:
    """What a deployment costs. Logs where nobody knows."""
    settings, window, source = deployment.price, None, "toml"
    if settings is None or deployment.max_output is None:
        found = find_bundled(deployment.model, deployment.kind, deployment.base_url)
        if found is not None:
            window = found[1]
            if settings is None:
                settings, source = found[0], "genai-prices"
    if settings is None:
        log.warning("no price is known for %s of %s", deployment.alias, deployment.name)
    price = UNKNOWN if settings is None else make_price(settings, source, window)
    return Rate(
        deployment=deployment,
        name=deployment.name,
        price=price,
        settings=settings,
        max_output=deployment.max_output or window,
        drain_tokens=price.output_tokens_for(nanousd(deployment.drain_usd)),
    )
