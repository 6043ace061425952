"""Lines of keys, for texts that know where they put each of theirs."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.toml_lines import KeyPath, locate_keys, unescape

NAMES = (
    "a",
    "b",
    "c-d",
    "e_1",
    "0",
    "x.y",
    "mit Leer",
    'qu"ote',
    "tab\t",
    "é",
    "",
    "#",
    "[z]",
    "=",
)


def paths_of(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key and every array item of a parsed document."""
    if path:
        yield path
    items: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


@dataclass
class Writer:
    """Writes a document by chance and keeps the line of each key where it writes it."""

    random: Random
    text: str = ""
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def put(self, text: str) -> None:
        self.text += text

    def mark(self, path: KeyPath) -> None:
        line = self.text.count("\n") + 1
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], line)

    def blank(self) -> str:
        return self.random.choice(("", "", " ", "\t"))

    def blank_lines(self) -> str:
        return self.random.choice(("", "", "\n", " # = [x] 'no\"\n", "\r\n\n"))

    def names(self, count: int) -> list[str]:
        return self.random.sample(NAMES, count)

    def key(self, name: str) -> str:
        bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        forms = [name] if bare else []
        if "'" not in name:
            forms.append(f"'{name}'")
        escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("é", "\\u00E9")
        forms.append(f'"{escaped}"')
        return self.random.choice(forms)

    def dotted(self, *names: str) -> str:
        return f"{self.blank()}.{self.blank()}".join(self.key(name) for name in names)

    def table(self, path: KeyPath, depth: int = 0) -> None:
        """Members on lines of their own, then tables below this one."""
        for name in self.names(self.random.randint(0, 3)):
            parts = [name, *self.names(self.random.choice((0, 0, 1, 2)))]
            self.put(self.blank_lines() + self.blank())
            self.mark((*path, *parts))
            self.put(f"{self.dotted(*parts)}{self.blank()}={self.blank()}")
            self.value((*path, *parts), 0)
            self.put(f"{self.blank()}{self.random.choice(('', '# comment = 1'))}\n")
        if depth < 2:
            taken = {p[len(path)] for p in self.lines if p[: len(path)] == path != p}
            for name in self.names(self.random.randint(0, 3)):
                if name not in taken:
                    write = self.random.choice((self.header, self.array_of_tables))
                    write((*path, name, *self.names(self.random.choice((0, 0, 1)))), depth)

    def header(self, path: KeyPath, depth: int) -> None:
        names = [part for part in path if isinstance(part, str)]
        self.put(f"{self.blank()}[{self.blank()}")
        self.mark(path)
        self.put(f"{self.dotted(*names)}{self.blank()}]{self.blank()}\n")
        self.table(path, depth + 1)

    def array_of_tables(self, path: KeyPath, depth: int) -> None:
        names = [part for part in path if isinstance(part, str)]
        for index in range(self.random.randint(1, 3)):
            self.put(self.blank_lines())
            self.mark((*path, index))
            self.put(f"[[{self.dotted(*names)}]]\n")
            self.table((*path, index), depth + 1)

    def value(self, path: KeyPath, depth: int) -> None:
        kind = self.random.randint(0, 9)
        if kind == 0 and depth < 3:
            self.array(path, depth)
        elif kind == 1 and depth < 3:
            self.inline_table(path, depth)
        else:
            self.put(self.random.choice(SCALARS))

    def array(self, path: KeyPath, depth: int) -> None:
        self.put("[")
        count = self.random.randint(0, 3)
        for index in range(count):
            self.put(self.blank_lines())
            self.mark((*path, index))
            self.value((*path, index), depth + 1)
            last = index == count - 1
            self.put(self.blank_lines() + ("" if last and self.random.random() < 0.5 else ","))
        self.put(self.blank_lines() + "]")

    def inline_table(self, path: KeyPath, depth: int) -> None:
        self.put("{")
        for index, name in enumerate(self.names(self.random.randint(0, 3))):
            self.put(("," if index else "") + self.blank())
            self.mark((*path, name))
            self.put(f"{self.key(name)} = ")
            self.value((*path, name), depth + 1)
        self.put("}")


SCALARS = (
    "1",
    "-0.5e3",
    "0xF",
    "true",
    "inf",
    "1979-05-27T07:32:00Z",
    "1979-05-27 07:32:00",
    "07:32:00",
    '""',
    "''",
    '"plain # ] } , = text"',
    '"quo\\"te \\\\"',
    "'C:\\temp'",
    '"""x\nb = 1\n[c]\n"""',
    '""""quoted"""""',
    '"""\\""" \\\n  go on"""',
    "'''\n[no.header]\n''x'''''",
    '""""""',
    "''''''",
)


@settings(deadline=None, max_examples=300)
@given(st.randoms(use_true_random=False))
def test_every_key_stands_on_the_line_where_it_was_written(random: Random) -> None:
    writer = Writer(random)
    writer.table(())
    document = tomllib.loads(writer.text)
    assert {path: writer.lines[path] for path in paths_of(document)} == writer.lines
    assert locate_keys(writer.text) == writer.lines


def test_a_table_stands_at_its_own_header_although_one_inside_it_came_first() -> None:
    text = "[models.x.price]\ninput = 1\n\n[models.x]\ndeployments = []\n"
    lines = locate_keys(text)
    assert lines["models", "x", "price"] == 1
    assert lines["models", "x"] == 4
    assert lines["models", "x", "deployments"] == 5


def test_a_table_inside_an_array_of_tables_belongs_to_the_item_above_it() -> None:
    text = "[[a]]\n[a.b]\nc = 1\n[[a]]\n[[a.d]]\n[a.b]\nc = 2\n[[a.d]]\n"
    assert locate_keys(text) == {
        ("a",): 1,
        ("a", 0): 1,
        ("a", 0, "b"): 2,
        ("a", 0, "b", "c"): 3,
        ("a", 1): 4,
        ("a", 1, "d"): 5,
        ("a", 1, "d", 0): 5,
        ("a", 1, "b"): 6,
        ("a", 1, "b", "c"): 7,
        ("a", 1, "d", 1): 8,
    }


@pytest.mark.parametrize(
    "quoted", ['"\\b\\t\\n\\f\\r\\"\\\\"', '"\\u00e9\\U0001F600"', '"\\\\u00e9"', '"no escape"']
)
def test_escapes_mean_what_they_mean_to_tomllib(quoted: str) -> None:
    assert unescape(quoted[1:-1]) == tomllib.loads(f"a = {quoted}")["a"]
