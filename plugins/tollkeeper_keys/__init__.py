"""Virtual keys: who is calling, and what they may ask for.

A client sends `Authorization: Bearer tk-...`; the key's SHA-256 is looked up in memory. The table
is read at start and whenever somebody announces a change of it.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import msgspec
import trio

from tollkeeper import (
    Exchange,
    Failed,
    Gateway,
    KeyIssuer,
    NewKey,
    PluginSettings,
    Principal,
    Refused,
    hookimpl,
    invalid_request,
)
from tollkeeper.management import TERMS, KeyStore, KeyTerms, ManagedKey
from tollkeeper_keys import service
from tollkeeper_keys.commands import keys_command

log = logging.getLogger("tollkeeper")

NOTE_SECONDS = 60.0
"""How often the last uses are stored."""
STOP_SECONDS = 5.0
"""How long storing them may hold up the stop."""

ResultT = TypeVar("ResultT")

UNCONFIRMED = (
    "The change is stored, but another gateway process did not confirm it and may act by the old"
    " terms until it is restarted."
)


class Keys:
    """Guard: without a valid key nobody passes, whatever breaks in here."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the command, and the keys to other plugins."""
        self._database, self._clock = gateway.database, gateway.clock
        if not hasattr(self, "_ring"):
            self._ring = service.KeyRing(gateway.clock)
            self._store = Store(gateway, self._ring)
        gateway.add_command(keys_command(gateway.database))
        gateway.offer(KeyIssuer, self._store)  # type: ignore[type-abstract] # a Protocol names a service
        gateway.offer(KeyStore, self._store)  # type: ignore[type-abstract] # the same

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Load the keys, then apply announced changes for as long as the plugin lives."""
        await self._store.reload()
        with self._database.announcer.subscribed(service.TOPIC, self._store.reload):
            await self._store.reload()  # what changed between the first load and now
            task_status.started()
            try:
                while True:
                    await trio.sleep(NOTE_SECONDS)
                    await self._store.note_uses()
            finally:
                with trio.move_on_after(STOP_SECONDS, shield=True):
                    await self._store.note_uses()

    @hookimpl
    async def authenticate(self, exchange: Exchange) -> Principal | None:
        """The owner of the bearer key; None for what is no virtual key or not a valid one."""
        secret = secret_of(exchange)
        if not secret.startswith(service.PREFIX):
            return None
        hashed = service.hash_of(secret)
        principal = self._ring.use(hashed, exchange.arrived)
        if principal is None and self._ring.may_look_up(hashed):
            await self._look_up(hashed)
            principal = self._ring.use(hashed, exchange.arrived)
        return principal

    @hookimpl
    async def admit(self, exchange: Exchange) -> None:
        """Refuse a model that the key may not ask for, whether or not there is one."""
        allowed = exchange.principal.models
        if allowed is not None and exchange.model and exchange.model not in allowed:
            message = f"This key may not use the model '{exchange.model}'."
            raise Refused(403, "auth_error", message, param="model")

    async def _look_up(self, hashed: str) -> None:
        """Learn a key from the table; one that changed while it was read is left to the reload."""
        version = self._ring.version
        holder = await self._database.read(service.find_holder, hashed, self._clock.time())
        if holder is not None and version == self._ring.version:
            self._ring.add(hashed, holder)


class Store:
    """The keys as other plugins manage them: `KeyIssuer` and `KeyStore`.

    Each change is in force, and was told to the other processes, once its method returns. A client
    that leaves does not keep it from getting there. Terms that cannot be are `Refused` with 400.
    """

    def __init__(self, gateway: Gateway, ring: service.KeyRing) -> None:
        self._database, self._clock = gateway.database, gateway.clock
        self._ring = ring
        self._reloading = trio.Lock()
        self._unconfirmed = False
        """Whether another process did not confirm the last change."""

    async def create_key(self, name: str, org: str, rpm: int | None = None) -> NewKey:
        """Make a key in the organization of this id or name, which is made if it is new."""
        terms = self._checked(KeyTerms(name=name, rpm=rpm))
        return await self._change(service.issue_key, org, terms)

    async def keys_of(self, org: str) -> Sequence[ManagedKey]:
        """All keys that are neither revoked nor expired, oldest first."""
        keys = await self._database.read(service.keys_of, org, self._clock.time())
        return [self._with_use(key) for key in keys]

    async def add_key(self, org: str, terms: KeyTerms) -> tuple[ManagedKey, str]:
        """A new key of the organization of this id, and its secret."""
        new = await self._change(service.create_key, org, self._checked(terms))
        key = ManagedKey(
            id=new.id,
            prefix=new.prefix,
            name=new.name,
            rpm=new.rpm,
            models=new.models,
            created_at=new.created_at,
            last_used_at=None,
            expires_at=new.expires_at,
        )
        return key, new.key

    async def change_key(
        self, org: str, key: str, terms: KeyTerms, fields: Collection[str] = TERMS
    ) -> ManagedKey | None:
        """The key under new terms, as far as `fields` name them; None without such a valid key."""
        columns = service.columns_of(self._checked(terms))
        named = {name: value for name, value in columns.items() if name in fields}
        changed = await self._end(service.change_key, org, key, named)
        return changed and self._with_use(changed)

    async def rotate_key(
        self, org: str, key: str, grace_seconds: int
    ) -> tuple[ManagedKey, str] | None:
        """A new secret; the old one stays valid for the grace, one that it had replaced does not.

        None where the organization has no valid key of this id.
        """
        if not 0 <= grace_seconds <= service.MAX_GRACE:
            message = f"The grace is 0 to {service.MAX_GRACE} seconds."
            raise invalid_request(message, param="grace_seconds")
        rotated = await self._change(service.rotate_key, org, key, grace_seconds)
        return rotated and (self._with_use(rotated[0]), rotated[1])

    async def revoke_key(self, org: str, key: str) -> ManagedKey | None:
        """End a key for good, by all its secrets; None where there is none that was not ended."""
        revoked = await self._end(service.revoke_key, org, key)
        return revoked and self._with_use(revoked)

    async def reload(self) -> None:
        """Take over what the table holds now."""
        async with self._reloading:  # so that the last to read is the last to apply
            now = self._clock.time()
            self._ring.replace(await self._database.read(service.load_holders, now))

    async def note_uses(self) -> None:
        """Store when keys were used last. What fails is logged, and stored with the next."""
        if not (uses := self._ring.take_uses()):
            return
        try:
            await self._database.write(service.note_uses, uses)
        except Exception:
            self._ring.take_back_uses()
            log.exception("when keys were used last could not be stored")

    def _checked(self, terms: KeyTerms) -> KeyTerms:
        if (wrong := service.wrong_with(terms, self._clock.time())) is not None:
            raise invalid_request(wrong[1], param=wrong[0])
        return terms

    async def _end(self, work: Callable[..., ResultT], *args: object) -> ResultT:
        """The same, for what must not go on anywhere: raises `Failed` where it may."""
        result = await self._change(work, *args)
        if result is not None and self._unconfirmed:
            raise Failed(503, "server_error", UNCONFIRMED)
        return result

    async def _change(self, work: Callable[..., ResultT], *args: object) -> ResultT:
        """Do work that gets the time last, and have it applied everywhere if it came to anything.

        Shielded: what is in the table must not wait for the next change to be in force.
        """
        announcer = self._database.announcer
        with trio.CancelScope(shield=True):
            result = await self._database.write(work, *args, self._clock.time())
            if result is not None:
                await announcer.apply(service.TOPIC)
                silent = await trio.to_thread.run_sync(announcer.tell_others, service.TOPIC)
                for socket in silent:
                    log.warning("the gateway behind %s did not confirm a change of keys", socket)
                self._unconfirmed = bool(silent)
        return result

    def _with_use(self, key: ManagedKey) -> ManagedKey:
        noted = self._ring.last_use(key.id)
        if noted is None or noted <= (key.last_used_at or 0):
            return key
        return msgspec.structs.replace(key, last_used_at=max(noted, key.created_at))


def secret_of(exchange: Exchange) -> str:
    """What the caller presents: a bearer, or Anthropic's own header; empty without either."""
    headers = exchange.headers
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
