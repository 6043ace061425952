"""Chat replies put in order: what smaller servers repeat, leave out or number in their own way."""

from typing import Any

import msgspec

from tollkeeper import broken

_FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_LENGTHS = frozenset({"max_tokens", "max_length", "model_length"})
_FAILURES = frozenset({"error", "abort", "cancelled"})


class Tidied:
    """One reply. Roles, ids and names come once, indexes are there, and finish reasons known."""

    def __init__(self) -> None:
        self._begun: dict[int, _Calls] = {}

    def body(self, data: bytes) -> bytes:
        """A whole reply."""
        document = _decode(data)
        for choice in _choices(document, "chat.completion"):
            has_calls = bool(_object(choice, "message").get("tool_calls"))
            choice["finish_reason"] = _finish(choice.get("finish_reason") or "stop", has_calls)
        return msgspec.json.encode(document)

    def event(self, data: bytes) -> bytes:
        """One chunk."""
        if data == b"[DONE]":
            return b"data: [DONE]\n\n"
        document = _decode(data)
        for choice in _choices(document, "chat.completion.chunk"):
            self._tidy(choice)
        return b"data: " + msgspec.json.encode(document) + b"\n\n"

    def end(self) -> bytes:
        """Nothing: whether the stream was whole is judged by the core."""
        return b""

    def _tidy(self, choice: dict[str, Any]) -> None:
        delta = choice["delta"] = _object(choice, "delta")
        calls = self._begun.get(choice["index"])
        if calls is None:
            calls = self._begun[choice["index"]] = _Calls()
            delta["role"] = delta.get("role") or "assistant"
        else:
            delta.pop("role", None)
        if delta.get("tool_calls") is not None:
            calls.tidy(_objects(delta, "tool_calls"))
        choice["finish_reason"] = _finish(choice.get("finish_reason"), calls.count > 0)


class _Calls:
    """The tool calls of one choice, told apart by what a server says of index, id and name."""

    def __init__(self) -> None:
        self.count = 0
        self._by_index: dict[object, int] = {}
        self._by_id: dict[object, int] = {}
        self._said: set[tuple[int, str]] = set()

    def tidy(self, pieces: list[dict[str, Any]]) -> None:
        """Give each piece its call's index, and take out what was said of that call before."""
        for position, piece in enumerate(pieces):
            function = _object(piece, "function")
            number = self._known(piece, begins=bool(function.get("name")))
            if number is None and not (piece.get("id") or function.get("name")):
                number = self._implied(piece, position if len(pieces) > 1 else self.count - 1)
            if number is None:
                number, self.count = self.count, self.count + 1
            self._by_index[_key(piece, "index", int)] = number
            self._by_id[_key(piece, "id", str)] = number
            piece["index"] = number
            self._say_once(number, piece, "id", "type")
            self._say_once(number, function, "name")

    def _known(self, piece: dict[str, Any], *, begins: bool) -> int | None:
        """The call that a piece belongs to by what it says of itself.

        Some servers make up an id for each piece, others give each call the index 0: an unknown id
        begins a call where a name comes with it.
        """
        known_as, index = _key(piece, "id", str), _key(piece, "index", int)
        if known_as is not None and known_as in self._by_id:
            return self._by_id[known_as]
        return None if index is None or (known_as and begins) else self._by_index.get(index)

    def _implied(self, piece: dict[str, Any], position: int) -> int | None:
        """The call of a piece that says nothing: by its place among several, or the last one."""
        if _key(piece, "index", int) is not None or not self.count:
            return None
        return min(position, self.count - 1)

    def _say_once(self, number: int, place: dict[str, Any], *names: str) -> None:
        for name in names:
            if not place.get(name) or (number, name) in self._said:
                place.pop(name, None)
            else:
                self._said.add((number, name))


def _key(piece: dict[str, Any], name: str, kind: type) -> object:
    value = piece.get(name)
    return value if isinstance(value, kind) and value != "" else None


def _finish(told: object, has_calls: bool) -> str | None:
    """A finish reason that clients know, or null. Raises for one that says it went wrong."""
    if not told:
        return None
    reason = str(told)
    if reason in _FAILURES:
        raise broken(f"the reply ended with finish reason {reason}")
    if reason in _LENGTHS:
        return "length"
    known = reason if reason in _FINISHES else "stop"
    return "tool_calls" if known == "stop" and has_calls else known


def _choices(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The choices, each with its index; none where the document is something else."""
    if document.get("choices") is None:
        return []
    choices = _objects(document, "choices")
    document.setdefault("object", kind)
    for position, choice in enumerate(choices):
        if type(choice.get("index")) is not int:
            choice["index"] = position
    return choices


def _object(place: dict[str, Any], name: str) -> dict[str, Any]:
    value = place.get(name)
    if value is not None and not isinstance(value, dict):
        raise broken(f"'{name}' in the reply is no object")
    return value or {}


def _objects(place: dict[str, Any], name: str) -> list[dict[str, Any]]:
    values = place[name]
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise broken(f"'{name}' in the reply is no list of objects")
    return values


def _decode(data: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise broken(f"the reply is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise broken("the reply is not a JSON object")
    return document
