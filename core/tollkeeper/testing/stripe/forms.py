"""What a request says: nested form fields, read by a specification of what may be there."""

import re
from typing import Any
from urllib.parse import parse_qsl

from tollkeeper.testing.stripe.refusals import Malformed

FREE = object()
"""The kind of a field that holds names and texts of the sender's choice, such as metadata."""
MAX_FREE = 50
MAX_FREE_NAME = 40
MAX_FREE_TEXT = 500

Fields = dict[str, Any]


def decode(raw: bytes) -> Fields:
    """Form fields as nested dictionaries: `a[b][0]=x` is `{"a": {"b": {"0": "x"}}}`."""
    found: Fields = {}
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise Malformed("The body is not form-encoded.") from None
    for key, value in pairs:
        _insert(found, key, value)
    return found


def _insert(found: Fields, key: str, value: str) -> None:
    head, bracket, rest = key.partition("[")
    steps = [head, *rest.removesuffix("]").split("][")] if bracket else [head]
    node = found
    for step in steps[:-1]:
        node = node.setdefault(step or str(len(node)), {})
        if not isinstance(node, dict):
            raise Malformed(f"Invalid object: {key}", param=key)
    last = steps[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        raise Malformed(f"Invalid object: {key}", param=key)
    node[last] = value


def read(spec: Fields, given: Fields, inside: str = "") -> Fields:
    """The fields with their types. Raises `Malformed` for one too many, too few or of another kind.

    A name that ends in `!` has to be given. The kinds are `str`, `int`, `bool`, a tuple of words,
    a list with the kind of its items, a dictionary that specifies further fields, and `FREE`.
    """
    kinds = {name.removesuffix("!"): kind for name, kind in spec.items()}
    for name in given:
        if name not in kinds:
            raise Malformed(
                f"Received unknown parameter: {_path(inside, name)}",
                code="parameter_unknown",
                param=_path(inside, name),
            )
    for name in spec:
        if name.endswith("!") and name.removesuffix("!") not in given:
            raise missing(_path(inside, name.removesuffix("!")))
    return {name: _read_one(kinds[name], given[name], _path(inside, name)) for name in given}


def missing(path: str) -> Malformed:
    """The refusal of a request that lacks a parameter."""
    return Malformed(f"Missing required param: {path}.", code="parameter_missing", param=path)


def _path(inside: str, name: str) -> str:
    return f"{inside}[{name}]" if inside else name


def _read_one(kind: Any, value: Any, path: str) -> Any:  # noqa: ANN401 -- a kind and its value
    if kind is FREE:
        return _read_free(value, path)
    if value == "":
        raise Malformed(
            f"You passed an empty string for '{path}', which cannot be unset.",
            code="parameter_invalid_empty",
            param=path,
        )
    if isinstance(kind, dict | list):
        if not isinstance(value, dict):
            name = "object" if isinstance(kind, dict) else "array"
            raise Malformed(f"Invalid {name}: {path}", param=path)
        if isinstance(kind, dict):
            return read(kind, value, path)
        return [_read_one(kind[0], item, f"{path}[{at}]") for at, item in value.items()]
    if not isinstance(value, str):
        raise Malformed(f"Invalid string: {path}", param=path)
    return _read_word(kind, value, path)


def _read_word(kind: Any, value: str, path: str) -> str | int | bool:  # noqa: ANN401 -- a kind
    if kind is str:
        return value
    if kind is int:
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise Malformed(
                f"Invalid integer: {value}", code="parameter_invalid_integer", param=path
            )
        return int(value)
    if kind is bool:
        if value not in ("true", "false"):
            raise Malformed(f"Invalid boolean: {value}", param=path)
        return value == "true"
    if value not in kind:
        raise Malformed(f"Invalid {path}: must be one of {', '.join(kind)}", param=path)
    return value


def _read_free(value: Any, path: str) -> dict[str, str]:  # noqa: ANN401 -- whatever came
    if value == "":
        return {}  # how a client unsets all of it
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Malformed(f"Invalid object: {path}", param=path)
    if len(value) > MAX_FREE:
        raise Malformed(f"'{path}' can have up to {MAX_FREE} keys.", param=path)
    for name, text in value.items():
        if len(name) > MAX_FREE_NAME or len(text) > MAX_FREE_TEXT:
            raise Malformed(
                f"'{path}' takes keys of {MAX_FREE_NAME} and values of {MAX_FREE_TEXT} characters.",
                param=_path(path, name),
            )
    return {name: text for name, text in value.items() if text}
