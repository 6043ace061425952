"""`[plugins.metering]`."""

from decimal import Decimal
from typing import Literal

from pydantic import Field

from tollkeeper import Money, PluginSettings, Seconds, Size


class MeteringSettings(PluginSettings):
    """What calls cost, and how surely it is written down."""

    markup: Money = Decimal(0)
    """Share that is added to the cost of a call to make its charge: `"0.20"` for 20 %."""
    unknown_price: Literal["refuse", "zero"] | None = None
    """A model without a known price: refuse its calls, or count them as free. Refused while a
    budget covers the call, free while none does."""
    sync_holds: bool = False
    """Whether a hold survives a power cut too: every call then waits for the disk."""
    sync_interval: Seconds = 0.1
    """Seconds after which a settlement survives a power cut, at most."""
    ballast: Size = 8 * 1024**2
    """Size of a file that is given up when the disk is full, so that running calls can settle."""
    hold_timeout: Seconds = 5.0
    """Seconds that a call waits for its hold to be written before it is refused."""
    media_tokens: int = Field(default=5000, ge=0, le=1_000_000)
    """Input tokens that an image, a recording or a file in a request is held to cost at least."""
