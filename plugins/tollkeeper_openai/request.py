"""Services that speak OpenAI's interface, each with the quirks that its preset cures."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from tollkeeper import Deployment, Operation, ProviderSettings
from tollkeeper_openai.service import (
    for_mistral,
    with_max_tokens,
    without_idle_stream_options,
)

COMMON = frozenset(
    {"chat", "completions", "embeddings", "moderations", "images", "audio", "rerank"}
)
EVERYTHING = COMMON | {"responses"}

Cure = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Preset:
    """What is different about one service."""

    base_url: str = ""
    """Used where the TOML names none."""
    dialects: frozenset[str] = COMMON
    """What it takes as it is; Responses are turned into chat elsewhere."""
    key_header: str = "authorization"
    """Which header carries the credential; `authorization` as a bearer."""
    deployment_paths: bool = False
    """Whether the model stands in the path, and the version of the interface behind it."""
    cures: tuple[Cure, ...] = ()
    """What is done to requests for chats and completions, in order."""
    cannot: tuple[str, ...] = ()
    """Parameters of these that the service would ignore without a word."""
    tidies: bool = False
    """Whether replies are put in order: roles repeated, indexes or names missing."""
    newer_bound: bool = False
    """Whether `max_completion_tokens` is the name by which it surely knows a bound."""
    keeps: frozenset[str] = frozenset()
    """Fields beyond OpenAI's that the service takes in messages of translated requests."""


_NOT_OLLAMAS = ("n", "logprobs", "top_logprobs", "logit_bias", "tool_choice", "top_k")

PRESETS: dict[str, Preset] = {
    "": Preset(),
    "openai": Preset("https://api.openai.com/v1", EVERYTHING, newer_bound=True),
    "azure": Preset(dialects=EVERYTHING, key_header="api-key", newer_bound=True),
    "azure-deployments": Preset(key_header="api-key", deployment_paths=True, newer_bound=True),
    "bedrock": Preset(),
    "deepseek": Preset("https://api.deepseek.com/v1", keeps=frozenset({"reasoning_content"})),
    "fireworks": Preset("https://api.fireworks.ai/inference/v1"),
    "gemini": Preset(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        keeps=frozenset({"extra_content"}),
    ),
    "groq": Preset("https://api.groq.com/openai/v1"),
    "llama.cpp": Preset(cures=(with_max_tokens,), tidies=True),
    "mistral": Preset("https://api.mistral.ai/v1", cures=(with_max_tokens, for_mistral)),
    "ollama": Preset(
        "http://127.0.0.1:11434/v1",
        cures=(with_max_tokens,),
        cannot=(*_NOT_OLLAMAS, "best_of", "echo"),
        tidies=True,
    ),
    "openrouter": Preset("https://openrouter.ai/api/v1", keeps=frozenset({"cache_control"})),
    "together": Preset("https://api.together.xyz/v1"),
    "vllm": Preset(cures=(without_idle_stream_options,), tidies=True),
    "xai": Preset("https://api.x.ai/v1"),
}
AZURE_VERSION = "2024-10-21"
_DEFAULTS: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tool_choice": ("auto",),
}
"""Values that ask for nothing beyond what happens anyway."""


def asks_for(param: str, value: object) -> bool:
    """Whether a parameter's value changes the answer."""
    return value is not None and value != {} and value not in _DEFAULTS.get(param, ())


def path_of(
    operation: Operation, preset: Preset, deployment: Deployment, settings: ProviderSettings
) -> str:
    """The path below `base_url`; on Azure's older interface the deployment stands in it."""
    path = operation.path.removeprefix("/v1")
    if not preset.deployment_paths:
        return path
    version = quote(settings.api_version or AZURE_VERSION, safe="")
    return f"/openai/deployments/{quote(deployment.model, safe='')}{path}?api-version={version}"
