"""The cells of the matrix, what each promises, and the table that the reference shows of them."""

from collections.abc import Iterator
from dataclasses import dataclass

DIALECTS = {"chat": "Chat", "responses": "Responses", "messages": "Messages"}
"""What clients speak."""
PROVIDERS = {"openai": "OpenAI", "anthropic": "Anthropic", "gemini": "Gemini"}
"""What providers speak, each in its own way."""
NATIVE = {("chat", "openai"), ("responses", "openai"), ("messages", "anthropic")}
"""Pairs that speak the same dialect: bytes pass through."""

FEATURES = {
    "text": "text, system text, sampling",
    "tools": "a tool that must be called",
    "parallel tools": "several tools at once, and their results",
    "image inline": "an image in the request",
    "image by address": "an image by its address",
    "structured output": "output by a JSON Schema",
    "reasoning": "reasoning, and thoughts sent back",
    "stop": "stop sequences",
    "length": "a bound of the output",
    "refusal": "a refusal of the model",
    "usage": "usage with cached and reasoning tokens",
    "logprobs": "log probabilities",
    "choices": "several choices",
}

LOSSLESS, TRANSLATED, REFUSED, ABSENT = "lossless", "translated", "refused", "-"

MISSING = {
    ("responses", "stop"): "stop",
    ("responses", "choices"): "n",
    ("messages", "logprobs"): "logprobs",
    ("messages", "choices"): "n",
}
"""What a dialect has no parameter for, with the one that a client may try all the same."""

CANNOT = {
    ("anthropic", "logprobs"): "logprobs",
    ("anthropic", "choices"): "n",
}
"""What a provider cannot do, with the parameter that is refused. Nothing else may be refused."""

OWN_NAMES = {("responses", "logprobs"): "top_logprobs"}
"""What a dialect calls a parameter of chat."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing that a client asks, in its dialect, of a provider that speaks its own."""

    dialect: str
    provider: str
    streamed: bool
    feature: str

    def __str__(self) -> str:
        how = "stream" if self.streamed else "plain"
        return f"{self.dialect}-{self.provider}-{how}-{self.feature.replace(' ', '-')}"

    @property
    def native(self) -> bool:
        """Whether both sides speak the same."""
        return (self.dialect, self.provider) in NATIVE

    @property
    def refused(self) -> str:
        """The parameter that is refused, if one is, by the client's name for it."""
        if self.native:
            return ""
        param = MISSING.get((self.dialect, self.feature), "")
        param = param or CANNOT.get((self.provider, self.feature), "")
        return OWN_NAMES.get((self.dialect, param), param)

    @property
    def state(self) -> str:
        """What the reference says of it."""
        if (self.dialect, self.feature) in MISSING:
            return ABSENT
        if self.native:
            return LOSSLESS
        return REFUSED if self.refused else TRANSLATED


def cells() -> Iterator[Cell]:
    """All of them."""
    for dialect in DIALECTS:
        for provider in PROVIDERS:
            for streamed in (False, True):
                for feature in FEATURES:
                    yield Cell(dialect, provider, streamed, feature)


def pairs() -> list[tuple[str, str]]:
    """Each dialect of clients with each provider."""
    return [(dialect, provider) for dialect in DIALECTS for provider in PROVIDERS]


def table() -> str:
    """One row a feature, one column a pair; plain and streamed together where they are equal."""
    names = [f"{DIALECTS[dialect]} → {PROVIDERS[provider]}" for dialect, provider in pairs()]
    lines = [["Feature", *names], ["---"] * (1 + len(names))]
    for feature, title in FEATURES.items():
        states = [state(dialect, provider, feature) for dialect, provider in pairs()]
        lines.append([title, *states])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def state(dialect: str, provider: str, feature: str) -> str:
    """What a pair does with a feature."""
    plain, streamed = (Cell(dialect, provider, how, feature).state for how in (False, True))
    return plain if plain == streamed else f"{plain}; streamed {streamed}"
