"""How a mistake in the configuration is told to the person who made it."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tollkeeper.settings import Table
from tollkeeper.toml_lines import KeyPath

_SAYINGS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "is_instance_of": 'must be a number, or text such as "0.15"',
    "literal_error": "must be true or false",
    "model_type": "must be a table",
    "string_pattern_mismatch": "holds characters that cannot stand there",
    "string_type": "must be text",
    "tuple_type": "must be an array",
}
_SECRET_NAME = re.compile(r"credential|secret|password|passphrase|token|key$")


def nearest(name: str, known: Mapping[str, Any] | tuple[str, ...] | list[str]) -> str:
    """` - did you mean "x"?`, or nothing where no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f' - did you mean "{close[0]}"?' if close else ""


def dotted(path: KeyPath) -> str:
    """A key path as TOML writes it."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if bare else f'"{part}"')
    return text


def own_findings(error: ValidationError) -> list[ErrorDetails]:
    """What is wrong, without what is only wrong because something inside it is."""
    details = error.errors(include_url=False)
    inner = {detail["loc"][:end] for detail in details for end in range(len(detail["loc"]))}
    return [d for d in details if not (d["type"] == "too_short" and d["loc"] in inner)]


def explain(detail: ErrorDetails, model: type[Table], path: KeyPath, written: object) -> str:
    """What pydantic found in the table at `path`, with the value as it was written."""
    loc = detail["loc"]
    key = dotted((*path, *loc))
    if detail["type"] == "extra_forbidden":
        known = list(_model_at(model, loc[:-1]).model_fields)
        table = dotted((*path, *loc[:-1]))
        return f'unknown key "{loc[-1]}" in [{table}]{nearest(str(loc[-1]), known)}'
    if detail["type"] == "missing":
        return f"{key} is missing"
    message = _SAYINGS.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    return f"{key} = {_shown(written, model, loc)}: {message[0].lower()}{message[1:]}"


def _model_at(model: type[Table], loc: tuple[str | int, ...]) -> type[Table]:
    """The model that validates what stands at `loc` inside `model`."""
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            for inner in _tables_in(model.model_fields[part].annotation):
                model = inner
    return model


def _tables_in(annotation: Any) -> list[type[Table]]:  # noqa: ANN401 -- an annotation
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return [annotation]
    return [t for arg in getattr(annotation, "__args__", ()) for t in _tables_in(arg)]


def _shown(written: object, model: type[Table], loc: tuple[str | int, ...]) -> str:
    """The offending value as it stands in the file, unless it may be a secret."""
    if _holds_secret(model, loc) or _SECRET_NAME.search(str(loc[-1]) if loc else ""):
        return "***"
    value: Any = written
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return "(nothing)"
    if isinstance(value, (dict, list)):
        return "(a table)" if isinstance(value, dict) else "(an array)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + re.sub(r"//[^/@]*@", "//***@", value) + '"'
    return str(value)


def _holds_secret(model: type[Table], loc: tuple[str | int, ...]) -> bool:
    """Whether a field on the way to `loc` is declared as a secret."""
    for index, part in enumerate(loc):
        fields = _model_at(model, loc[:index]).model_fields
        if isinstance(part, str) and part in fields and "Secret" in str(fields[part].annotation):
            return True
    return False
