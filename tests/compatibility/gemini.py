"""Gemini's generateContent as the upstream: what must reach it, and what it replies."""

from collections.abc import Iterator

from compatibility.answers import Answer
from compatibility.requests import (
    ASKED,
    FURTHER,
    GOES_ON,
    PHOTO,
    PIXEL,
    RULES,
    SAID,
    SCHEMA,
    STOPS,
    Json,
)
from tollkeeper import Usage

SNAPSHOT = "gemini-3-pro-preview"
SIGNATURE = "CiQB0e2Kb7Gemini+sig=="
NO_SIGNATURE = "skip_thought_signature_validator"
"""What Google documents for calls whose signature is not known."""
_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "calls": "STOP", "refused": "SAFETY"}
_DECLARED = {"functionDeclarations": [{"name": "weather", "parametersJsonSchema": SCHEMA}]}


def _said(role: str, *parts: Json) -> Json:
    return {"role": role, "parts": list(parts)}


def _config(**members: object) -> Json:
    return {"generationConfig": members}


WANTED: dict[str, Json] = {
    "text": {
        "systemInstruction": {"parts": [{"text": RULES}]},
        "contents": [
            _said("user", {"text": ASKED}),
            _said("model", {"text": SAID}),
            _said("user", {"text": GOES_ON}),
        ],
        **_config(temperature=0.5, topP=0.9, maxOutputTokens=200),
    },
    "tools": {
        "tools": [_DECLARED],
        "toolConfig": {
            "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}
        },
    },
    "parallel tools": {
        "tools": [_DECLARED],
        "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}},
    },
    "image inline": {
        "contents": [
            _said("user", {}, {"inlineData": {"mimeType": "image/gif", "data": PIXEL}}),
        ]
    },
    "image by address": {
        "contents": [
            _said("user", {}, {"fileData": {"mimeType": "image/png", "fileUri": PHOTO}}),
        ]
    },
    "structured output": _config(responseMimeType="application/json", responseJsonSchema=SCHEMA),
    "reasoning": _config(
        thinkingConfig={"thinkingLevel": "high", "includeThoughts": True}, maxOutputTokens=20000
    ),
    "stop": _config(stopSequences=STOPS),
    "length": _config(maxOutputTokens=16),
    "logprobs": _config(responseLogprobs=True, logprobs=2),
    "choices": _config(candidateCount=2),
}
"""What the body must hold."""


def _called(city: str) -> Json:
    return {"functionCall": {"name": "weather", "args": {"city": city}}}


def _result(**response: object) -> Json:
    return {"functionResponse": {"name": "weather", "response": response}}


_SIGNED = {**_called("Paris"), "thoughtSignature": SIGNATURE}

WANTED_AGAIN: dict[str, list[Json]] = {
    "tools": [_said("model", _SIGNED), _said("user", _result(celsius=18))],
    "parallel tools": [
        _said("model", {"text": "I look."}, _SIGNED, _called("Rome")),
        _said("user", _result(celsius=18), _result(result="25 degrees")),
    ],
    "reasoning": [
        _said("model", {"text": "42", "thoughtSignature": SIGNATURE}),
        _said("user", {"text": FURTHER}),
    ],
}
"""How the contents of the second request must end."""


def reply(answer: Answer) -> Json:
    """A whole reply."""
    candidates = [_candidate(0, _parts(answer), answer, _FINISH[answer.finish])]
    for index, text in enumerate(answer.others, 1):
        candidates.append(_candidate(index, [{"text": text}], answer, "STOP"))
    return _response(candidates, answer.usage)


def events(answer: Answer) -> list[Json]:
    """A stream of replies, each with the usage so far."""
    return list(_events(answer))


def _events(answer: Answer) -> Iterator[Json]:
    usage = answer.usage or Usage(0, 0)
    so_far = Usage(usage.input_tokens, 1, usage.cache_read_tokens)
    silent = Answer()
    for part in _parts(answer):
        logprobs = answer if "text" in part and "thought" not in part else silent
        yield _response([_candidate(0, [part], logprobs, "")], so_far)
    for index, text in enumerate(answer.others, 1):
        yield _response([_candidate(index, [{"text": text}], silent, "STOP")], so_far)
    ended = _candidate(0, [{"text": ""}], silent, _FINISH[answer.finish])
    yield _response([ended], answer.usage)


def _response(candidates: list[Json], usage: Usage | None) -> Json:
    ids = {"modelVersion": SNAPSHOT, "responseId": "x7kZaYbQH9"}
    return {"candidates": candidates, "usageMetadata": _usage(usage or Usage(0, 0)), **ids}


def _candidate(index: int, parts: list[Json], answer: Answer, finish: str) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}}
    if finish:
        candidate["finishReason"] = finish
    candidate["index"] = index
    if answer.logprobs:
        chosen = [{"token": t, "tokenId": 7, "logProbability": p} for t, p in answer.logprobs]
        top = [{"candidates": [token]} for token in chosen]
        candidate["logprobsResult"] = {"topCandidates": top, "chosenCandidates": chosen}
    return candidate


def _parts(answer: Answer) -> list[Json]:
    parts: list[Json] = []
    if answer.thoughts:
        parts.append({"text": answer.thoughts, "thought": True})
    if answer.text:
        parts.append({"text": answer.text})
    if answer.thoughts:
        parts[-1]["thoughtSignature"] = SIGNATURE
    calls = [_called(city) for _, city in answer.calls]
    if calls:
        calls[0]["thoughtSignature"] = SIGNATURE
    return parts + calls


def _usage(told: Usage) -> Json:
    """Tokens in Gemini's words, where thoughts stand beside what is said."""
    return {
        "promptTokenCount": told.input_tokens,
        "cachedContentTokenCount": told.cache_read_tokens,
        "candidatesTokenCount": told.output_tokens - told.reasoning_tokens,
        "thoughtsTokenCount": told.reasoning_tokens,
        "totalTokenCount": told.input_tokens + told.output_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": told.input_tokens}],
    }
