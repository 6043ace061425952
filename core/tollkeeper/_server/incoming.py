"""Requests as they arrive on a connection: httptools' callbacks turned into plain objects."""

import functools
import re
from collections import deque
from urllib.parse import unquote

import httptools

from tollkeeper.errors import ApiError, invalid_request

MAX_TARGET = 8192
MAX_HEAD = 32768
MAX_HEADERS = 100
_HOST = re.compile(
    rb"(?:[\w-]{1,63}(?:\.[\w-]{1,63}){0,16}\.?|\[[\da-fA-F:.]{2,45}\]|)(?::\d{1,5})?"
)
"""A name, an address, or nothing: what frameworks make of anything else is not to be relied on."""
_ONE_HOST = "A request has one Host header."
_ABSOLUTE = re.compile(rb"^https?://[^/?#]*", re.IGNORECASE)
"""What a proxy's request puts before the path; the host in it decides nothing here."""


class Incoming:
    """One request. The head is whole; the body grows until `complete`."""

    __slots__ = (
        "body_size",
        "chunks",
        "complete",
        "expects_continue",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "raw_headers",
        "raw_path",
        "target",
        "version",
    )

    def __init__(
        self, method: str, target: bytes, raw_headers: list[tuple[bytes, bytes]], version: str
    ) -> None:
        self.method = method
        self.target = target
        self.raw_headers = raw_headers
        self.version = version
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in raw_headers
        }
        if len(self.headers) != len(raw_headers):
            self.headers = _joined(raw_headers)
        origin = target if target.startswith(b"/") else _ABSOLUTE.sub(b"", target) or b"/"
        path, _, self.query = origin.partition(b"?")
        self.raw_path = path
        self.path = path.decode("latin-1")
        if b"%" in path:
            self.path = unquote(self.path)
        self.keep_alive = True
        self.expects_continue = self.headers.get("expect", "").lower() == "100-continue"
        self.chunks: list[bytes] = []
        self.body_size = 0
        self.complete = False


def _joined(raw_headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers of which some stand twice, their values joined as HTTP joins them."""
    headers: dict[str, str] = {}
    for name, value in raw_headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


class RequestParser:
    """Bytes in, `requests` out. Raises `Refused` once for input that is not HTTP, or too large."""

    def __init__(self, max_body: int) -> None:
        self.requests: deque[Incoming] = deque()
        self._max_body = max_body
        self._parser = httptools.HttpRequestParser(self)
        self._current: Incoming | None = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._unseen = 0
        """Bytes fed since the parser last handed something whole out."""
        self._refusal: ApiError | None = None
        self.in_head = False
        """Whether a request has begun whose head is not whole."""

    def feed(self, data: bytes) -> None:
        """Parse more bytes. After an exception the connection can only be closed."""
        self._unseen += len(data)
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserError as error:
            raise self._refusal or invalid_request(f"Malformed HTTP: {error}") from None
        if self._unseen > MAX_HEAD:
            raise _head_too_large()

    def _parse(self, data: bytes) -> bytes:
        """Parse; what is left where a request asks for another protocol. It is not switched to."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parser = httptools.HttpRequestParser(self)
            self._resume_body()
            return data[upgrade.args[0] :]
        return b""

    def _resume_body(self) -> None:
        """Go on with the body, if any, of a request that the parser took for an upgrade."""
        request = self.requests[-1]
        for name in ("transfer-encoding", "content-length"):
            if (value := request.headers.get(name, "0")).strip("0"):
                request.complete, self._current = False, request
                self._parser = httptools.HttpRequestParser(_Resumed(self))
                head = f"{request.method} / HTTP/1.1\r\n{name}: {value}\r\n\r\n"
                self._parser.feed_data(head.encode("latin-1"))
                return

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.in_head = True
        self._target, self._headers, self._unseen = b"", [], 0

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._target += url
        if len(self._target) > MAX_TARGET:
            self._refuse(invalid_request("The request target is too long.", status=414))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header, or one behind the body, which is counted and dropped."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if len(self._headers) > MAX_HEADERS or _size_of(self._headers) > MAX_HEAD:
            self._refuse(_head_too_large())
        parser = self._parser
        request = Incoming(
            parser.get_method().decode("ascii"),
            self._target,
            self._headers,
            parser.get_http_version(),
        )
        if (refusal := refusal_of(request)) is not None:
            self._refuse(refusal)
        request.keep_alive = bool(parser.should_keep_alive())
        self.in_head = False
        self._headers, self._unseen = [], 0
        self._current = request
        self.requests.append(request)

    def on_body(self, body: bytes) -> None:
        """A part of the body. Beyond the limit it is counted, not kept."""
        request = self._current
        self._unseen = 0
        if request is not None:
            request.body_size += len(body)
            if request.body_size <= self._max_body:
                request.chunks.append(body)
            else:
                request.chunks.clear()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._unseen = 0
        if self._current is not None:
            self._current.complete = True
            self._current = None

    def _refuse(self, refusal: ApiError) -> None:
        self._refusal = self._refusal or refusal
        raise refusal  # httptools turns it into a parser error; `feed` raises the refusal


class _Resumed:
    """Feeds a parser from behind the head of a request that it knows already."""

    def __init__(self, parser: RequestParser) -> None:
        self._parser = parser
        self._head_over = False
        self.on_body = parser.on_body
        self.on_message_complete = parser.on_message_complete

    def on_message_begin(self) -> None:
        if self._head_over:
            self._parser.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._head_over:
            self._parser.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_over:
            self._parser.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head_over:
            self._parser.on_headers_complete()
        self._head_over = True


def _size_of(headers: list[tuple[bytes, bytes]]) -> int:
    return sum([len(name) + len(value) for name, value in headers])


def refusal_of(request: Incoming) -> ApiError | None:
    """What HTTP wants refused beyond what the parser does: RFC 9112, sections 2.3, 3.2 and 6.1."""
    if request.version not in ("1.0", "1.1"):
        message = f"HTTP/{request.version} is not spoken here, but HTTP/1.1."
        return invalid_request(message, status=505)
    encoding = request.headers.get("transfer-encoding")
    if encoding is not None and request.version == "1.0":
        return invalid_request("HTTP/1.0 has no transfer encodings.")
    if encoding is not None and encoding.lower() != "chunked":
        return invalid_request("The only transfer encoding is chunked.", status=501)
    host = request.headers.get("host")
    if host is None:
        return None if request.version == "1.0" else invalid_request(_ONE_HOST)
    if _is_host(host):
        return None
    twice = [name for name, _ in request.raw_headers].count(b"host") > 1
    return invalid_request(_ONE_HOST if twice else "The Host header is no host.")


@functools.lru_cache(maxsize=256)
def _is_host(host: str) -> bool:
    return _HOST.fullmatch(host.encode("latin-1")) is not None


def _head_too_large() -> ApiError:
    return invalid_request("The head of the request is too large.", status=431)
