"""Access tokens: made and read. Nothing here asks the database or the time."""

import base64
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from tollkeeper import PluginError, Refused, Secret
from tollkeeper.jsongate import read_object
from tollkeeper_accounts.settings import MAX_ACCESS_SECONDS

ALGORITHM = "HS256"
HEADER = {"alg": ALGORITHM, "typ": "JWT"}
ISSUER = AUDIENCE = "tollkeeper"
CLAIMS = frozenset({"iss", "aud", "sub", "jti", "iat", "exp", "epoch"})
LEEWAY = 5
"""Seconds that the clocks of two processes may differ by."""

_SHAPE = re.compile(r"([\w-]{16,512})\.([\w-]{16,2048})\.[\w-]{43}", re.ASCII)
_USER = re.compile(r"usr_[0-9a-f]{16}")
_ID = re.compile(r"(ses_[0-9a-f]{16})\.[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid access token says."""

    user: str
    session: str
    """The login it came from."""
    id: str
    epoch: int


class Tokens:
    """Signs with one secret and takes what that one or an earlier one has signed."""

    def __init__(self, secret: Secret, previous: Sequence[Secret] = ()) -> None:
        self._keys = [each.reveal().encode() for each in (secret, *previous)]
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})
        self._jws = jwt.PyJWS([ALGORITHM], options={"enforce_minimum_key_length": True})
        try:
            for key in self._keys:
                self._jwt.encode({}, key, ALGORITHM)
        except jwt.InvalidKeyError:
            message = "plugin accounts: jwt_secret cannot be used to sign; take a random text"
            raise PluginError(message) from None

    def issue(self, user: str, session: str, epoch: int, *, now: int, seconds: int) -> str:
        """An access token that is valid for so many seconds."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user,
            "jti": f"{session}.{secrets.token_hex(8)}",
            "iat": now,
            "exp": now + seconds,
            "epoch": epoch,
        }
        return self._jwt.encode(claims, self._keys[0], ALGORITHM)

    def read(self, token: str, now: float) -> Claims | None:
        """What a token says; None for one that we did not make or that is out of date."""
        match = _SHAPE.fullmatch(token)
        if match is None:
            return None
        if _object_in(match[1]) != HEADER or not self._is_signed(token):
            return None
        claims = _object_in(match[2])
        return _checked(claims, now) if claims is not None else None

    def _is_signed(self, token: str) -> bool:
        for key in self._keys:
            try:
                self._jws.decode(token, key, algorithms=[ALGORITHM])
            except jwt.PyJWTError:
                continue
            return True
        return False


def _checked(claims: dict[str, Any], now: float) -> Claims | None:
    """Claims exactly as `issue` writes them: none is missing, none added, each of its type."""
    if claims.keys() != CLAIMS or claims["iss"] != ISSUER or claims["aud"] != AUDIENCE:
        return None
    issued, expires, epoch = claims["iat"], claims["exp"], claims["epoch"]
    if any(type(number) is not int for number in (issued, expires, epoch)):
        return None
    lives = 0 < expires - issued <= MAX_ACCESS_SECONDS and issued <= now + LEEWAY
    user, token_id = claims["sub"], claims["jti"]
    if not lives or expires <= now or not isinstance(user, str) or not isinstance(token_id, str):
        return None
    session = _ID.fullmatch(token_id)
    if session is None or _USER.fullmatch(user) is None:
        return None
    return Claims(user, session[1], token_id, epoch)


def _object_in(part: str) -> dict[str, Any] | None:
    """The JSON object in a part of a token, read strictly: no key twice, no odd number."""
    try:
        return read_object(_decoded(part))
    except (Refused, ValueError):
        return None


def _decoded(part: str) -> bytes:
    """Bytes of base64url without padding; none of what cannot be any."""
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return b""
