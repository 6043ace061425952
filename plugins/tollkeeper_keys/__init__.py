"""Virtual keys: who is calling.

A client sends `Authorization: Bearer tk-...`; the key's SHA-256 is looked up in memory. The table
is read at start and whenever somebody announces a change of it.
"""

import trio

from tollkeeper import (
    Exchange,
    Gateway,
    KeyIssuer,
    NewKey,
    PluginSettings,
    Principal,
    hookimpl,
)
from tollkeeper_keys import service
from tollkeeper_keys.commands import TOPIC, keys_command


class Keys:
    """Guard: without a valid key nobody passes, whatever breaks in here."""

    Settings = PluginSettings
    policy = "guard"

    def __init__(self, settings: PluginSettings) -> None:
        """Has no settings of its own."""

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Offer the command, and the making of keys to other plugins."""
        self._database = gateway.database
        if not hasattr(self, "_ring"):
            self._ring = service.KeyRing(gateway.clock.monotonic)
            self._reloading = trio.Lock()
        gateway.add_command(keys_command(gateway.database))
        gateway.offer(KeyIssuer, self)  # type: ignore[type-abstract] # a Protocol names a service

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Load the keys, then apply announced changes for as long as the plugin lives."""
        await self._reload()
        with self._database.announcer.subscribed(TOPIC, self._reload):
            await self._reload()  # what changed between the first load and now
            task_status.started()
            await trio.sleep_forever()

    @hookimpl
    async def authenticate(self, exchange: Exchange) -> Principal | None:
        """The owner of the bearer key; None for what is no virtual key or not a valid one."""
        secret = secret_of(exchange)
        if not secret.startswith(service.PREFIX):
            return None
        hashed = service.hash_of(secret)
        principal = self._ring.get(hashed)
        if principal is None and self._ring.may_look_up(hashed):
            principal = await self._look_up(hashed)
        return principal

    async def _look_up(self, hashed: str) -> Principal | None:
        """The key from the table; one that changed while it was read is left to the reload."""
        version = self._ring.version
        principal = await self._database.read(service.find_principal, hashed)
        if version != self._ring.version:
            return self._ring.get(hashed)
        if principal is not None:
            self._ring.add(hashed, principal)
        return principal

    async def create_key(self, name: str, org: str, rpm: int | None = None) -> NewKey:
        """Make a key that is valid once this returns."""
        key = await self._database.write(service.create_key, name, org, rpm)
        await self._database.announcer.apply(TOPIC)
        await trio.to_thread.run_sync(self._database.announcer.tell_others, TOPIC)
        return key

    async def _reload(self) -> None:
        async with self._reloading:  # so that the last to read is the last to apply
            self._ring.replace(await self._database.read(service.load_principals))


def secret_of(exchange: Exchange) -> str:
    """What the caller presents: a bearer, or Anthropic's own header; empty without either."""
    headers = exchange.headers
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
