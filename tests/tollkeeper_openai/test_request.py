"""Services and their quirks: where they are, what is asked of them, what they cannot do."""

import pytest

from tollkeeper.exchange import Deployment, Operation
from tollkeeper.settings import ProviderSettings
from tollkeeper_openai.request import (
    AZURE_VERSION,
    COMMON,
    EVERYTHING,
    PRESETS,
    Preset,
    asks_for,
    path_of,
)

CHAT = Operation("chat", "POST", "/v1/chat/completions")


def path(preset: str, model: str = "m", operation: Operation = CHAT, version: str = "") -> str:
    settings = ProviderSettings(kind="openai", api_version=version)
    return path_of(operation, PRESETS[preset], Deployment("a", "p", "openai", model), settings)


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"azure-deployments"}))
def test_the_path_is_that_of_the_operation_below_the_base_url(preset: str) -> None:
    assert path(preset, version="2026-01-01") == "/chat/completions"
    speech = Operation("speech", "POST", "/v1/audio/speech")
    assert path(preset, operation=speech) == "/audio/speech"


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("gpt-4o", "gpt-4o"),
        ("my gpt", "my%20gpt"),
        ("a/b", "a%2Fb"),
        ("a?b#c%2F", "a%3Fb%23c%252F"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("a\r\nb", "a%0D%0Ab"),
    ],
)
def test_on_azures_older_interface_the_deployment_stands_in_the_path(
    model: str, shown: str
) -> None:
    below = f"/openai/deployments/{shown}"
    assert path("azure-deployments", model) == (
        f"{below}/chat/completions?api-version={AZURE_VERSION}"
    )
    images = Operation("images", "POST", "/v1/images/generations")
    assert path("azure-deployments", model, images, "2025-04-01-preview&x") == (
        f"{below}/images/generations?api-version=2025-04-01-preview%26x"
    )


@pytest.mark.parametrize(
    ("param", "value", "asks"),
    [
        ("n", 1, False),
        ("n", 2, True),
        ("n", "1", True),
        ("best_of", 1, False),
        ("echo", False, False),
        ("echo", True, True),
        ("logprobs", False, False),
        ("logprobs", True, True),
        ("logprobs", 3, True),
        ("top_logprobs", 0, False),
        ("top_logprobs", 2, True),
        ("logit_bias", {}, False),
        ("logit_bias", {"1": 2}, True),
        ("tool_choice", "auto", False),
        ("tool_choice", "none", True),
        ("tool_choice", {"type": "function"}, True),
        ("tool_choice", ["auto"], True),
        ("top_k", None, False),
        ("top_k", 0, True),
    ],
)
def test_a_value_that_asks_for_nothing_is_honoured_by_saying_nothing(
    param: str, value: object, asks: bool
) -> None:
    assert asks_for(param, value) is asks


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_responses_go_as_they_are_only_to_openai_and_azures_newer_interface(name: str) -> None:
    native = {"openai", "azure"}
    assert PRESETS[name].dialects == (EVERYTHING if name in native else COMMON)


@pytest.mark.parametrize(("name", "preset"), sorted(PRESETS.items()))
def test_an_address_is_one_that_settings_take(name: str, preset: Preset) -> None:
    ProviderSettings(kind="openai", base_url=preset.base_url)
    assert not preset.base_url.endswith("/"), name


def test_azure_takes_its_key_in_a_header_of_its_own() -> None:
    headers = {name: preset.key_header for name, preset in PRESETS.items()}
    assert {name for name, header in headers.items() if header == "api-key"} == {
        "azure",
        "azure-deployments",
    }
