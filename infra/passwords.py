"""Passwords: argon2id, with the same work for accounts that are not there."""

from __future__ import annotations

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# RFC 9106, 4: the second recommended option (64 MiB, three passes).
_HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)
_AT_ONCE = threading.BoundedSemaphore(2)
"""Each takes 64 MiB: a crowd at the door must not take the machine's memory."""
_NOBODY = _HASHER.hash("nobody has this password")


def hash_password(password: str) -> str:
    """The argon2id hash, parameters and salt included."""
    with _AT_ONCE:
        return _HASHER.hash(password)


def verify(password: str, kept: str | None) -> bool:
    """Whether ``password`` is the one of the hash. For None, an account that is not there, as long a No."""
    with _AT_ONCE:
        try:
            return _HASHER.verify(_NOBODY if kept is None else kept, password) and kept is not None
        except (VerificationError, InvalidHashError):
            return False


def is_outdated(kept: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(kept)
