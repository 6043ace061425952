"""Hostile input for the listener, generated from a seed that can be used again."""

from random import Random

GOOD = [
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer KEY\r\n"
    b"content-length: 46\r\n\r\n" + b'{"model":"m","messages":[],"temperature":0.25}',
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer KEY\r\n"
    b"transfer-encoding: chunked\r\n\r\n2e\r\n"
    + b'{"model":"m","messages":[],"temperature":0.25}'
    + b"\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
    b"http2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
]
PARTS = [
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"\xff\xfe", b"{", b"[" * 2000, b"%00",
    b"transfer-encoding: chunked\r\n", b"content-length: 7\r\n", b"content-length: 99999999999\r\n",
    b"expect: 100-continue\r\n", b"connection: close\r\n", b"content-encoding: gzip\r\n",
    b"HTTP/2.0", b"HTTP/1.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\\ud800", b"NaN", b"1e999",
    b"9" * 400, b'"', b'"model":"m",', b"../" * 20, b"\xe2\x80\xa8",
]  # fmt: skip


def hostile_inputs(seed: int, count: int, key: bytes) -> list[bytes]:
    """`count` inputs: good requests cut, doubled, mixed and salted, and plain noise."""
    random = Random(seed)
    return [_one(random).replace(b"KEY", key) for _ in range(count)]


def _one(random: Random) -> bytes:
    if random.random() < 0.05:
        return random.randbytes(random.randrange(1, 400))
    data = bytearray(random.choice(GOOD))
    for _ in range(random.choice([1, 1, 1, 2, 3, 8])):
        at = random.randrange(len(data) + 1)
        change = random.randrange(7)
        if change == 0:
            del data[at : at + random.choice([1, 1, 2, 7, 40])]
        elif change == 1 and data:
            data[at % len(data)] = random.randrange(256)
        elif change == 2:
            data[at:at] = data[at : at + random.randrange(1, 40)]
        elif change == 3:
            data += random.choice(GOOD)
        elif change == 4:
            del data[at:]
        else:
            data[at:at] = random.choice(PARTS)
    return bytes(data)
