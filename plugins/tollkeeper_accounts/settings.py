"""`[plugins.accounts]`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tollkeeper import PluginSettings, Secret

SECRET_BYTES = 32
MAX_ACCESS_SECONDS = 86_400


def _long_enough(secret: Secret) -> Secret:
    if len(secret.reveal().encode()) < SECRET_BYTES:
        raise ValueError(f"must be at least {SECRET_BYTES} bytes long, such as a random text")
    return secret


SigningSecret = Annotated[Secret, AfterValidator(_long_enough)]
"""A secret that is long enough to sign with."""


class AccountsSettings(PluginSettings):
    """Users, organizations, and how they log in."""

    jwt_secret: SigningSecret = Field(examples=["${JWT_SECRET}"])
    """What access tokens are signed with: at least 32 random bytes, the same on every process."""
    jwt_previous_secrets: tuple[SigningSecret, ...] = Field(default=(), strict=False, max_length=8)
    """Earlier secrets whose access tokens are still taken."""
    registration: Literal["closed", "invite", "open"] = "closed"
    """Who may register: nobody, whoever was invited, or anybody."""
    access_seconds: int = Field(default=900, ge=1, le=MAX_ACCESS_SECONDS)
    """Seconds that an access token is valid."""
    refresh_seconds: int = Field(default=2_592_000, ge=60, le=31_536_000)
    """Seconds that a refresh token is valid."""
    invitation_seconds: int = Field(default=604_800, ge=60, le=31_536_000)
    """Seconds that an invitation is valid."""
    login_attempts: int = Field(default=10, ge=1, le=1000)
    """Failed logins in 15 minutes per e-mail and client address together; ten times as many from a
    client address, and logins of any kind for an e-mail address."""
    client_header: str = Field(default="", pattern="^[a-z0-9-]*$")
    """Header in which a proxy in front tells the client's address, as `"x-forwarded-for"`; its last
    one counts. Empty where clients connect directly."""
    max_rpm: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests per minute that a key may be given over HTTP at most; they win over the general
    limit."""
