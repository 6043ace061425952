"""Who may use a management route, and writes that are done once."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from weakref import WeakValueDictionary

import trio

from tollkeeper import Clock, Database, Failed, Refused
from tollkeeper.errors import find_api_error
from tollkeeper.management import USER_POLICY, Caller, Done, Write
from tollkeeper_accounts import service, writes
from tollkeeper_accounts.tokens import Tokens

Turns = WeakValueDictionary[str, trio.Lock]
READ_ERRORS = ("not_found",)
"""What a request may be answered that names an organization, or needs one."""
WRITE_ERRORS = (*READ_ERRORS, "conflict")
"""The same for a write, whose idempotency key may be taken."""
WRITE_SECONDS = 30.0
"""How long a write may take once its client is gone."""


class Accounts:
    """The `Authorizer`: every request is judged by what the database says at that moment."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        tokens: Tokens,
        turns: "WeakValueDictionary[str, trio.Lock]",
    ) -> None:
        self._database, self._clock, self._tokens = database, clock, tokens
        self._turns = turns
        """Of each organization in which somebody writes: whose turn it is."""

    async def authorize(self, headers: Mapping[str, str], policy: frozenset[str]) -> Caller:
        """The user of an access token, in the organization that `x-org-id` names.

        Without that header it is the one that they made or joined last.
        """
        claims = self._tokens.read(bearer_of(headers), self._clock.time())
        if claims is None:
            raise unauthorized()
        org = headers.get("x-org-id")
        found = await self._database.read(service.find_standing, claims, org)
        if found is None:
            raise unauthorized()
        if org is not None and not found.org:
            raise Refused(404, "not_found", "You belong to no organization of this id.")
        if USER_POLICY not in policy:
            _check_role(found, policy)
        return Caller(claims.user, found.email, claims.id, found.org, found.role)

    async def write(self, write: Write, act: Callable[[], Awaitable[Done]]) -> Done:
        """Run a write once, to its end even where its client goes away."""
        deadline = trio.current_time() + WRITE_SECONDS
        with trio.CancelScope(shield=True, deadline=deadline):
            if write.path == writes.PASSWORD_PATH:
                write = replace(write, idempotency_key="")  # or a fast hash of it would be kept
            if write.idempotency_key:
                writes.check_key(write.idempotency_key)
            async with self._turn_of(write.caller):
                # What a caller was before may have been undone while this waited.
                if not await self._database.read(service.goes_on, write.caller):
                    raise unauthorized()
                if not await self._database.read(service.still_stands, write.caller):
                    raise Refused(403, "auth_error", "Your role in this organization has changed.")
                before, note = await self._database.write(writes.begin, write, self._now())
                return before if before is not None else await self._run(write, act, note)
        raise Failed(504, "timeout", "The gateway took too long to do this.")

    async def _run(self, write: Write, act: Callable[[], Awaitable[Done]], note: str) -> Done:
        try:
            done = await act()
        except BaseException as error:
            refused = find_api_error(error)
            answer = Done(refused.status, refused.body()) if refused else Done(500, b"")
            await self._settle(write, answer, note)
            raise
        await self._settle(write, done, note)
        return done

    async def _settle(self, write: Write, done: Done, note: str) -> None:
        with trio.CancelScope(shield=True):
            await self._database.write(writes.settle, write, done, note)

    def _turn_of(self, caller: Caller) -> trio.Lock:
        """Writes in an organization are made one by one, as are those of a user of none."""
        name = caller.org or caller.user
        turn = self._turns.get(name)
        if turn is None:
            turn = self._turns[name] = trio.Lock()
        return turn

    def _now(self) -> int:
        return int(self._clock.time())


def _check_role(found: service.Standing, policy: frozenset[str]) -> None:
    if not found.org:
        message = "You belong to no organization yet; make one with POST /api/v1/gateway/org."
        raise Refused(404, "not_found", message)
    if found.role not in policy:
        allowed = ", ".join(sorted(policy))
        message = f"You are {found.role} of this organization; this is for: {allowed}."
        raise Refused(403, "auth_error", message)


def bearer_of(headers: Mapping[str, str]) -> str:
    """The bearer token of a request; empty without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def unauthorized() -> Refused:
    """The refusal of a request without a valid access token, whatever is wrong with it."""
    message = "This needs a valid access token (no API key): log in, or refresh the session."
    return Refused(401, "auth_error", message, headers={"www-authenticate": "Bearer"})
