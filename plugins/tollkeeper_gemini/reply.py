"""A whole reply of Gemini as a chat completion, and what a stream's events share with it."""

import hashlib
import secrets

import msgspec

from tollkeeper import broken
from tollkeeper.canonical import (
    ChatReply,
    ChatUsage,
    Choice,
    CompletionDetails,
    FinishReason,
    FunctionCall,
    JsonObject,
    PromptDetails,
    ReplyMessage,
    ToolCall,
)
from tollkeeper_gemini.models import (
    Called,
    Candidate,
    Part,
    Response,
    Token,
    UsageMetadata,
    failed,
    read_response,
)
from tollkeeper_gemini.service import ID_PREFIX, SIGNATURE_PREFIX

_decode_usage = msgspec.json.Decoder(UsageMetadata).decode

_FILTERED = {
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "ESCALATION",
    "MODEL_ARMOR",
    "PUP_LIMITED_DISABLED",
    "NO_IMAGE",
}
_FAILED = {
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
}


def finish_of(candidate: Candidate, has_calls: bool) -> FinishReason:
    """Why a candidate ended. Raises `UpstreamError` where it failed."""
    reason = candidate.finish_reason
    if reason in _FAILED or reason.startswith("MALFORMED_"):
        text = f"The model ended with {reason}. {candidate.finish_message}".rstrip()
        raise failed(502, "server_error", text)
    if reason in ("MAX_TOKENS", "CONTINUATION"):
        return "length"
    if reason in _FILTERED or reason.startswith("IMAGE_"):
        return "content_filter"
    return "tool_calls" if has_calls else "stop"


class Said:
    """What the parts of one candidate come to."""

    def __init__(self, candidate: Candidate, reply_id: str, calls_before: int = 0) -> None:
        self.text = ""
        self.thoughts = ""
        self.calls: list[ToolCall] = []
        self.signatures: list[str] = []
        self._seed = f"{reply_id}/{candidate.index}"
        self._calls_before = calls_before
        for part in candidate.content.parts if candidate.content else ():
            self._add(part)

    def _add(self, part: Part) -> None:
        if part.inline_data is not None:
            raise failed(502, "server_error", "The model made a file, which chat cannot carry.")
        if part.function_call is not None:
            self.calls.append(self._call(part.function_call, part.thought_signature))
            return
        if part.thought_signature:
            self.signatures.append(SIGNATURE_PREFIX + part.thought_signature)
        if part.thought:
            self.thoughts += part.text or ""
        else:
            self.text += part.text or ""

    def _call(self, called: Called, signature: str) -> ToolCall:
        function = FunctionCall(name=called.name, arguments=_arguments(bytes(called.args)))
        place = f"{self._seed}/{self._calls_before + len(self.calls)}".encode()
        made = ID_PREFIX + hashlib.sha256(place).hexdigest()[:24]
        call = ToolCall(id=called.id or made, function=function)
        if signature:
            call.extra_content = {"google": {"thought_signature": signature}}
        return call

    def blocks(self, thoughts: str) -> list[JsonObject]:
        """The signatures of text as thinking blocks, the first of them with the thoughts."""
        return [
            {"type": "thinking", "thinking": "" if i else thoughts, "signature": signature}
            for i, signature in enumerate(self.signatures)
        ]


def _arguments(args: bytes) -> str:
    """The JSON of a call's arguments, as it stands."""
    if args == b"null":
        return "{}"
    try:
        text = args.decode()
    except UnicodeDecodeError:
        raise broken("the arguments of a call are not valid UTF-8") from None
    if not text.startswith("{"):
        raise broken("the arguments of a call are not an object")
    return text


def reply_id_of(response: Response) -> str:
    """The id of a reply, from Gemini's own where it tells one."""
    return "chatcmpl-" + (response.response_id or secrets.token_hex(12))


def write_usage(raw: bytes) -> ChatUsage:
    """The usage. Gemini's prompt includes what was cached; its output may lack the thoughts."""
    try:
        found = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise broken(f"not a usage of Gemini: {error}") from None
    prompt = found.prompt_token_count + found.tool_use_prompt_token_count
    completion = found.candidates_token_count
    if prompt + completion != found.total_token_count:
        completion += found.thoughts_token_count
    return ChatUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=found.cached_content_token_count),
        completion_tokens_details=CompletionDetails(reasoning_tokens=found.thoughts_token_count),
    )


def write_logprobs(candidate: Candidate) -> JsonObject | None:
    """The log probabilities of a candidate's tokens, None where it has none."""
    found = candidate.logprobs_result
    if found is None:
        return None
    places = found.top_candidates
    return {
        "content": [
            {
                **_logprob(token),
                "top_logprobs": [_logprob(t) for t in places[i].candidates]
                if i < len(places)
                else [],
            }
            for i, token in enumerate(found.chosen_candidates)
        ],
        "refusal": None,
    }


def _logprob(token: Token) -> JsonObject:
    bytes_ = list(token.token.encode())
    return {"token": token.token, "logprob": token.log_probability, "bytes": bytes_}


def write_reply(data: bytes, model: str, created: int) -> bytes:
    """A whole reply as a chat completion. Raises `UpstreamError` where it is none."""
    response = read_response(data)
    if not response.candidates:
        raise broken("the reply has no candidates")
    reply_id = reply_id_of(response)
    reply = ChatReply(
        id=reply_id,
        created=created,
        model=response.model_version or model,
        choices=[
            _choice(candidate, reply_id)
            for candidate in sorted(response.candidates, key=lambda candidate: candidate.index)
        ],
    )
    if response.usage_metadata:
        reply.usage = write_usage(response.usage_metadata)
    return msgspec.json.encode(reply)


def _choice(candidate: Candidate, reply_id: str) -> Choice:
    if not candidate.finish_reason:
        raise broken("a candidate has no finishReason")
    said = Said(candidate, reply_id)
    message = ReplyMessage(content=said.text or (None if said.calls else ""))
    if said.calls:
        message.tool_calls = said.calls
    if said.thoughts:
        message.reasoning_content = said.thoughts
    if said.signatures:
        message.thinking_blocks = said.blocks(said.thoughts)
    return Choice(
        index=candidate.index,
        message=message,
        logprobs=write_logprobs(candidate),
        finish_reason=finish_of(candidate, bool(said.calls)),
    )
