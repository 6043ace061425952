"""What a model says, in no dialect at all: providers tell it each in theirs, clients read it."""

from dataclasses import dataclass, replace

import msgspec

from compatibility.cells import MISSING, Cell
from tollkeeper import Usage

PLAIN = Usage(24, 9)
THOUGHT = Usage(24, 60, reasoning_tokens=45)
CACHED = Usage(1200, 60, cache_read_tokens=1000, cache_write_tokens=100, reasoning_tokens=45)
TEXT = 'Regen: 雨 🌧 é "so" \\ and\n\ton.'
PARIS, ROME = ("weather", "Paris"), ("weather", "Rome")
"""Calls of a tool: its name, and the city that it is asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply. `finish` is stop, length, calls or refused; `usage` is None where none is told."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    thoughts: str = ""
    refusal: str = ""
    finish: str = "stop"
    usage: Usage | None = PLAIN
    logprobs: tuple[tuple[str, float], ...] = ()
    others: tuple[str, ...] = ()
    """The texts of further choices."""


ANSWERS = {
    "text": Answer(TEXT),
    "tools": Answer(calls=(PARIS,), finish="calls"),
    "parallel tools": Answer("I look.", calls=(PARIS, ROME), finish="calls"),
    "image inline": Answer("A red square."),
    "image by address": Answer("A blue circle."),
    "structured output": Answer('{"city":"Paris","rain":true}'),
    "reasoning": Answer("42", thoughts="Six by seven,\nso 42.", usage=THOUGHT),
    "stop": Answer("One, two"),
    "length": Answer("It was a dark", finish="length"),
    "refusal": Answer(refusal="I cannot help with that.", finish="refused"),
    "usage": Answer("Noted.", usage=CACHED),
    "logprobs": Answer("Yes 🌧", logprobs=(("Yes", -0.25), (" 🌧", -1.5))),
    "choices": Answer("Heads", others=("Tails",)),
}
"""What the upstream answers in each feature's cells."""

AGAIN = Answer("18 and 25 degrees.")
"""What it answers to a second request."""


def expected(cell: Cell, answer: Answer) -> Answer:
    """What the client gets to know of an answer: what the provider's dialect can tell."""
    if (cell.dialect, cell.feature) in MISSING:
        answer = replace(answer, logprobs=(), others=())
    if cell.provider == "gemini":
        answer = replace(answer, refusal="")
    elif cell.provider == "openai" and cell.dialect != "responses":
        answer = replace(answer, thoughts="")
    is_told = cell.dialect != "chat" or not cell.streamed or cell.feature == "usage"
    return replace(answer, usage=measured(cell, answer) if is_told else None)


def measured(cell: Cell, answer: Answer) -> Usage | None:
    """What the gateway counts; Gemini writes its cache without telling."""
    usage = answer.usage
    if cell.provider == "gemini" and usage is not None:
        return msgspec.structs.replace(usage, cache_write_tokens=0)
    return usage


_DROPPED = {
    ("chat", "anthropic"): "prompt_cache_key",
    ("chat", "gemini"): "prompt_cache_key",
    ("responses", "anthropic"): "prompt_cache_key",
    ("responses", "gemini"): "prompt_cache_key",
    ("messages", "openai"): "cache_control",
    ("messages", "gemini"): "messages[].cache_control",
}


def dropped(cell: Cell) -> str:
    """What is listed as dropped: hints of the cache, where the provider knows none of them."""
    return _DROPPED.get((cell.dialect, cell.provider), "") if cell.feature == "usage" else ""
