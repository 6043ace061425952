"""`[plugins.billing]`."""

import re
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from tollkeeper import Money, PluginSettings, Secret
from tollkeeper.amounts import NANO, nanousd
from tollkeeper.settings import Table

CENT = NANO // 100
"""Nano-USD in a US cent: what Stripe counts in."""
LEAST_CENTS = 50
"""Stripe takes no payment of less."""
STRIPE = "https://api.stripe.com"

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _secret_key(secret: Secret) -> Secret:
    if not re.fullmatch(r"(sk|rk)_(live|test)_\S+", secret.reveal()):
        raise ValueError("must be a secret key of Stripe: sk_live_..., rk_live_..., sk_test_...")
    return secret


def _webhook_secret(secret: Secret) -> Secret:
    if not re.fullmatch(r"whsec_\S+", secret.reveal()):
        raise ValueError("must be the signing secret of a webhook endpoint of Stripe: whsec_...")
    return secret


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("must be an address such as https://example.com/paid")
    return url


def _api_base(url: str) -> str:
    parts = urlsplit(_address(url))
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("must be https, but for a stand-in on this machine")
    return url.rstrip("/")


def _whole_cents(amount: Money) -> Money:
    if nanousd(amount) % CENT:
        raise ValueError("must be whole cents")
    return amount


def _price(amount: Money) -> Money:
    if _whole_cents(amount) * 100 < LEAST_CENTS:
        raise ValueError('must be at least "0.50", the least that Stripe takes')
    return amount


Address = Annotated[str, AfterValidator(_address)]


class PackSettings(Table):
    """Credit that is bought once."""

    price: Annotated[Money, AfterValidator(_price), Field(le=999_999)]
    """US dollars to pay, before taxes."""
    credit: Annotated[Money, Field(gt=0, le=1_000_000_000)]
    """US dollars that are added to the balance."""

    @property
    def cents(self) -> int:
        """The price in US cents."""
        return nanousd(self.price) // CENT


class PlanSettings(Table):
    """A subscription."""

    stripe_price: str = Field(min_length=1, max_length=200)
    """Id of the recurring price at Stripe, `price_...`."""
    former_prices: tuple[str, ...] = Field(default=(), strict=False)
    """Ids of recurring prices at Stripe that it had before, for those who still pay them."""
    rpm: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests per minute of all keys of an organization together; needs the plugin limits."""
    included: Annotated[Money, Field(le=1_000_000_000)] = Decimal(0)
    """US dollars of usage in each period that the plan's own price pays for."""
    meter: str = Field(default="", max_length=100)
    """Event name of a meter at Stripe that counts US cents of what is used beyond that and beyond
    the balance. Without one calls are refused then."""
    meter_price: str = Field(default="", max_length=200)
    """Id of the metered price at Stripe that bills the meter, sold together with the other; without
    one `stripe_price` itself is the metered one."""

    @property
    def is_metered(self) -> bool:
        """Whether `stripe_price` is the metered price itself."""
        return bool(self.meter and not self.meter_price)

    @property
    def prices(self) -> tuple[tuple[str, bool], ...]:
        """Its prices at Stripe, and of each whether it is sold by the piece, or metered."""
        if self.is_metered:
            return ((self.stripe_price, False),)
        more = ((self.meter_price, False),) if self.meter_price else ()
        return ((self.stripe_price, True), *more)


class BillingSettings(PluginSettings):
    """Selling access through Stripe."""

    secret_key: Annotated[Secret, AfterValidator(_secret_key)] = Field(
        examples=["${STRIPE_SECRET_KEY}"]
    )
    """Secret or restricted key of the Stripe account."""
    webhook_secret: Annotated[Secret, AfterValidator(_webhook_secret)] = Field(
        examples=["${STRIPE_WEBHOOK_SECRET}"]
    )
    """Signing secret of the webhook endpoint at Stripe, `whsec_...`."""
    api_base: Annotated[str, AfterValidator(_api_base)] = STRIPE
    """Where Stripe is; another address is a stand-in for tests."""
    success_url: Address = Field(examples=["https://example.com/paid"])
    """Where a customer's browser goes after paying."""
    cancel_url: Address = Field(examples=["https://example.com/prices"])
    """Where it goes when they change their mind."""
    packs: dict[str, PackSettings] = Field(
        default_factory=dict, examples=[{"small": {"price": "10.00", "credit": "10.00"}}]
    )
    """Credit that can be bought once, by name: its `price` before taxes and the `credit` that is
    added to the balance, both in US dollars."""
    plans: dict[str, PlanSettings] = Field(
        default_factory=dict,
        examples=[{"pro": {"stripe_price": "price_...", "rpm": 600, "included": "20.00"}}],
    )
    """Subscriptions that can be bought, by name: `stripe_price`, and as wanted `rpm`, `included`,
    `meter` and `meter_price`."""
    rpm: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests per minute of all keys of an organization that has no plan; needs the plugin
    limits."""
    exempt: tuple[str, ...] = Field(default=("default",), strict=False)
    """Ids of organizations that need no balance. `default` has the keys that were made on the
    command line without `--org`."""
    low_balance: Annotated[Money, Field(le=1_000_000_000)] = Decimal(0)
    """Balance in US dollars below which the log says so and the hook `notice` is called."""
    auto_topup: bool = False
    """Whether organizations may have a pack bought whenever their balance falls low; checkout keeps
    their card for that."""
    automatic_tax: bool = False
    """Have Stripe Tax compute taxes at checkout."""
    invoices: bool = False
    """Have Stripe write an invoice for each pack too."""

    @model_validator(mode="after")
    def _check_plans(self) -> "BillingSettings":
        of: dict[str, str] = {}
        for name, plan in self.plans.items():
            for price in (plan.stripe_price, *plan.former_prices):
                if price in of:
                    raise ValueError(f"the plans {of[price]} and {name} both have {price}")
                of[price] = name
        for name, plan in self.plans.items():
            if plan.meter_price in of:
                raise ValueError(
                    f"meter_price of the plan {name} is a price of {of[plan.meter_price]}"
                )
            if plan.meter_price and not plan.meter:
                raise ValueError(f"plan {name} has a meter_price and no meter that it bills")
        return self

    @model_validator(mode="after")
    def _check_mode(self) -> "BillingSettings":
        if self.livemode and urlsplit(self.api_base).hostname in _LOOPBACK:
            raise ValueError("a stand-in for Stripe on this machine takes no live secret_key")
        return self

    @property
    def has_rates(self) -> bool:
        """Whether organizations are kept to a rate."""
        rates = (self.rpm, *(plan.rpm for plan in self.plans.values()))
        return any(rate is not None for rate in rates)

    @property
    def livemode(self) -> bool:
        """Whether real money moves."""
        return self.secret_key.reveal()[3:7] == "live"
