"""A conversation in Gemini's shape: `systemInstruction` and `contents`.

Source: the reference of generateContent, https://ai.google.dev/api/caching#Content.
"""

import re

import msgspec

from tollkeeper import Refused, Unsupported, invalid_request
from tollkeeper.canonical import ContentPart, JsonObject, Message, ToolCall
from tollkeeper.jsongate import read_object

ID_PREFIX = "call_gem_"
"""How ids begin that are made here for calls that came without one. They never go upstream."""

SIGNATURE_PREFIX = "google:"
"""Tells Gemini's signatures in `thinking_blocks` from those of others, which Gemini refuses."""

_NO_SIGNATURE = "skip_thought_signature_validator"
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mp3"}
_ADDRESS = re.compile(r"https?://[^?#]*?(?:\.([A-Za-z]+))?(?:[?#].*)?", re.DOTALL)
_IMAGES = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp", "heic": "heic"}
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)[^,]*;base64,")


def refused(where: str, why: str) -> Refused:
    """The refusal of a part of the conversation; such a part is never dropped."""
    return invalid_request(f"'{where}' cannot be honoured: {why}.", param=where)


class Conversation:
    """Messages as they are added, in Gemini's shape."""

    def __init__(self, unsupported: Unsupported, version: tuple[int, int]) -> None:
        self.system: list[JsonObject] = []
        """The parts of `systemInstruction`."""
        self.contents: list[JsonObject] = []
        """Turns of `user` and `model`; no two neighbours have the same role once it is closed."""
        self._unsupported = unsupported
        self._is_signed = version >= (3, 0)
        self._fetches = version >= (2, 5)
        self._calls: dict[str, tuple[int, str]] = {}
        self._results: list[tuple[int, JsonObject]] = []

    def add(self, where: str, message: Message) -> None:
        """Add a message. Raises `Refused` that names what Gemini cannot take, from `where` on."""
        self._note_hints(message)
        if message.role == "tool":
            self._results.append(self._result(where, message))
            return
        self.close()
        if message.role == "assistant":
            self._extend("model", self._said(where, message))
        elif message.role == "user":
            self._extend("user", self._parts(where, message))
        elif message.role == "function":
            raise refused(f"{where}.role", "results come in messages of role 'tool'")
        else:
            self.system += _texts(where, message)

    def close(self) -> None:
        """Write the tool results that have come, in the order of their calls."""
        results = sorted(self._results, key=lambda result: result[0])
        self._extend("user", [part for _, part in results])
        self._results = []

    def _extend(self, role: str, parts: list[JsonObject]) -> None:
        if parts and self.contents and self.contents[-1]["role"] == role:
            self.contents[-1]["parts"] += parts
        elif parts:
            self.contents.append({"role": role, "parts": parts})

    def _note_hints(self, message: Message) -> None:
        for name in ("name", "cache_control", "reasoning_content"):
            if getattr(message, name) is not None:
                self._unsupported.ignore(f"messages[].{name}")
        if isinstance(message.content, list) and any(p.cache_control for p in message.content):
            self._unsupported.ignore("messages[].cache_control")

    def _parts(self, where: str, message: Message) -> list[JsonObject]:
        if not isinstance(message.content, list):
            return _texts(where, message)
        parts = enumerate(message.content)
        return [self._part(f"{where}.content[{i}]", part) for i, part in parts if part.text != ""]

    def _part(self, where: str, part: ContentPart) -> JsonObject:
        if part.type == "text":
            return {"text": _text(where, part)}
        if part.type == "image_url" and part.image_url is not None:
            if part.image_url.detail not in (None, "auto"):
                self._unsupported.ignore("messages[].content[].image_url.detail")
            return self._image(f"{where}.image_url.url", part.image_url.url)
        if part.type == "input_audio" and part.input_audio is not None:
            return _audio(f"{where}.input_audio", part.input_audio)
        if part.type == "file" and part.file is not None:
            if part.file.get("filename") is not None:
                self._unsupported.ignore("messages[].content[].file.filename")
            return _file(f"{where}.file", part.file)
        raise refused(f"{where}.type", "it is no kind of part that Gemini takes, or lacks its data")

    def _image(self, where: str, url: str) -> JsonObject:
        """An image inline, or by an address, which models fetch themselves from 2.5 on.

        Source: https://ai.google.dev/gemini-api/docs/file-input-methods.
        """
        address = _ADDRESS.fullmatch(url)
        if address is None or not self._fetches:
            return _inline(where, url)
        kind = _IMAGES.get((address[1] or "").lower())
        mime_type = {} if kind is None else {"mimeType": f"image/{kind}"}
        return {"fileData": {**mime_type, "fileUri": url}}

    def _said(self, where: str, message: Message) -> list[JsonObject]:
        for name in ("audio", "function_call"):
            if getattr(message, name) is not None:
                raise refused(f"{where}.{name}", "Gemini has nothing like it")
        parts = _texts(where, message)
        if message.refusal:
            parts.append({"text": message.refusal})
        if signature := self._signature(message):
            parts = parts or [{"text": ""}]
            parts[-1]["thoughtSignature"] = signature
        return parts + self._called(f"{where}.tool_calls", message.tool_calls or [])

    def _signature(self, message: Message) -> str:
        """The last of Gemini's own signatures; blocks of others are dropped and listed."""
        found = ""
        for block in message.thinking_blocks or ():
            signature = block.get("signature")
            if isinstance(signature, str) and signature.startswith(SIGNATURE_PREFIX):
                found = signature.removeprefix(SIGNATURE_PREFIX)
            else:
                self._unsupported.ignore("messages[].thinking_blocks")
        return found

    def _called(self, where: str, calls: list[ToolCall]) -> list[JsonObject]:
        parts = [self._call(f"{where}[{i}]", call) for i, call in enumerate(calls)]
        if self._is_signed and parts:
            # Calls that another model made have none, and Gemini 3 refuses a turn without one.
            # Google documents this value for them:
            # https://ai.google.dev/gemini-api/docs/thought-signatures
            parts[0].setdefault("thoughtSignature", _NO_SIGNATURE)
        return parts

    def _call(self, where: str, call: ToolCall) -> JsonObject:
        if call.type != "function":
            raise refused(f"{where}.type", "Gemini calls functions only")
        self._calls[call.id] = (len(self._calls), call.function.name)
        arguments = call.function.arguments.strip() or "{}"
        args = _object(arguments)
        if args is None:
            raise refused(f"{where}.function.arguments", "they are not the JSON of an object")
        part: JsonObject = {
            "functionCall": {"name": call.function.name, "args": args, **self._id(call.id)}
        }
        google = call.extra_content.get("google") if call.extra_content else None
        signature = google.get("thought_signature") if isinstance(google, dict) else None
        if isinstance(signature, str) and signature:
            part["thoughtSignature"] = signature
        return part

    def _result(self, where: str, message: Message) -> tuple[int, JsonObject]:
        call_id = message.tool_call_id or ""
        if call_id not in self._calls:
            raise refused(f"{where}.tool_call_id", "no tool call before it has this id")
        position, name = self._calls[call_id]
        text = "".join(part["text"] for part in _texts(where, message))
        response = _object(text)
        if response is None:
            response = msgspec.Raw(msgspec.json.encode({"result": text}))
        return position, {
            "functionResponse": {"name": name, "response": response, **self._id(call_id)}
        }

    def _id(self, call_id: str) -> JsonObject:
        """The id of a call for models that know ids, where it is not one made here."""
        return {"id": call_id} if self._is_signed and not call_id.startswith(ID_PREFIX) else {}


def _object(text: str) -> msgspec.Raw | None:
    """The text as it stands where it is a JSON object that any parser takes, None elsewhere."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        read_object(text.encode())
    except Refused:
        return None
    return msgspec.Raw(text.encode())


def _texts(where: str, message: Message) -> list[JsonObject]:
    """The content of a message that may hold text alone; empty parts are refused by Gemini."""
    content = message.content
    if isinstance(content, list):
        parts = enumerate(content)
        texts = [_text(f"{where}.content[{i}]", part) for i, part in parts]
        return [{"text": text} for text in texts if text]
    return [{"text": content}] if content else []


def _text(where: str, part: ContentPart) -> str:
    text = part.refusal if part.type == "refusal" else part.text
    if part.type not in ("text", "refusal") or text is None:
        raise refused(f"{where}.type", "only text can stand here")
    return text


def _inline(where: str, url: str) -> JsonObject:
    match = _DATA_URL.match(url)
    if match is None:
        raise refused(where, "Gemini takes data inline: send it as a base64 'data:' URL")
    return {"inlineData": {"mimeType": match[1], "data": url[match.end() :]}}


def _audio(where: str, audio: JsonObject) -> JsonObject:
    form, data = audio.get("format"), audio.get("data")
    if not isinstance(form, str) or form not in _AUDIO:
        raise refused(f"{where}.format", "it is neither 'wav' nor 'mp3'")
    if not isinstance(data, str):
        raise refused(f"{where}.data", "it is no text")
    return {"inlineData": {"mimeType": _AUDIO[form], "data": data}}


def _file(where: str, file: JsonObject) -> JsonObject:
    if file.get("file_id") is not None:
        raise refused(f"{where}.file_id", "files live at other providers: send its file_data")
    data = file.get("file_data")
    return _inline(f"{where}.file_data", data if isinstance(data, str) else "")
