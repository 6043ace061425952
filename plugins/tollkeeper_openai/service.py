"""Changing a request body where it must change, byte for byte the same elsewhere."""

from tollkeeper import find_value, quote, replace_value

_INCLUDE_USAGE = b'{"include_usage":true}'


def upstream_body(body: bytes, model: str | None, asks_usage: bool) -> bytes:
    """`body` with another model where one is given, and asking for usage where it does not."""
    if model is not None:
        body = replace_value(body, b"model", quote(model))
    return with_usage_option(body) if asks_usage else body


def with_usage_option(body: bytes) -> bytes:
    """`body` with `stream_options.include_usage` true, its other stream options kept."""
    span = find_value(body, b"stream_options")
    options = body[span[0] : span[1]] if span else b""
    if not options.startswith(b"{"):
        return replace_value(body, b"stream_options", _INCLUDE_USAGE)
    return replace_value(body, b"stream_options", replace_value(options, b"include_usage", b"true"))
