"""Forms read strictly: one way to take them apart, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.errors import Refused
from tollkeeper_audio.service import MAX_FIELD, MAX_PARTS, read_fields, replace_field

TYPE = "multipart/form-data; boundary=XX"
WANTED = frozenset({"model", "stream"})
SOUND = bytes(range(256)) + b"\r\n\r\n--X\r\n--\r\n"


def part(head: str, value: bytes | str) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return f"--XX\r\n{head}\r\n\r\n".encode() + data + b"\r\n"


def field(name: str, value: bytes | str) -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', value)


FILE = part(
    'Content-Type: audio/mpeg\r\nContent-Disposition: form-data; name="file"; filename="a;\\"b"',
    SOUND,
)
MODEL = field("model", "whisper-1")
END = b"--XX--\r\n"


@pytest.mark.parametrize(
    "head",
    [
        'Content-Disposition: form-data; name="model"',
        "content-disposition:form-data;name=model",
        "Content-Disposition: form-data; name=model\r\nContent-Length: 9",
        'Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name="model"',
        "Content-Disposition: form-data; name=\"model\"; filename=a; filename*=utf-8''a%20b",
    ],
)
def test_a_field_is_found_as_sdks_of_all_sorts_write_it(head: str) -> None:
    body = FILE + part(head, "whisper-1") + field("stream", "true") + END
    assert read_fields(body, TYPE, WANTED) == {"model": "whisper-1", "stream": "true"}


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=XX",
        'multipart/form-data; boundary="XX"',
        "Multipart/Form-Data;Boundary=XX",
        "multipart/form-data; boundary=XX; charset=utf-8",
    ],
)
def test_the_boundary_is_found_quoted_or_not(content_type: str) -> None:
    assert read_fields(MODEL + END, content_type, WANTED) == {"model": "whisper-1"}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; xboundary=YY; boundary=XX",
        "multipart/form-data; boundary=YY; boundary=XX",
        "multipart/form-data; boundary=XX, multipart/form-data; boundary=YY",
        "multipart/mixed; boundary=XX",
        f"multipart/form-data; boundary={'X' * 71}",
        'multipart/form-data; boundary="X\\X"',
        "multipart/form-data; boundary=é",
    ],
)
def test_a_type_that_does_not_name_one_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(Refused, match="multipart/form-data with a boundary"):
        read_fields(MODEL + END, content_type, WANTED)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"whisper-1",
        END,
        MODEL,
        MODEL + b"--XX\r\n",
        MODEL[:-2] + END,
        b"preamble\r\n" + MODEL + END,
        MODEL + END + MODEL + END,
        MODEL + b"--XX \r\n" + MODEL[6:] + END,
        MODEL + b"--XXX\r\nContent-Disposition: form-data; name=x\r\n\r\n1\r\n" + END,
        field("file", b"sound--XXsound") + MODEL + END,
        field("file", b"sound\n--XX\nsound") + MODEL + END,
        (MODEL + END).replace(b"\r\n", b"\n"),
        (MODEL + END).replace(b"\r\n", b"\r"),
        b"--XX\r\n\r\nwhisper-1\r\n" + END,
        b"--XX\r\nContent-Disposition: form-data; name=model\r\n\r\n" + END,
        b"--XX\r\nContent-Disposition: form-data; name=model\r\n" + END,
        part("Content-Type: text/plain", "x") + END,
        part("Content-Disposition: form-data", "x") + END,
        part('Content-Disposition: form-data; name="mo\\del"', "x") + END,
        part("Content-Disposition: form-data; name=a; name=model", "x") + END,
        part("Content-Disposition: form-data; name*0=mo; name*1=del", "x") + END,
        part("Content-Disposition: form-data; name=a\nContent-Disposition: b", "x") + END,
        part("Content-Disposition: form-data; name=a\r\nX: b\nContent-Disposition: c", "x") + END,
        part("Content-Disposition: form-data; name=a\r\n; name=model", "x") + END,
        part("Content-Disposition: form-data; name=a\r\n name*=model", "x") + END,
        part("Content-Disposition: form-data;\r\n name=model", "x") + END,
        part("Content-Disposition : form-data; name=model", "x") + END,
        part("Content-Disposition: form-data; name=a\r\nContent-Disposition: b", "x") + END,
        part("Content-Disposition: attachment; name=model", "x") + END,
    ],
)
def test_a_body_that_can_be_read_in_more_ways_than_one_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="malformed"):
        read_fields(body, TYPE, WANTED)


def test_a_body_of_very_many_parts_is_refused() -> None:
    most = [field("model", "m"), *[field(f"f{i}", "x") for i in range(MAX_PARTS - 1)]]
    assert read_fields(b"".join(most) + END, TYPE, WANTED) == {"model": "m"}
    with pytest.raises(Refused, match="too many parts"):
        read_fields(b"".join(most) + field("one", "more") + END, TYPE, WANTED)
    with pytest.raises(Refused, match="too many parts"):
        read_fields(field("x", "y") * 100_000 + END, TYPE, WANTED)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([b"a", b"a"], "stands twice"),
        ([b"x" * (MAX_FIELD + 1)], "too long"),
        ([b"\xff"], "not valid UTF-8"),
    ],
)
def test_a_field_that_cannot_be_trusted_is_refused_by_name(
    values: list[bytes], problem: str
) -> None:
    body = b"".join(field("model", value) for value in values) + END
    with pytest.raises(Refused, match=problem) as caught:
        read_fields(body, TYPE, WANTED)
    assert caught.value.param == "model"


def test_a_field_is_replaced_with_its_head_and_no_other_byte() -> None:
    told = part("Content-Disposition: form-data; name=model\r\nContent-Length: 9", "whisper-1")
    changed = replace_field(FILE + told + field("prompt", "é") + END, TYPE, "model", "größer")
    assert changed == FILE + field("model", "größer") + field("prompt", "é") + END
    assert replace_field(FILE + END, TYPE, "model", "x") == FILE + END


@given(st.lists(st.tuples(st.sampled_from(["model", "file", "a"]), st.binary(max_size=50))))
def test_only_the_model_changes_whatever_the_parts_hold(parts: list[tuple[str, bytes]]) -> None:
    body = b"".join(field(name, value) for name, value in parts) + END
    try:
        read_fields(body, TYPE, WANTED)
        changed = replace_field(body, TYPE, "model", "new")
    except Refused:
        return
    wanted = [(name, b"new" if name == "model" else value) for name, value in parts]
    assert changed == b"".join(field(name, value) for name, value in wanted) + END
