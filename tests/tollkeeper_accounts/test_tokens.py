"""Access tokens: what we made is read, and nothing else."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from tollkeeper import PluginError, Secret
from tollkeeper_accounts.tokens import CLAIMS, HEADER, Claims, Tokens

SECRET = "0123456789abcdef0123456789abcdef"
OLD = "fedcba9876543210fedcba9876543210"
OTHER = "another secret of the same length"
NOW = 1_000_000
USER, SESSION = "usr_0123456789abcdef", "ses_0123456789abcdef"
TOKENS = Tokens(Secret(SECRET), [Secret(OLD)])

GOOD: dict[str, Any] = {
    "iss": "tollkeeper",
    "aud": "tollkeeper",
    "sub": USER,
    "jti": f"{SESSION}.0123456789abcdef",
    "iat": NOW,
    "exp": NOW + 900,
    "epoch": 0,
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def sign(header: object, claims: object, secret: str = SECRET, digest: str = "sha256") -> str:
    """A token with whatever header and claims, signed as it should; texts go in as they are."""
    parts = [
        b64(part.encode() if isinstance(part, str) else json.dumps(part).encode())
        for part in (header, claims)
    ]
    signed = ".".join(parts)
    return f"{signed}.{b64(hmac.digest(secret.encode(), signed.encode(), digest))}"


def with_claims(**changes: object) -> str:
    return sign(HEADER, {**GOOD, **changes})


def algorithms() -> Iterator[str]:
    names = ["none", "None", "nOnE", "NONE", "", "hs256", "HS256 ", "HS384", "HS512", "RS256"]
    names += ["ES256", "EdDSA", "PS256", "HS256\u0000", "null", "A256KW", "dir", "HS1"]
    claims = b64(json.dumps(GOOD).encode())
    for name in names:
        yield sign({**HEADER, "alg": name}, GOOD)
        for ending in ("", b64(b"x" * 32)):
            yield f"{b64(json.dumps({**HEADER, 'alg': name}).encode())}.{claims}.{ending}"
    odd: list[object] = [
        {"typ": "JWT"},
        {"alg": None, "typ": "JWT"},
        {"alg": ["HS256"]},
        [],
        "x",
        1,
    ]
    for header in odd:
        yield sign(header, GOOD)
    for digest in ("sha384", "sha512", "sha1", "md5"):
        yield sign(HEADER, GOOD, digest=digest)
    for algorithm in ("HS384", "HS512"):
        yield jwt.encode(GOOD, SECRET * 2, algorithm)
    yield jwt.encode(GOOD, "", "none")


def headers() -> Iterator[str]:
    hostile = ["../../../../dev/null", "' UNION SELECT 'x", "/proc/self/environ", "0", 0, None, ""]
    hostile += [["a"], {"kty": "oct", "k": b64(SECRET.encode())}, "http://127.0.0.1/keys", True]
    names = ("kid", "jku", "jwk", "x5u", "x5c", "x5t", "crit", "b64", "cty", "zip", "enc", "exp")
    for name in names:
        for value in hostile:
            yield sign({**HEADER, name: value}, GOOD)
    yield sign({**HEADER, "b64": False, "crit": ["b64"]}, GOOD)
    yield sign({**HEADER, "typ": "at+jwt"}, GOOD)
    yield sign({"alg": "HS256"}, GOOD)
    yield sign('{"alg":"HS256","typ":"JWT","alg":"HS256"}', GOOD)
    yield sign('{"alg":"none","typ":"JWT","alg":"HS256"}', GOOD)
    yield sign('{"alg":"HS256","\\u0061lg":"none","typ":"JWT"}', GOOD)
    yield sign("not json", GOOD)
    yield sign("[" * 5000, GOOD)


def claims() -> Iterator[str]:
    odd: list[object] = [None, "", "x", [], {}, True, False, -1, 0, 0.5, [USER], "1e9", " "]
    for name in CLAIMS:
        yield sign(HEADER, {key: value for key, value in GOOD.items() if key != name})
        for value in odd:
            if (name, value) != ("epoch", -1) and (name, value, type(value)) != ("epoch", 0, int):
                yield with_claims(**{name: value})


def times() -> Iterator[str]:
    for expires in (1e18, 10**18, 2**63 - 1, 2**63, 10**30, NOW, NOW - 1, NOW + 86_401, NOW + 0.5):
        yield with_claims(exp=expires)
    for text in ("1e18", "1e999", "NaN", "Infinity", "-Infinity", '"1000900"', "1000900.0"):
        yield sign(HEADER, json.dumps(GOOD).replace(f": {NOW + 900}", f": {text}"))
    for issued in (NOW + 6, NOW + 900, NOW + 10**9, -(10**18), NOW - 86_400, float(NOW)):
        yield with_claims(iat=issued)


def texts() -> Iterator[str]:
    for other in ("tollkeeper ", "Tollkeeper", "other", ["tollkeeper"], ["tollkeeper", "x"]):
        yield with_claims(aud=other)
        yield with_claims(iss=other)
    for user in ("usr_", USER + "\n", USER.upper(), USER + "0", "usr_' OR 1=1 --", "ses_1"):
        yield with_claims(sub=user)
    for token in (SESSION, SESSION + ".", GOOD["jti"] + "\n", GOOD["jti"] + "0", "x.y", USER):
        yield with_claims(jti=token)
    for extra in ("nbf", "role", "org", "admin", "scope", "token_type", "kid", "Exp"):
        yield with_claims(**{extra: NOW + 100})
        yield with_claims(**{extra: NOW - 100})


def payloads() -> Iterator[str]:
    for name, value in GOOD.items():
        whole = json.dumps(GOOD)
        yield sign(HEADER, f'{whole[:-1]}, "{name}": {json.dumps(value)}}}')
        yield sign(HEADER, f'{{"{name}": "x", {whole[1:]}')
    for text in ("", "null", "[]", "1", '"x"', "{", json.dumps([GOOD]), json.dumps(GOOD) + "x"):
        yield sign(HEADER, text)


def mangled() -> Iterator[str]:
    good = sign(HEADER, GOOD)
    head, body, signature = good.split(".")
    for cut in range(1, len(good), 7):
        yield good[:-cut]
    for index in range(0, len(good), 5):
        yield f"{good[:index]}{'A' if good[index] != 'A' else 'B'}{good[index + 1 :]}"
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for character in alphabet:
        if character != signature[-1]:
            yield good[:-1] + character  # some of these are the same bytes
    for extra in (".", "..", "=", "==", " ", "\n", "\x00", "é", "🔑", "\ud800", ".x", "%00", ","):
        yield good + extra
        yield extra + good
        yield f"{head}.{body}{extra}.{signature}"
        yield f"{head}.{body}.{extra}{signature}"
    yield from (f"{head}.{body}", f"{head}..{signature}", f".{body}.{signature}", "..", ".", "")
    yield from (good.replace(".", ""), good + good, f"{head}.{head}.{body}.{signature}")
    yield from ("tk-" + "a" * 43, "x" * 100_000, "." * 100_000, f"{head}.{'A' * 100_000}.{body}")
    for secret in (OTHER, "", " " * 32, SECRET[:-1], SECRET + " ", SECRET.upper(), "secret"):
        yield sign(HEADER, GOOD, secret)
    hashed = hashlib.sha256(SECRET.encode()).hexdigest()
    yield sign(HEADER, GOOD, hashed)


FAMILIES = (algorithms, headers, claims, times, texts, payloads, mangled)
FORGED = {family.__name__: list(family()) for family in FAMILIES}


def test_there_are_enough_forgeries_to_mean_something() -> None:
    assert len({token for family in FORGED.values() for token in family}) >= 500


@pytest.mark.parametrize("family", FORGED)
def test_a_forged_token_says_nothing(family: str) -> None:
    taken = [token for token in FORGED[family] if TOKENS.read(token, NOW) is not None]
    assert not taken


def test_a_token_by_the_means_of_the_forgeries_is_taken_where_all_is_right() -> None:
    expected = Claims(USER, SESSION, GOOD["jti"], 0)
    assert TOKENS.read(sign(HEADER, GOOD), NOW) == expected
    assert TOKENS.read(jwt.encode(GOOD, SECRET, "HS256"), NOW) == expected


def test_a_token_that_was_issued_is_valid_from_then_on_until_it_expires() -> None:
    token = TOKENS.issue(USER, SESSION, 3, now=NOW, seconds=60)
    claims = TOKENS.read(token, NOW)
    assert claims is not None
    assert (claims.user, claims.session, claims.epoch) == (USER, SESSION, 3)
    assert TOKENS.read(token, NOW + 59.9) == claims
    assert TOKENS.read(token, NOW + 60) is None
    assert TOKENS.read(token, NOW - 5) == claims
    assert TOKENS.read(token, NOW - 6) is None


def test_two_tokens_of_a_session_are_never_the_same() -> None:
    issued = {TOKENS.issue(USER, SESSION, 0, now=NOW, seconds=60) for _ in range(100)}
    assert len(issued) == 100


def test_what_an_earlier_secret_signed_is_taken_until_that_secret_is_gone() -> None:
    token = Tokens(Secret(OLD)).issue(USER, SESSION, 0, now=NOW, seconds=60)
    assert TOKENS.read(token, NOW) is not None
    assert Tokens(Secret(SECRET)).read(token, NOW) is None
    assert Tokens(Secret(OLD)).read(TOKENS.issue(USER, SESSION, 0, now=NOW, seconds=9), NOW) is None


@pytest.mark.parametrize("secret", ["too short", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ== me@x"])
def test_a_secret_that_cannot_sign_stops_the_start_and_is_not_shown(secret: str) -> None:
    for secrets in ([secret], [SECRET, secret]):
        with pytest.raises(PluginError) as caught:
            Tokens(Secret(secrets[0]), [Secret(text) for text in secrets[1:]])
        assert "jwt_secret" in str(caught.value)
        assert secret not in str(caught.value)
