"""Users, how they log in, the organizations they belong to, and what they may manage there.

Access tokens are JWTs; every request is judged by what the database says at that moment.
"""

import logging

import trio

from tollkeeper import Gateway, hookimpl
from tollkeeper.management import Authorizer
from tollkeeper_accounts import authorizer, invitations, service, writes
from tollkeeper_accounts.attempts import Attempts
from tollkeeper_accounts.commands import users_command
from tollkeeper_accounts.models import DatabaseError
from tollkeeper_accounts.routes import OrgRoutes
from tollkeeper_accounts.routes_auth import AuthRoutes, Lasting
from tollkeeper_accounts.routes_keys import KeyRoutes
from tollkeeper_accounts.settings import AccountsSettings
from tollkeeper_accounts.tokens import Tokens

log = logging.getLogger("tollkeeper")

SWEEP_SECONDS = 3600
"""How often what is out of date is deleted."""


class Accounts:
    """Guard: whatever breaks in here, nobody manages anything."""

    Settings = AccountsSettings
    policy = "guard"

    def __init__(self, settings: AccountsSettings) -> None:
        self._settings = settings
        self._tokens = Tokens(settings.jwt_secret, settings.jwt_previous_secrets)

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the judging of callers, the routes and the command."""
        self._database, self._clock = gateway.database, gateway.clock
        self._lasting = gateway.keep(lambda: Lasting(Attempts(gateway.clock.monotonic)))
        judge = authorizer.Accounts(
            gateway.database, gateway.clock, self._tokens, self._lasting.turns
        )
        gateway.offer(Authorizer, judge)  # type: ignore[type-abstract] # a Protocol names a service
        AuthRoutes(self._settings, self._tokens).register(gateway, self._lasting)
        OrgRoutes(self._settings).register(gateway)
        KeyRoutes(self._settings).register(gateway)
        gateway.add_command(users_command(gateway.database))

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Tell how to register the first user, then delete what is out of date, now and then."""
        await self._invite_first_user()
        task_status.started()
        while True:
            await self._sweep()
            await trio.sleep(SWEEP_SECONDS)

    async def _invite_first_user(self) -> None:
        if self._settings.registration == "open":
            return
        if await self._database.read(service.has_users):
            return
        if (token := self._lasting.first.make()) is not None:
            message = "No user exists yet. Register the first one with this invitation: %s"
            log.warning(message, token)

    async def _sweep(self) -> None:
        now = int(self._clock.time())
        for delete in (service.delete_expired, invitations.delete_expired, writes.delete_expired):
            try:
                await self._database.write(delete, now)
            except DatabaseError:
                log.exception("the database does not delete what is out of date; it will later")
