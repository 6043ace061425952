"""Which operation a request means, and when a generation is empty."""

from tollkeeper import Operation
from tollkeeper._server.chat import CHAT_DIALECT
from tollkeeper._server.generation import Generation
from tollkeeper.testing import open_gateway


async def test_operations_are_found_by_method_and_path() -> None:
    async with open_gateway() as gateway:
        generation = gateway.generations.current

        def found(method: str, path: str) -> tuple[str, str] | None:
            match = generation.find_operation(method, path)
            return (match[0].name, match[1]) if match else None

        assert found("POST", "/v1/chat/completions") == ("chat", "")
        assert found("GET", "/v1/models") == ("models", "")
        assert found("GET", "/v1/models/org/name") == ("model", "org/name")
        assert found("GET", "/v1/models/") is None
        assert found("POST", "/v1/models") is None
        assert generation.methods_of("/v1/models") == ["GET"]
        assert generation.methods_of("/nope") == []


async def test_a_superseded_generation_says_once_that_it_is_empty() -> None:
    async with open_gateway() as gateway:
        generation: Generation = gateway.generations.current
        told: list[int] = []
        generation.enter()
        generation.enter()
        generation.on_empty = lambda: told.append(generation.live)
        generation.leave()
        assert told == []
        generation.leave()
        assert told == [0]
        generation.on_empty = None


async def test_secrets_and_deployments_come_from_its_own_settings() -> None:
    toml = '[providers.p]\nkind = "scripted"\ncredential = "sk-1"\n[models.a]\ndeployments = ['
    toml += '{ provider = "p", model = "x", weight = 3 }, { provider = "scripted", model = "y" }]\n'
    async with open_gateway(toml=toml) as gateway:
        generation = gateway.generations.current
        assert generation.secret_of("p") == "sk-1"
        assert generation.secret_of("scripted") == generation.secret_of("none") == ""
        names = [
            (d.name, d.weight, d.alias) for d in generation.deployments_of("a", CHAT_DIALECT) or ()
        ]
        assert names == [("p/x", 3, "a"), ("scripted/y", 1, "a")]
        assert generation.deployments_of("none", CHAT_DIALECT) is None


def test_an_operation_is_plain_data() -> None:
    assert Operation("x", "GET", "/x") == Operation("x", "GET", "/x")
