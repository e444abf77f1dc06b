"""Telling callers by their API keys, from memory: the hot path never asks the database.

The keys are read again every second in a thread of their own, so that a revocation counts within seconds in every
process. While the database is away, the keys as last read go on counting for ``TRUSTED_FOR_S``; after that nobody can be
told from a revoked caller and everyone gets 503, not 401. That costs nobody anything: without the database no request
could be committed either, and a sender that is told 503 sends again, while 401 makes many give up.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from infra.store import keys as store
from producers.door.callers import Caller
from producers.door.problems import RefusedError, unavailable
from schemas.keys import (
    SIGNATURE_TOLERANCE_S,
    Grant,
    digest,
    is_signed,
    is_timely,
    parse_signature,
    spend,
    token_key_id,
)

log = structlog.get_logger()

READ_EVERY_S: Final = 1.0
TRUSTED_FOR_S: Final = 60.0
_NEVER: Final = math.inf


@dataclass(frozen=True, slots=True)
class _Secret:
    sha256: bytes
    signing: str | None
    ends_at: float


@dataclass(frozen=True, slots=True)
class _Key:
    """A key in memory; its instants are on this process's monotonic clock, measured out on the database's."""

    grant: Grant
    caller: Caller
    revoked: bool
    ends_at: float
    secrets: tuple[_Secret, ...]


class KeyRing:
    """A Gatekeeper that knows the API keys. It owns the engine, and reads with it alone."""

    def __init__(self, engine: Engine, *, read_every_s: float = READ_EVERY_S) -> None:
        """Connects to nothing yet."""
        self._read_every_s = read_every_s
        self._engine = engine
        self._keys: dict[int, _Key] = {}
        self._read_at = -_NEVER
        self._spent_until: dict[int, float] = {}
        self._failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reading-keys", daemon=True)

    def start(self) -> None:
        """Read the keys, or find that the database is away, and go on reading in the background."""
        self._read()
        if not self._keys and self._read_at > -_NEVER:
            log.warning("keys.none", remedy="make one: holdfire keys create NAME")
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._engine.dispose()

    def admit(self, headers: dict[bytes, bytes], body: bytes) -> Caller:
        """Who sent this; see ``Gatekeeper``. Some six microseconds, or twenty to check a signature."""
        now = time.monotonic()
        if now - self._read_at > TRUSTED_FOR_S:
            raise unavailable("the API keys cannot be read now. Nothing was taken; send it again")
        signature = headers.get(b"x-holdfire-signature")
        if signature is not None:
            key = self._signed_by(signature.decode("latin-1"), body, now)
        else:
            key = self._holding(_token(headers), now)
        self._spend(key, now)
        return key.caller

    def _holding(self, token: str, now: float) -> _Key:
        key_id = token_key_id(token)
        key = None if key_id is None else self._keys.get(key_id)
        hashed = digest(token)
        # Every secret is compared: a rotated key takes as long as any other.
        fitting = [each for each in key.secrets if compare_digest(each.sha256, hashed)] if key else []
        if key is None or not fitting:
            raise _refused("wrong_key", "the API key is not known here. Check that it was copied whole")
        _check_good(key, fitting[0].ends_at, now)
        if key.grant.signs:
            raise _refused(
                "signing_key",
                "this key is for signing requests, and must not be sent itself. Rotate it, and sign with X-Holdfire-Signature",
            )
        return key

    def _signed_by(self, header: str, body: bytes, now: float) -> _Key:
        signature = parse_signature(header)
        if signature is None:
            raise _refused(
                "malformed_signature",
                "X-Holdfire-Signature is not t=<unix seconds>,key=<id>,v1=<64 hex digits>. Send all three",
            )
        if not is_timely(signature, time.time()):
            raise _refused(
                "old_signature",
                f"the signature's t is more than {SIGNATURE_TOLERANCE_S} s from this server's clock. "
                "Sign each request as it is sent, in unix seconds, and set the clock",
            )
        key = self._keys.get(signature.key_id)
        signing = [
            each.signing
            for each in (key.secrets if key else ())
            if each.signing is not None and now < each.ends_at
        ]
        if key is None or not is_signed(signature, signing, body):
            raise _refused(
                "wrong_signature",
                "the signature does not fit, or its key is not known here, or was revoked or rotated away. Sign "
                "'<t>.<body>' with HMAC-SHA256, the body as it travels, keyed by the whole hf_… text",
            )
        _check_good(key, _NEVER, now)
        return key

    def _spend(self, key: _Key, now: float) -> None:
        if key.grant.per_second is None:
            return
        number = key.caller.key_id
        until, wait_s = spend(self._spent_until.get(number, 0.0), now, key.grant.per_second)
        if wait_s > 0:
            raise RefusedError(
                429,
                "too_many_requests",
                f"the key {key.grant.name!r} may send {key.grant.per_second} requests a second. "
                "Slow down, or send more events in each request",
                ((b"retry-after", b"%d" % math.ceil(wait_s)),),
            )
        self._spent_until[number] = until

    def _run(self) -> None:
        while not self._closing.wait(self._read_every_s):
            self._read()

    def _read(self) -> None:
        before = time.monotonic()
        try:
            found = store.known(self._engine)
        except SQLAlchemyError as error:
            if not self._failing:  # once, not every second
                log.warning("keys.not_read", error=type(error).__name__, trusted_for_s=TRUSTED_FOR_S)
            self._failing = True
            return
        if self._failing:
            log.info("keys.read", count=len(found))
        self._failing = False
        # Whole dictionaries are put in place of the old: a request sees the keys before, or after.
        self._keys = {each.key_id: _in_memory(each, before) for each in found}
        self._read_at = before


def _in_memory(known: store.Known, read_at: float) -> _Key:
    grant = known.grant
    return _Key(
        grant,
        Caller(known.key_id, grant.name, grant.sources, grant.events),
        known.revoked,
        _ends_at(known.good_for_s, read_at),
        tuple(_Secret(s.sha256, s.signing, _ends_at(s.good_for_s, read_at)) for s in known.secrets),
    )


def _ends_at(good_for_s: float | None, read_at: float) -> float:
    return _NEVER if good_for_s is None else read_at + good_for_s


def _token(headers: dict[bytes, bytes]) -> str:
    """The key that a request shows. Raises RefusedError if it shows none."""
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, token = authorization.decode("latin-1").strip().partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
    elif (token_alone := headers.get(b"x-api-key")) is not None:
        return token_alone.decode("latin-1").strip()
    raise _refused(
        "no_credentials",
        "no API key came with the request. Send 'Authorization: Bearer hf_…' or 'X-API-Key: hf_…', or sign it; "
        "`holdfire keys create` makes a key",
        challenge=b'Bearer realm="holdfire"',
    )


def _check_good(key: _Key, secret_ends_at: float, now: float) -> None:
    """Whoever holds the secret may know what became of it; nobody else is told."""
    if key.revoked:
        raise _refused("revoked_key", f"the key {key.grant.name!r} was revoked. Ask for another one")
    if now >= key.ends_at:
        raise _refused("expired_key", f"the key {key.grant.name!r} has expired. Ask for another one")
    if now >= secret_ends_at:
        raise _refused("rotated_key", f"the key {key.grant.name!r} was rotated. Use its newer secret")


def _refused(
    code: str, detail: str, challenge: bytes = b'Bearer realm="holdfire", error="invalid_token"'
) -> RefusedError:
    return RefusedError(401, code, detail, ((b"www-authenticate", challenge),))
