"""The pages of the core: whether the process lives, and whether it can serve."""

from typing import Any

from tollkeeper.gateway import Gateway


class Health:
    """`/healthz` and `/readyz`. Neither ever calls a provider."""

    def __init__(self) -> None:
        self.draining = False

    def register(self, gateway: Gateway) -> None:
        """Add the two routes."""
        self._database = gateway.database
        gateway.add_route("/healthz", self.healthz, policy="open", summary="The process lives.")
        gateway.add_route("/readyz", self.readyz, policy="open", summary="It can serve.")

    async def healthz(self) -> dict[str, Any]:
        """200 while the process answers at all."""
        return {"status": "ok"}

    async def readyz(self) -> tuple[dict[str, Any], int]:
        """200 while new requests can be served, 503 while draining or without the database."""
        if self.draining:
            return {"status": "draining"}, 503
        if not await self._database.is_usable():
            return {"status": "database unusable"}, 503
        return {"status": "ok"}, 200
