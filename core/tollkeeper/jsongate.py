"""The strict gate for JSON from outside that is translated or stored.

What one parser takes and the next one chokes on is refused here, once: nesting deeper than 64,
lone surrogates, NaN, integers beyond 63 bits, and keys that stand twice. A body that merely passes
through is looked at by `check_shape`, which parses only when in doubt.
"""

import json
import re
from collections import Counter
from typing import Any, NoReturn, TypeVar

import msgspec

from tollkeeper.errors import Refused, invalid_request
from tollkeeper.jsonspan import members

MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1

_ESCAPED = re.compile(rb"\\u00[5-7]")
"""An escaped ASCII letter or underscore: no encoder writes one, but it may hide a key."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def check_shape(body: bytes) -> None:
    """Refuse nesting deeper than 64 and invalid UTF-8. Costs next to nothing for honest bodies."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise invalid_request("The body is not valid UTF-8.") from None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise invalid_request("The body is nested too deeply.")


def _depth(body: bytes) -> int:
    """How deep the brackets outside strings go."""
    deepest = depth = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def read_object(body: bytes) -> dict[str, Any]:
    """One JSON object, read strictly. Raises `Refused` that says what is wrong with it."""
    check_shape(body)
    try:
        document = json.loads(
            body.decode(),  # as text: of bytes the encoding would be guessed
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except ValueError as error:
        raise invalid_request(f"The body is not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise invalid_request("The body must be a JSON object.")
    if b"\\ud" in body.lower() and _SURROGATE.search(json.dumps(document, ensure_ascii=False)):
        raise invalid_request("A string of the body holds half of a surrogate pair.")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counted = Counter(name for name, _ in pairs)
        twin = next(name for name, count in counted.items() if count > 1)
        raise invalid_request(f"The key '{twin[:64]}' stands twice.", param=twin[:64])
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise invalid_request(f"{name} is no JSON number.")


def _integer(text: str) -> int:
    if len(text) > 20 or not -MAX_INTEGER - 1 <= int(text) <= MAX_INTEGER:
        raise invalid_request("An integer of the body is too large.")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise invalid_request("A number of the body is too large.")
    return value


RequestT = TypeVar("RequestT", bound=msgspec.Struct)


def decode_request(body: bytes, decoder: msgspec.json.Decoder[RequestT]) -> RequestT:
    """The part of a request body that a decoder names; the rest is checked for syntax only.

    Raises `Refused` that names the field of a wrong type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid_request(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise invalid_request("The body is nested too deeply.") from None


def invalid_field(error: msgspec.ValidationError) -> Refused:
    """The refusal for a field of a wrong type: "Expected `str`, got `int` - at `$.model`"."""
    text, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    where = f" at {place}" if place else ""
    return invalid_request(f"Invalid body: {text}{where}.", param=place or None)


class Once:
    """Keys that may stand once: of two, the upstream may take the other one than we did.

    Cheap for honest bodies: one search over the bytes, and keys are walked only where one of these
    stands twice at whatever depth, or an escape may hide one.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._key = re.compile(rb'"(%b)"\s*:' % "|".join(map(re.escape, names)).encode())

    def check(self, body: bytes) -> None:
        """Raise `Refused` that names a key which stands twice."""
        found = self._key.findall(body)
        escaped = b"\\" in body and _ESCAPED.search(body)
        if len(found) == len(set(found)) and not escaped:
            return
        counted = Counter(_decode_key(key) for key, _, _ in members(body))
        for name in self._names:
            if counted[name] > 1:
                raise invalid_request(f"The key '{name}' stands twice.", param=name)


def _decode_key(key: bytes) -> str:
    try:
        return msgspec.json.decode(b'"' + key + b'"', type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise invalid_request("A key of the body is not valid JSON.") from None
