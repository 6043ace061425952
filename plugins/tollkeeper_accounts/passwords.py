"""Passwords: hashed slowly, in threads of their own number."""

import base64
import secrets
from dataclasses import dataclass

import argon2
import trio
from argon2.exceptions import InvalidHashError, VerificationError

THREADS = 2
"""Each hash takes 19 MiB and a processor for a while."""

_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def _nobody() -> str:
    """The hash of a password that nobody knows: as slow to check as any other."""
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).decode() for size in (16, 32))
    settings = f"m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}"
    return f"$argon2id$v=19${settings}${salt.rstrip('=')}${digest.rstrip('=')}"


_NOBODY = _nobody()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password was right."""

    is_right: bool
    rehashed: str | None = None
    """The hash to keep from now on, where the one that was kept is not as strong as it should."""


def hash_password(password: str) -> str:
    """What is stored of a password. Takes tens of milliseconds; not for the event loop."""
    return _HASHER.hash(_bytes(password))


def verify_password(hashed: str | None, password: str) -> Verdict:
    """Whether the password is the one that was hashed; as slow where there is no hash at all."""
    try:
        _HASHER.verify(hashed or _NOBODY, _bytes(password))
    except (VerificationError, InvalidHashError):
        return Verdict(is_right=False)
    if hashed is None:
        return Verdict(is_right=False)
    is_old = _HASHER.check_needs_rehash(hashed)
    return Verdict(is_right=True, rehashed=hash_password(password) if is_old else None)


class Passwords:
    """The same in threads, two at a time, so that logins do not slow down anybody's call."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(THREADS)

    async def hash(self, password: str) -> str:
        """`hash_password`."""
        return await trio.to_thread.run_sync(hash_password, password, limiter=self._limiter)

    async def verify(self, hashed: str | None, password: str) -> Verdict:
        """`verify_password`."""
        return await trio.to_thread.run_sync(
            verify_password, hashed, password, limiter=self._limiter
        )


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
