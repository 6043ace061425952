"""Requests out of bytes: in any pieces the same, and never more than was allowed."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper._server.incoming import MAX_HEAD, MAX_HEADERS, MAX_TARGET, RequestParser
from tollkeeper.errors import Refused

MAX_BODY = 1000

GET = b"GET /v1/models?limit=2 HTTP/1.1\r\nhost: a\r\n\r\n"
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Two: 1\r\nx-two: 2\r\n"
    b"Content-Length: 5\r\n\r\nhello"
)
CHUNKED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3;ext=1\r\nhel\r\n2\r\nlo\r\n0\r\ntrailer: x\r\n\r\n"
)

Seen = tuple[str, str, bytes, dict[str, str], bytes, bool, bool]


def parse(*pieces: bytes) -> RequestParser:
    parser = RequestParser(MAX_BODY)
    for piece in pieces:
        parser.feed(piece)
    return parser


def seen(parser: RequestParser) -> list[Seen]:
    """What came out, as plain data."""
    return [
        (r.method, r.path, r.query, r.headers, b"".join(r.chunks), r.complete, r.keep_alive)
        for r in parser.requests
    ]


def refusal_of(*pieces: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        parse(*pieces)
    return caught.value


def bytewise(data: bytes) -> Sequence[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def test_a_request_is_read_with_names_in_lower_case_and_repeated_headers_joined() -> None:
    (request,) = parse(POST).requests
    assert (request.method, request.path, request.query) == ("POST", "/v1/chat/completions", b"")
    assert request.headers == {"host": "a", "x-two": "1, 2", "content-length": "5"}
    assert request.raw_headers == [
        (b"host", b"a"),
        (b"x-two", b"1"),
        (b"x-two", b"2"),
        (b"content-length", b"5"),
    ]
    assert (b"".join(request.chunks), request.complete, request.version) == (b"hello", True, "1.1")


@pytest.mark.parametrize("data", [GET, POST, CHUNKED, GET + POST + CHUNKED + GET])
def test_requests_are_the_same_byte_by_byte(data: bytes) -> None:
    whole = seen(parse(data))
    assert len(whole) == data.count(b" HTTP/1.1\r\n")
    assert all(complete for *_, complete, _ in whole)
    assert seen(parse(*bytewise(data))) == whole


@settings(deadline=None)
@given(st.lists(st.sampled_from([GET, POST, CHUNKED]), min_size=1, max_size=4), st.data())
def test_requests_are_the_same_in_any_pieces(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert seen(parse(*pieces)) == seen(parse(stream))


def test_a_head_is_there_before_its_body() -> None:
    parser = parse(POST[:-3])
    (request,) = parser.requests
    assert (b"".join(request.chunks), request.complete) == (b"he", False)
    assert not parser.in_head
    parser.feed(POST[-3:])
    assert (b"".join(request.chunks), request.complete) == (b"hello", True)


def test_a_head_that_has_begun_and_is_not_whole_shows() -> None:
    parser = RequestParser(MAX_BODY)
    assert not parser.in_head
    parser.feed(b"GET /v1")
    assert parser.in_head
    parser.feed(GET[len(b"GET /v1") :])
    assert not parser.in_head


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/v1/models/org%2Fname", "/v1/models/org/name", b""),
        (b"/v1/models/a%20b?x=%2F", "/v1/models/a b", b"x=%2F"),
        (b"/caf%C3%A9", "/café", b""),
        (b"/%FF", "/\ufffd", b""),
        (b"/a?b?c", "/a", b"b?c"),
        (b"*", "*", b""),
    ],
)
def test_a_path_is_percent_decoded_and_a_query_is_not(
    target: bytes, path: str, query: bytes
) -> None:
    (request,) = parse(b"OPTIONS %b HTTP/1.1\r\nhost: a\r\n\r\n" % target).requests
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    ("line", "header", "keep_alive"),
    [
        (b"HTTP/1.1", b"x: y", True),
        (b"HTTP/1.1", b"connection: close", False),
        (b"HTTP/1.0", b"x: y", False),
        (b"HTTP/1.0", b"connection: keep-alive", True),
    ],
)
def test_whether_the_connection_stays_is_what_both_versions_say(
    line: bytes, header: bytes, keep_alive: bool
) -> None:
    (request,) = parse(b"GET / %b\r\nhost: a\r\n%b\r\n\r\n" % (line, header)).requests
    assert request.keep_alive is keep_alive


def test_a_client_that_waits_to_be_told_to_go_on_is_recognised() -> None:
    (request,) = parse(POST.replace(b"X-Two: 1", b"Expect: 100-Continue")[:-5]).requests
    assert request.expects_continue
    assert not parse(POST).requests[0].expects_continue


@pytest.mark.parametrize("how", ["whole", "byte by byte"])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * MAX_TARGET), 414),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: %b\r\n\r\n" % (b"a" * MAX_HEAD), 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\n%b: y\r\n\r\n" % (b"a" * MAX_HEAD), 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\n%b\r\n" % (b"x: y\r\n" * (MAX_HEADERS + 1)), 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\n%b\r\n" % (b"x: %b\r\n" % (b"y" * 1000) * 33), 431),
    ],
    ids=["target", "header", "header name", "many headers", "much in all"],
)
def test_a_head_beyond_the_limits_is_refused_in_whatever_pieces_it_comes(
    head: bytes, status: int, how: str
) -> None:
    refusal = refusal_of(head) if how == "whole" else refusal_of(*bytewise(head))
    assert (refusal.status, refusal.code) == (status, "invalid_request")


def test_a_head_that_never_ends_is_refused_before_it_does() -> None:
    assert refusal_of(b"GET / HTTP/1.1\r\nhost: a\r\nx: ", *[b"a" * 8192] * 5).status == 431
    assert refusal_of(b"GET /", *[b"a" * 8192] * 2).status == 414


def test_a_head_just_within_the_limits_is_taken() -> None:
    headers = b"x: %b\r\n" % (b"y" * 300) * (MAX_HEADERS - 1)
    (request,) = parse(b"GET / HTTP/1.1\r\nhost: a\r\n%b\r\n" % headers).requests
    assert len(request.raw_headers) == MAX_HEADERS
    (request,) = parse(b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * (MAX_TARGET - 1))).requests
    assert len(request.target) == MAX_TARGET


def test_a_large_body_is_no_part_of_the_next_head() -> None:
    body = b"x" * MAX_BODY
    post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (MAX_BODY, body)
    parser = RequestParser(MAX_BODY)
    for _ in range(2 * MAX_HEAD // MAX_BODY):
        parser.feed(post[:-10])
        parser.feed(post[-10:])
    assert all(request.complete for request in parser.requests)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nspace : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhello\r\n",
    ],
)
@pytest.mark.parametrize("how", ["whole", "byte by byte"])
def test_what_is_no_http_is_a_400(data: bytes, how: str) -> None:
    refusal = refusal_of(data) if how == "whole" else refusal_of(*bytewise(data))
    assert (refusal.status, refusal.code) == (400, "invalid_request")


def test_a_good_request_before_a_bad_one_is_still_there() -> None:
    parser = RequestParser(MAX_BODY)
    with pytest.raises(Refused):
        parser.feed(POST + b"garbage\r\n\r\n")
    assert [request.complete for request in parser.requests] == [True]


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_body_beyond_the_limit_is_counted_and_not_kept(framing: str) -> None:
    size = MAX_BODY + 500
    parser = RequestParser(MAX_BODY)
    if framing == "chunked":
        parser.feed(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % size
        )
    else:
        parser.feed(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
    for _ in range(size // 100):
        parser.feed(b"x" * 100)
    (request,) = parser.requests
    assert request.body_size == size
    assert request.chunks == []


def test_a_body_of_just_the_limit_is_kept() -> None:
    (request,) = parse(
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % MAX_BODY, b"x" * MAX_BODY
    ).requests
    assert b"".join(request.chunks) == b"x" * MAX_BODY


@pytest.mark.parametrize("how", ["whole", "byte by byte"])
def test_what_follows_a_body_is_no_header_of_the_request(how: str) -> None:
    data = CHUNKED.replace(b"trailer: x", b"authorization: Bearer tk-forged")
    parser = parse(data) if how == "whole" else parse(*bytewise(data))
    (request,) = parser.requests
    assert request.complete
    assert [name for name, _ in request.raw_headers] == [b"host", b"transfer-encoding"]
    assert request.headers.keys() == {"host", "transfer-encoding"}


def test_what_follows_a_body_does_not_become_part_of_the_next_request() -> None:
    _, second = parse(CHUNKED, GET).requests
    assert second.headers == {"host": "a"}


def test_what_follows_a_body_is_limited_too() -> None:
    refusal = refusal_of(CHUNKED[:-4], *[b"x" * 8192] * 6)
    assert refusal.status in (400, 431)


UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n"


def with_upgrade(data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    return head + b"\r\n" + UPGRADE + b"\r\n" + body


@pytest.mark.parametrize("how", ["whole", "byte by byte"])
@pytest.mark.parametrize(
    "data",
    [GET, POST, CHUNKED, POST.replace(b"5\r\n\r\nhello", b"00\r\n\r\n")],
    ids=["GET", "POST", "chunked", "empty"],
)
def test_a_request_that_would_switch_protocols_is_read_as_plain_http(data: bytes, how: str) -> None:
    data = with_upgrade(data)
    (request,) = (parse(data) if how == "whole" else parse(*bytewise(data))).requests
    assert request.complete
    assert b"".join(request.chunks) == (b"hello" if b"hel" in data else b"")
    head = data.partition(b"\r\n\r\n")[0].lower()
    assert [b"%b: %b" % header for header in request.raw_headers] == head.split(b"\r\n")[1:]
    assert parse(data, GET).requests[-1].path == "/v1/models"


@pytest.mark.parametrize("how", ["whole", "byte by byte"])
def test_a_request_behind_one_that_would_switch_protocols_is_read_or_never_awaited(
    how: str,
) -> None:
    data = with_upgrade(GET) + POST
    requests = (parse(data) if how == "whole" else parse(*bytewise(data))).requests
    assert requests[0].complete
    if requests[0].keep_alive:
        assert [request.method for request in requests] == ["GET", "POST"]
        assert b"".join(requests[1].chunks) == b"hello"
