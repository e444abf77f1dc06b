"""API keys: what one looks like, what it may do, and whether a request carries it. Pure: time and chance are arguments.

A key reads ``hf_<id>_<64 hex digits>``. The prefix makes a leaked one recognisable to scanners and to people, and the id
says which to revoke without trying any hash.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from schemas.problem import InvalidInputError, Problem

RANDOM_BYTES: Final = 32
SIGNATURE_TOLERANCE_S: Final = 300
"""How far a signature's time may be from ours: long enough for a slow sender, short enough that a copy is soon useless."""
BURST_S: Final = 1.0
"""A caller may use up this much of its rate at once."""
MAX_PER_SECOND: Final = 100_000

_TOKEN = re.compile(r"hf_([1-9][0-9]{0,8})_([0-9a-f]{64})", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)


def show_token(key_id: int, random: bytes) -> str:
    """The key as its holder sees it. ``random`` are ``RANDOM_BYTES`` from a cryptographic source."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key needs {RANDOM_BYTES} random bytes, not {len(random)}")
    return f"hf_{key_id}_{random.hex()}"


def token_key_id(token: str) -> int | None:
    """The id in a key, or None for what has not the shape of one."""
    found = _TOKEN.fullmatch(token)
    return int(found[1]) if found else None


def digest(token: str) -> bytes:
    """What is stored of a key.

    One round of SHA-256 and no salt: slow, salted hashes guard passwords, which can be guessed. 256 random bits cannot,
    however quick the hash, and this one is taken at every request.
    """
    return sha256(token.encode()).digest()


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key may do. Empty ``sources`` or ``events`` mean any; ``per_second`` requests, None without limit.

    ``signs``: requests are signed with it, and it never travels.
    """

    name: str
    sources: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    per_second: int | None = None
    signs: bool = False

    def check(self) -> None:
        """Raises InvalidInputError with every problem."""
        problems = [
            Problem("shape", field, f"{text!r} is no name", "Use up to 64 letters, digits and . _ : -")
            for field, texts in (("NAME", [self.name]), ("--source", self.sources))
            for text in sorted(texts)
            if not _NAME.fullmatch(text)
        ]
        problems += [
            Problem("shape", "--event", f"{text!r} is no event name", "Use 1 to 100 printable characters")
            for text in sorted(self.events)
            if not 1 <= len(text) <= 100 or not text.isprintable()
        ]
        if self.per_second is not None and not 1 <= self.per_second <= MAX_PER_SECOND:
            problems.append(
                Problem(
                    "range",
                    "--per-second",
                    f"is {self.per_second}",
                    f"Use 1 to {MAX_PER_SECOND:,} requests a second, or leave it out for no limit",
                )
            )
        if problems:
            raise InvalidInputError(problems)


@dataclass(frozen=True, slots=True)
class Signature:
    """``X-Holdfire-Signature: t=<unix seconds>,key=<id>,v1=<hex>``, with as many ``v1`` as the sender likes."""

    at_s: int
    key_id: int
    values: tuple[str, ...]


def parse_signature(header: str) -> Signature | None:
    """The signature in a header, or None for what is none. Parts that are not known are left to later versions."""
    at = key = None
    values: list[str] = []
    for part in header.split(",", 16):
        name, _, value = part.strip().partition("=")
        if name == "v1" and _SIGNATURE.fullmatch(value):
            values.append(value)
        elif name == "t" and _NUMBER.fullmatch(value):
            at = int(value)
        elif name == "key" and _NUMBER.fullmatch(value):
            key = int(value)
    return None if at is None or key is None or not values else Signature(at, key, tuple(values))


def sign(secret: str, at_s: int, body: bytes) -> str:
    """HMAC-SHA256 in hex of ``<at_s>.<body>``, keyed by the whole key's text; ``body`` as it travels, compressed or not."""
    return hmac.new(secret.encode(), b"%d." % at_s + body, sha256).hexdigest()


def is_signed(signature: Signature, secrets: Iterable[str], body: bytes) -> bool:
    """Whether one of the secrets made the signature; each is compared in constant time."""
    made = [sign(secret, signature.at_s, body) for secret in secrets]
    return any(hmac.compare_digest(each, value) for each in made for value in signature.values)


def is_timely(signature: Signature, now_s: float) -> bool:
    """Whether the signature was made about now."""
    return abs(now_s - signature.at_s) <= SIGNATURE_TOLERANCE_S


def spend(spent_until: float, now: float, per_second: float) -> tuple[float, float]:
    """Take one request off a rate: ``(spent_until, wait_s)``; with a wait above 0 it was not taken, and is due then.

    ``spent_until`` is when what was taken is paid for at that rate (0 to begin with), ``now`` on the same clock. This is
    a token bucket that holds ``BURST_S`` of the rate, at least one, kept as a single number.
    """
    burst_s = max(BURST_S, 1 / per_second)
    paid = max(spent_until, now) + 1 / per_second
    wait_s = paid - now - burst_s
    # A sum of many floats is a hair off; nobody is turned away for a nanosecond.
    return (paid, 0.0) if wait_s <= 1e-9 else (spent_until, wait_s)
