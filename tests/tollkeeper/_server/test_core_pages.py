"""Health pages."""

from tollkeeper.testing import open_gateway


async def test_healthz_and_readyz_say_what_is() -> None:
    async with open_gateway() as gateway:
        assert (await gateway.get("/healthz")).json() == {"status": "ok"}
        assert (await gateway.get("/readyz")).status == 200
        gateway.generations.shared.health.draining = True
        draining = await gateway.get("/readyz")
        assert (draining.status, draining.json()) == (503, {"status": "draining"})
        assert (await gateway.get("/healthz")).status == 200
        gateway.generations.shared.health.draining = False
        gateway.generations.shared.database.close()
        lost = await gateway.get("/readyz")
        assert (lost.status, lost.json()) == (503, {"status": "database unusable"})


async def test_neither_needs_a_key() -> None:
    async with open_gateway(toml="[plugins.keys]\n") as gateway:
        assert (await gateway.get("/healthz")).status == 200
        assert (await gateway.get("/v1/models")).status == 401
