"""On which line of a TOML text each key stands.

`tomllib` parses but forgets where. This walks a text that tomllib has already accepted, so it
needs to recognise keys and skip values, never to judge them.
"""

import re

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)
_SCALAR = re.compile(r"[^\s,\]}#]+(?: \d[^\s,\]}#]*)?")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def locate_keys(text: str) -> dict[KeyPath, int]:
    """The 1-based line of every key, table header and array item of `text`."""
    return _Walker(text).walk()


class _Walker:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.lines: dict[KeyPath, int] = {}
        self.implied: set[KeyPath] = set()  # tables that only one inside them has named so far
        self.arrays: dict[KeyPath, int] = {}  # how many tables of an array of tables were seen

    def walk(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(_BLANK) < len(self.text):
            if self.text.startswith("[", self.position):
                table = self._header()
            else:
                self._member(table)
        return self.lines

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return self.position

    def _take(self, mark: str) -> bool:
        if self.text.startswith(mark, self.position):
            self.position += len(mark)
            return True
        return False

    def _mark(self, path: KeyPath) -> None:
        line = self.text.count("\n", 0, self.position) + 1
        for end in range(1, len(path)):
            if path[:end] not in self.lines:
                self.lines[path[:end]] = line
                self.implied.add(path[:end])
        if path not in self.lines or path in self.implied:
            self.lines[path] = line
            self.implied.discard(path)

    def _header(self) -> KeyPath:
        doubled = self._take("[[")
        if not doubled:
            self._take("[")
        path: KeyPath = ()
        for name in self._key():
            path = (*path, name)
            if path in self.arrays and not (doubled and path not in self.lines):
                path = (*path, self.arrays[path] - 1)
        if doubled:
            array = path[:-1] if isinstance(path[-1], int) else path
            self.arrays[array] = self.arrays.get(array, 0) + 1
            path = (*array, self.arrays[array] - 1)
        self._mark(path)
        self._take("]]" if doubled else "]")
        return path

    def _member(self, table: KeyPath) -> None:
        start = self.position
        path = (*table, *self._key())
        end, self.position = self.position, start
        self._mark(path)
        self.position = end
        self._take("=")
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_SPACE)
            parts.append(self._key_part())
            self._skip(_SPACE)
            if not self._take("."):
                return parts

    def _key_part(self) -> str:
        start = self.position
        if self.text[start] in "\"'":
            quoted = self._string()
            return unescape(quoted[1:-1]) if quoted[0] == '"' else quoted[1:-1]
        return self.text[start : self._skip(_BARE)]

    def _string(self) -> str:
        start = self.position
        for pattern in _STRINGS:
            if pattern.match(self.text, start):
                return self.text[start : self._skip(pattern)]
        raise ValueError(f"no string at {start}")

    def _value(self, path: KeyPath) -> None:
        if self._take("["):
            self._array(path)
        elif self._take("{"):
            self._inline_table(path)
        elif self.text[self.position] in "\"'":
            self._string()
        else:
            self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        index = 0
        while self._skip(_BLANK) < len(self.text) and not self._take("]"):
            self._mark((*path, index))
            self._value((*path, index))
            self._skip(_BLANK)
            self._take(",")
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while self._skip(_BLANK) < len(self.text) and not self._take("}"):
            self._member(path)
            self._skip(_BLANK)
            self._take(",")


def unescape(text: str) -> str:
    """A basic TOML string's content with its escapes resolved."""

    def resolve(match: re.Match[str]) -> str:
        code = match.group(1) or match.group(2)
        return chr(int(code, 16)) if code else _ESCAPES.get(match.group(3), match.group(3))

    return _ESCAPE.sub(resolve, text)
