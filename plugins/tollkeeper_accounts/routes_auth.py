"""`/api/v1/auth`: users and their sessions."""

from dataclasses import dataclass, field

from tollkeeper import Database, Gateway, Refused
from tollkeeper.management import USER_POLICY, Caller
from tollkeeper_accounts import invitations, orgs, schemas, service
from tollkeeper_accounts.attempts import Attempts, network_of
from tollkeeper_accounts.authorizer import READ_ERRORS, WRITE_ERRORS, Turns, unauthorized
from tollkeeper_accounts.invitations import Admission, FirstUser
from tollkeeper_accounts.passwords import Passwords
from tollkeeper_accounts.settings import AccountsSettings
from tollkeeper_accounts.tokens import Tokens

PREFIX = "/api/v1/auth"
MANY_REFRESHES = 300
"""From one client address in 15 minutes."""
ADDRESS_FACTOR = 10
"""How many more attempts a client address has than an e-mail address: it may be many people's."""


@dataclass(slots=True)
class Lasting:
    """What stays while the settings change."""

    attempts: Attempts
    first: FirstUser = field(default_factory=FirstUser)
    passwords: Passwords = field(default_factory=Passwords)
    turns: Turns = field(default_factory=Turns)


class AuthRoutes:
    """The handlers."""

    def __init__(self, settings: AccountsSettings, tokens: Tokens) -> None:
        self._settings, self._tokens = settings, tokens
        self._lifetimes = service.Lifetimes(settings.access_seconds, settings.refresh_seconds)

    def register(self, gateway: Gateway, lasting: Lasting) -> None:
        """Add the routes."""
        self._database: Database = gateway.database
        self._clock, self._lasting = gateway.clock, lasting
        gateway.add_route(
            f"{PREFIX}/register",
            self.add_user,
            policy="open",
            methods=("POST",),
            body=schemas.Register,
            reply=schemas.Registered,
            errors=("auth_error", "conflict", "rate_limit"),
            summary="Become a user.",
        )
        gateway.add_route(
            f"{PREFIX}/login",
            self.login,
            policy="open",
            methods=("POST",),
            body=schemas.Login,
            reply=schemas.Session,
            errors=("auth_error", "rate_limit"),
            summary="Log in: an access token for the management endpoints.",
        )
        gateway.add_route(
            f"{PREFIX}/refresh",
            self.refresh,
            policy="open",
            methods=("POST",),
            body=schemas.Refresh,
            reply=schemas.Session,
            errors=("auth_error", "rate_limit"),
            summary="A new access token for a refresh token, which is good for one use.",
        )
        self._register_own(gateway)

    def _register_own(self, gateway: Gateway) -> None:
        """What is for whoever is logged in."""
        gateway.add_route(
            f"{PREFIX}/logout",
            self.logout,
            policy=USER_POLICY,
            methods=("POST",),
            body=schemas.Logout,
            reply=schemas.Ok,
            errors=WRITE_ERRORS,
            summary="End this session, or all of the user's.",
        )
        gateway.add_route(
            f"{PREFIX}/password",
            self.change_password,
            policy=USER_POLICY,
            methods=("POST",),
            body=schemas.ChangePassword,
            reply=schemas.Ok,
            errors=(*WRITE_ERRORS, "rate_limit"),
            summary="Change the password; ends all sessions.",
        )
        gateway.add_route(
            f"{PREFIX}/me",
            self.me,
            policy=USER_POLICY,
            reply=schemas.Me,
            errors=READ_ERRORS,
            summary="The user who asks, and their organizations.",
        )
        gateway.add_route(
            f"{PREFIX}/accept",
            self.accept,
            policy=USER_POLICY,
            methods=("POST",),
            body=schemas.Accept,
            reply=schemas.Org,
            errors=WRITE_ERRORS,
            summary="Accept an invitation.",
        )

    async def add_user(self, body: schemas.Register) -> schemas.Registered:
        """Register somebody who may."""
        email, admission = service.normal_email(body.email), self._admission(body.invitation)
        if not admission.is_first:
            limit = self._settings.login_attempts * ADDRESS_FACTOR
            self._take({f"register {self._client()}": limit})
        await self._database.read(invitations.may_register, email, admission, self._now())
        password = await self._lasting.passwords.hash(body.password)
        account = await self._database.write(
            invitations.register, email, password, admission, self._now()
        )
        return schemas.Registered(id=account.id, email=account.email)

    def _admission(self, invitation: str | None) -> Admission:
        mode = self._settings.registration
        if invitation is None:
            if mode == "open":
                return Admission()
        elif mode != "open" and self._lasting.first.is_it(invitation):
            return Admission(is_first=True)
        elif mode != "closed":
            return Admission(invitation=invitation)
        raise invitations.not_admitted()

    async def login(self, body: schemas.Login) -> schemas.Session:
        """Begin a session."""
        email, limit = service.normal_email(body.email), self._settings.login_attempts
        client, many = self._client(), limit * ADDRESS_FACTOR
        names = {f"login {client} {email}": limit, f"login {client}": many}
        self._take({**names, f"login {email}": many})
        account = await self._database.read(service.find_user, email)
        hashed = account.password if account else None
        verdict = await self._lasting.passwords.verify(hashed, body.password)
        if account is None or not verdict.is_right:
            raise _wrong_login()
        opened = await self._database.write(
            service.open_session, account, self._lifetimes, self._now()
        )
        if opened is None:
            raise _wrong_login()
        self._lasting.attempts.give_back(names)
        if verdict.rehashed is not None:
            await self._database.write(service.rehash, account, verdict.rehashed)
        return self._session(opened)

    async def refresh(self, body: schemas.Refresh) -> schemas.Session:
        """Carry a session on."""
        self._take({f"refresh {self._client()}": MANY_REFRESHES})
        opened = await self._database.write(
            service.refresh_session, body.refresh_token, self._lifetimes, self._now()
        )
        if opened is None:
            raise Refused(401, "auth_error", "This refresh token is not valid; log in again.")
        return self._session(opened)

    async def logout(self, caller: Caller, body: schemas.Logout) -> schemas.Ok:
        """End one session or all."""
        if body.everywhere:
            await self._database.write(service.log_out, caller.user)
        else:
            await self._database.write(service.end_session, service.session_of(caller.token))
        return schemas.Ok()

    async def change_password(self, caller: Caller, body: schemas.ChangePassword) -> schemas.Ok:
        """Take another password, and end all sessions."""
        names = {f"password {caller.user}": self._settings.login_attempts}
        self._take(names)
        account = await self._database.read(service.get_user, caller.user)
        if account is None:
            raise unauthorized()
        verdict = await self._lasting.passwords.verify(account.password, body.current)
        if not verdict.is_right:
            raise _wrong_password()
        new = await self._lasting.passwords.hash(body.new)
        if not await self._database.write(service.set_password, caller.user, account.password, new):
            raise _wrong_password()
        self._lasting.attempts.give_back(names)
        return schemas.Ok()

    async def me(self, caller: Caller) -> schemas.Me:
        """The caller."""
        account, found = await self._database.read(orgs.read_me, caller.user)
        mine = [schemas.MyOrg.model_validate(org, from_attributes=True) for org in found]
        return schemas.Me(
            id=account.id, email=account.email, created_at=account.created_at, orgs=mine
        )

    async def accept(self, caller: Caller, body: schemas.Accept) -> schemas.Org:
        """Join an organization."""
        joined = await self._database.write(
            invitations.accept, caller.user, caller.email, body.invitation, self._now()
        )
        return schemas.Org.model_validate(joined, from_attributes=True)

    def _session(self, opened: service.Opened) -> schemas.Session:
        seconds = self._settings.access_seconds
        access = self._tokens.issue(
            opened.user, opened.session, opened.epoch, now=self._now(), seconds=seconds
        )
        return schemas.Session(
            access_token=access, expires_in=seconds, refresh_token=opened.refresh_token
        )

    def _take(self, names: dict[str, int]) -> None:
        """Count an attempt, or raise `Refused` that says when to come again."""
        if wait := self._lasting.attempts.take(names):
            message = f"Too many attempts; try again in {wait} seconds."
            raise Refused(429, "rate_limit", message, headers={"retry-after": str(wait)})

    def _client(self) -> str:
        """The network that a request comes from, as the listener or the proxy sees it."""
        from quart import request

        header = self._settings.client_header
        lines = request.headers.getlist(header) if header else []
        told = lines[-1].rpartition(",")[2].strip() if lines else ""
        return network_of(told or request.remote_addr or "")

    def _now(self) -> int:
        return int(self._clock.time())


def _wrong_login() -> Refused:
    return Refused(401, "auth_error", "The e-mail address or the password is wrong.")


def _wrong_password() -> Refused:
    return Refused(403, "auth_error", "The current password is wrong.")
