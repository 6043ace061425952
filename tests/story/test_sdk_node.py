"""The SDKs for Node of three makers, before models of three makers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from clients.stage import HELLO, MODELS, Stage, need_packages, run_node, stage

ADA = {"name": "Ada", "age": 36}
SUNNY = "It is sunny in Paris."
VECTOR = [0.5, -0.25, 1]


@pytest.fixture(scope="module", name="on")
def stage_for_all() -> Iterator[Stage]:
    with stage() as running:
        yield running


def tries(on: Stage, content: str) -> list[int]:
    return [len(on.asked(f"{content}, said to {model}")) for model in MODELS]


def since(before: list[int], now: list[int]) -> list[int]:
    return [b - a for a, b in zip(before, now, strict=True)]


def test_anthropic(on: Stage) -> None:
    need_packages("@anthropic-ai/sdk")
    seen = run_node("anthropic.mjs", "@anthropic-ai/sdk", on.root_url, on.key)
    for model in MODELS:
        assert seen[model].pop("pieces") > 1
        assert seen[model] == {
            "plain": [HELLO, model, "end_turn"],
            "usage": [11, 7],
            "request": True,
            "stream": [HELLO, "end_turn", 7],
            "tool": ["tool_use", "get_weather", {"city": "Paris"}],
            "answer": SUNNY,
            "ran": SUNNY,
            "parsed": ADA,
            "thought": ["Two and two.", "Four."],
            "errors": {
                "invalid": ["BadRequestError", 400, "invalid_request_error", True],
                "limited": ["RateLimitError", 429, "rate_limit_error", True],
                "broken": ["InternalServerError", 502, "api_error", True],
                "busy": ["ServiceUnavailableError", 503, "overloaded_error", True],
                "model": ["NotFoundError", 404, "not_found_error", True],
                "key": ["AuthenticationError", 401, "authentication_error", True],
                "cut": ["APIError", None, "api_error", True],
            },
        }
    assert tries(on, "limited") == [2, 2, 2]
    assert tries(on, "invalid") == [1, 1, 1]


@pytest.mark.parametrize("sdk", ["openai6", "openai7"])
def test_openai_responses_and_embeddings(on: Stage, sdk: str) -> None:
    need_packages(sdk)
    before = {content: tries(on, content) for content in ("limited", "unpaid")}
    seen = run_node("responses.mjs", sdk, on.base_url, on.key)
    for model in MODELS:
        vector: Any = ["BadRequestError", 400, "invalid_request", True]
        assert seen[model] == {
            "plain": [HELLO, model, "completed", 18],
            "request": True,
            "stream": [HELLO, model, 18],
            "tool": ["get_weather", '{"city":"Paris"}'],
            "answer": SUNNY,
            "structured": ADA,
            "thought": "Two and two.",
            "kept": HELLO,
            "continued": HELLO,
            "cut": ["APIError", "server_error"],
            "vector": VECTOR if model == "gpt" else vector,
            "errors": {
                "invalid": ["BadRequestError", 400, "invalid_request", True],
                "too long": ["BadRequestError", 400, "context_length_exceeded", True],
                "limited": ["RateLimitError", 429, "rate_limit", True],
                "broken": ["InternalServerError", 502, "server_error", True],
                "model": ["NotFoundError", 404, "model_not_found", True],
            },
        }
    assert since(before["limited"], tries(on, "limited")) == [2, 2, 2]
    assert since(before["unpaid"], tries(on, "unpaid")) == [1, 1, 1]


@pytest.mark.parametrize("kind", ["responses", "chat", "compatible"])
def test_ai_sdk(on: Stage, kind: str) -> None:
    need_packages("ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible")
    before = tries(on, "limited")
    seen = run_node("ai.mjs", kind, on.base_url, on.key)
    for model in MODELS:
        vector: Any = ["AI_APICallError", 400, "invalid_request", False]
        assert seen[model] == {
            "plain": [HELLO, "stop", model],
            "usage": [11, 7],
            "request": True,
            "stream": [HELLO, True, "stop"],
            "streamed": 7,
            "tool": [2, {"city": "Paris"}, SUNNY],
            "toolInStream": [SUNNY, 2],
            "textBeforeTool": ["Let me see.", SUNNY] * 2,
            "nextTurn": [2, SUNNY],
            "object": ADA,
            # Chat of OpenAI has no place for thoughts that this SDK would read.
            "thought": None if kind == "chat" else "Two and two.",
            "cut": "told",
            "vector": VECTOR if model == "gpt" else vector,
            "errors": {
                "invalid": ["AI_APICallError", 400, "invalid_request", False],
                "limited": ["AI_APICallError", 429, "rate_limit", True],
                "broken": ["AI_APICallError", 502, "server_error", True],
                "model": ["AI_APICallError", 404, "model_not_found", False],
                "again": "AI_RetryError",
            },
        }
        # What the first turn said came back whole, whatever the client sent of it.
        asked = on.asked(f"chatty with {model}")
        assert asked
        assert all("Four." in json.dumps(entry["body"]) for entry in asked)
    assert since(before, tries(on, "limited")) == [2, 2, 2]
