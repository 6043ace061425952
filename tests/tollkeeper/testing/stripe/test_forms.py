"""Nested form fields."""

from typing import Any

import pytest

from tollkeeper.testing.stripe.forms import FREE, decode, read
from tollkeeper.testing.stripe.refusals import Malformed

SPEC = {
    "name!": str,
    "count": int,
    "on": bool,
    "mode": ("a", "b"),
    "items": [{"price!": str}],
    "tags": [str],
    "deep": {"er": {"x": int}},
    "metadata": FREE,
}


def test_brackets_nest() -> None:
    assert decode(b"a=1&b[c][0][d]=2&b[c][1][d]=3&e[]=x&e[]=y") == {
        "a": "1",
        "b": {"c": {"0": {"d": "2"}, "1": {"d": "3"}}},
        "e": {"0": "x", "1": "y"},
    }
    assert decode(b"") == {}
    assert decode(b"a=%C3%A4+b&c=") == {"a": "ä b", "c": ""}


@pytest.mark.parametrize(
    "raw", [b"a=1&a[b]=2", b"a[b]=1&a=2", b"\xff=1", b"&".join([b"a=1"] * 2000)]
)
def test_what_cannot_be_nested_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        decode(raw)


def test_fields_get_their_types() -> None:
    raw = b"name=n&count=-3&on=true&mode=b&items[0][price]=p&tags[0]=t&deep[er][x]=1"
    assert read(SPEC, decode(raw + b"&metadata[k]=v&metadata[gone]=")) == {
        "name": "n",
        "count": -3,
        "on": True,
        "mode": "b",
        "items": [{"price": "p"}],
        "tags": ["t"],
        "deep": {"er": {"x": 1}},
        "metadata": {"k": "v"},
    }
    assert read(SPEC, decode(b"name=n&metadata=")) == {"name": "n", "metadata": {}}


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"", "parameter_missing", "name"),
        (b"name=", "parameter_invalid_empty", "name"),
        (b"name=n&x=1", "parameter_unknown", "x"),
        (b"name=n&deep[er][y]=1", "parameter_unknown", "deep[er][y]"),
        (b"name=n&items[0][quantity]=1", "parameter_unknown", "items[0][quantity]"),
        (b"name=n&items[0]=1", "", "items[0]"),
        (b"name=n&items=1", "", "items"),
        (b"name=n&deep=1", "", "deep"),
        (b"name=n&count=1.5", "parameter_invalid_integer", "count"),
        (b"name=n&count=", "parameter_invalid_empty", "count"),
        (b"name=n&on=yes", "", "on"),
        (b"name=n&mode=c", "", "mode"),
        (b"name[x]=n", "", "name"),
        (b"name=n&metadata=x", "", "metadata"),
        (b"name=n&metadata[a][b]=x", "", "metadata"),
        (b"name=n&metadata[a]=" + b"x" * 501, "", "metadata[a]"),
        (b"name=n&metadata[" + b"x" * 41 + b"]=x", "", "metadata[" + "x" * 41 + "]"),
    ],
)
def test_what_does_not_fit_is_named(raw: bytes, code: str, param: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(SPEC, decode(raw))
    assert (caught.value.code, caught.value.param) == (code, param)


def test_metadata_has_up_to_fifty_names() -> None:
    many: dict[str, Any] = {"name": "n", "metadata": {str(at): "x" for at in range(51)}}
    with pytest.raises(Malformed):
        read(SPEC, many)
