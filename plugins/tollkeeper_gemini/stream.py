"""A stream of generateContent events as chat chunks.

Gemini says that a stream is over by ending it, and tells its usage with every event. What ends a
choice is therefore written at the end: some models tell a finishReason with more than one event.
"""

import msgspec

from tollkeeper import broken, quote
from tollkeeper.canonical import (
    ChatChunk,
    ChatUsage,
    ChunkChoice,
    Delta,
    FinishReason,
    FunctionDelta,
    ToolCall,
    ToolCallDelta,
)
from tollkeeper_gemini.models import Candidate, Response, read_response
from tollkeeper_gemini.reply import (
    Said,
    finish_of,
    reply_id_of,
    write_logprobs,
    write_reply,
    write_usage,
)

MAX_INDEX = 127
"""No model gives that many candidates; opening so many choices would be nonsense."""

_TAIL = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_DONE = b"data: [DONE]\n\n"


class _Choice:
    """What has come of one candidate."""

    def __init__(self, head: bytes) -> None:
        self.text_head = head + b'"content":'
        self.thought_head = head + b'"reasoning_content":'
        self.calls = 0
        self.signatures = 0
        self.finish: FinishReason | None = None


class GeminiTranslation:
    """One reply of Gemini on its way to the dialect of chat."""

    def __init__(self, model: str, created: int) -> None:
        self._model = model
        self._created = created
        self._id = ""
        self._choices: list[_Choice] = []
        self._usage = msgspec.Raw(b"")

    def body(self, data: bytes) -> bytes:
        """A whole reply."""
        return write_reply(data, self._model, self._created)

    def event(self, data: bytes) -> bytes:
        """The chunks that an event becomes; what Gemini reports or blocks is raised."""
        response = read_response(data)
        if response.usage_metadata:
            self._usage = response.usage_metadata
        if not self._id:
            self._begin(response)
        candidates = response.candidates
        if len(candidates) == 1:
            return self._candidate(candidates[0])
        return b"".join(map(self._candidate, candidates))

    def end(self) -> bytes:
        """Finish chunks, usage and the end. Raises `UpstreamError` for a stream that was cut."""
        if not self._choices or any(choice.finish is None for choice in self._choices):
            raise broken("the stream ended without a finishReason")
        out = [self._chunk(_ended(i, choice)) for i, choice in enumerate(self._choices)]
        if self._usage:
            out.append(self._chunk(usage=write_usage(self._usage)))
        return b"".join([*out, _DONE])

    def _begin(self, response: Response) -> None:
        self._id = reply_id_of(response)
        self._model = response.model_version or self._model

    def _candidate(self, candidate: Candidate) -> bytes:
        index = candidate.index
        opening = b"" if 0 <= index < len(self._choices) else self._open(index)
        choice = self._choices[index]
        if candidate.finish_reason:
            choice.finish = finish_of(candidate, has_calls=False)
        parts = candidate.content.parts if candidate.content is not None else ()
        if len(parts) == 1 and candidate.logprobs_result is None:
            part = parts[0]
            if part.text and not part.thought_signature:
                head = choice.thought_head if part.thought else choice.text_head
                return opening + head + quote(part.text) + _TAIL
        return opening + self._said(candidate, choice)

    def _open(self, index: int) -> bytes:
        """The first chunk of a choice, and of those before it: SDKs take none out of turn."""
        if not 0 <= index <= MAX_INDEX:
            raise broken(f"a candidate has the index {index}")
        out = []
        for i in range(len(self._choices), index + 1):
            self._choices.append(_Choice(self._head(i)))
            out.append(self._chunk(ChunkChoice(index=i, delta=Delta(role="assistant", content=""))))
        return b"".join(out)

    def _head(self, index: int) -> bytes:
        return (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"choices":[{"index":%d,"delta":{'
        ) % (quote(self._id), self._created, quote(self._model), index)

    def _said(self, candidate: Candidate, choice: _Choice) -> bytes:
        """One chunk with all that an event adds to a choice, `b""` where it adds nothing."""
        said = Said(candidate, self._id, choice.calls)
        delta = Delta()
        if said.text:
            delta.content = said.text
        if said.thoughts:
            delta.reasoning_content = said.thoughts
        if said.signatures:
            # SDKs add a list to one that has come before only by an index in each of its items.
            told, blocks = choice.signatures, said.blocks("")
            choice.signatures += len(blocks)
            indexed = [{**block, "index": told + i} for i, block in enumerate(blocks)]
            delta.thinking_blocks = indexed if told else blocks
        if said.calls:
            delta.tool_calls = [_delta(choice.calls + i, call) for i, call in enumerate(said.calls)]
            choice.calls += len(said.calls)
        logprobs = write_logprobs(candidate)
        if delta == Delta() and logprobs is None:
            return b""
        return self._chunk(ChunkChoice(index=candidate.index, delta=delta, logprobs=logprobs))

    def _chunk(
        self, *choices: ChunkChoice, usage: ChatUsage | msgspec.UnsetType = msgspec.UNSET
    ) -> bytes:
        chunk = ChatChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=list(choices),
            usage=usage,
        )
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _delta(index: int, call: ToolCall) -> ToolCallDelta:
    function = FunctionDelta(name=call.function.name, arguments=call.function.arguments)
    return ToolCallDelta(
        index=index,
        id=call.id,
        type=call.type,
        function=function,
        extra_content=call.extra_content or None,
    )


def _ended(index: int, choice: _Choice) -> ChunkChoice:
    reason = "tool_calls" if choice.finish == "stop" and choice.calls else choice.finish
    return ChunkChoice(index=index, delta=Delta(), finish_reason=reason)
