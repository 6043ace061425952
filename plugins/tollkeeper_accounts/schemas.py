"""What the routes take and answer, as the API document shows it."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tollkeeper.management import LINE
from tollkeeper.settings import Table

_ADDRESS = r"^ *[!-?A-~]+@[!-?A-~]+ *$"

MAX_SECONDS = 253_402_300_799
"""The last second of the year 9999."""

Role = Literal["owner", "admin", "member", "billing"]
Email = Annotated[str, StringConstraints(min_length=3, max_length=254, pattern=_ADDRESS)]
NewPassword = Annotated[str, StringConstraints(min_length=10, max_length=200)]
Password = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Token = Annotated[str, StringConstraints(min_length=1, max_length=200)]
OrgName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=LINE)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=LINE)]
Rpm = Annotated[int, Field(ge=1, le=1_000_000)]
Models = Annotated[list[Name], Field(min_length=1, max_length=1000)]
Moment = Annotated[int, Field(ge=1, le=MAX_SECONDS)]


class Register(Table):
    """Who wants to be a user."""

    email: Email
    password: NewPassword
    invitation: Token | None = None
    """Needed unless anybody may register."""


class Registered(Table):
    """A new user."""

    id: str
    email: str


class Login(Table):
    """Who wants to log in."""

    email: Email
    password: Password


class Session(Table):
    """What the management endpoints want to see, and for how long."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 -- no password
    expires_in: int
    """Seconds that the access token is valid."""
    refresh_token: str
    """Good for one more session like this."""


class Refresh(Table):
    """A session to carry on."""

    refresh_token: Token


class Logout(Table):
    """What to end."""

    everywhere: bool = False
    """All sessions of the user, not only this one."""


class ChangePassword(Table):
    """A new password, by the old one."""

    current: Password
    new: NewPassword


class Ok(Table):
    """It is done."""

    status: Literal["ok"] = "ok"


class Accept(Table):
    """An invitation to accept."""

    invitation: Token


class MyOrg(Table):
    """An organization that the user belongs to."""

    id: str
    name: str
    role: Role


class Me(Table):
    """The user who asks."""

    id: str
    email: str
    created_at: int
    orgs: list[MyOrg]
    """The one made or joined last is first."""


class NewOrg(Table):
    """An organization to be."""

    name: OrgName


class Org(Table):
    """An organization, and what the caller is in it."""

    id: str
    name: str
    role: Role
    created_at: int


class Member(Table):
    """A user in the organization."""

    id: str
    email: str
    role: Role


class ChangeMember(Table):
    """What a member is to be."""

    role: Role


class Invite(Table):
    """Whom to invite, as what."""

    email: Email
    role: Role


class Invitation(Table):
    """An invitation that is still open."""

    id: str
    email: str
    role: Role
    expires_at: int
    created_at: int


class NewInvitation(Table):
    """An invitation just made."""

    id: str
    email: str
    role: Role
    token: str | None
    """Shown this once; null where the answer is given again."""
    expires_at: int


class AuditQuery(Table):
    """Which part of the log."""

    limit: int = Field(default=100, ge=1, le=1000)
    before: str | None = Field(default=None, max_length=100)
    """Only what is older than the entry of this id."""


class AuditEntry(Table):
    """Something that was changed."""

    id: str
    at: int
    """Unix seconds."""
    user: str
    email: str
    action: str
    target: str
    """Id of what was changed; empty where it has none."""


class NewKey(Table):
    """A key to be."""

    name: Name
    rpm: Rpm | None = None
    models: Models | None = None
    """All models without it."""
    expires_at: Moment | None = None
    """Unix seconds, in the future."""


class ChangeKey(Table):
    """What to change of a key: fields that are absent stay as they are, null clears."""

    name: Name = Field(default_factory=str)
    rpm: Rpm | None = None
    models: Models | None = None
    expires_at: Moment | None = None
    """Unix seconds, in the future."""


class RotateKey(Table):
    """How to change from the old secret to the new."""

    grace_seconds: int = Field(default=0, ge=0, le=604_800)
    """Seconds that the old one is valid on."""


class Key(Table):
    """A virtual key, without its secret."""

    id: str
    prefix: str
    name: str
    rpm: int | None
    models: list[str] | None
    created_at: int
    last_used_at: int | None
    expires_at: int | None


class RotatedKey(Key):
    """A virtual key with its new secret."""

    key: str | None
    """Shown this once; null where the answer is given again."""


class CreatedKey(Table):
    """A virtual key just made."""

    id: str
    key: str | None
    """Shown this once; null where the answer is given again."""
    prefix: str
    name: str
    org: str
    rpm: int | None
    created_at: int
    models: list[str] | None
    expires_at: int | None


class Provider(Table):
    """A place that requests are sent to."""

    id: str
    kind: str
    models: list[str]
    """Names that clients ask for."""
    healthy: bool | None
    """Null where nobody has looked."""
