"""The key that bundles are signed with: Ed25519, made at first use, kept where only this user can read it.

The signature says that this installation made a bundle and that nobody changed it since. Whether a fingerprint belongs
to us, a receiver has to learn from us by another way.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from infra.settings import Settings

KEY_NAME = "evidence.pem"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class KeyUnusableError(ValueError):
    """A signing key that cannot be used: which file, why, and what to do. Says nothing of the key itself."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who signed. ``fingerprint``: SHA-256 of the key's DER form, hexadecimal, as OpenSSL shows it too."""

    key: Ed25519PublicKey

    @property
    def pem(self) -> bytes:
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        der = self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    def signed(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's, of these bytes."""
        try:
            self.key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


class Signer:
    """Signs with one private key. The same bytes give the same signature."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(data)


def open_signer(data_dir: Path) -> Signer:
    """The key in ``data_dir/keys``, made if there is none yet. Raises KeyUnusableError."""
    path = data_dir / "keys" / KEY_NAME
    if not path.exists():
        _make(path)
    return _load(path)


def signer_of(settings: Settings) -> Signer:
    """The key the settings name, which must be there, or else the local one. Raises KeyUnusableError."""
    if settings.signing_key_file is not None:
        return _load(settings.signing_key_file)
    return open_signer(settings.data_dir)


def known_key(settings: Settings) -> PublicKey | None:
    """This installation's own key if there is one already: none is made for looking."""
    path = settings.signing_key_file or settings.data_dir / "keys" / KEY_NAME
    return _load(path).public if path.exists() else None


def read_public_key(raw: bytes) -> PublicKey:
    """A public key in PEM. Raises ValueError."""
    key = load_pem_public_key(raw)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("no Ed25519 key")  # noqa: TRY004 — as for bytes that are no key at all
    return PublicKey(key)


def read_fingerprint(text: str) -> str | None:
    """A fingerprint as people copy it, with colons, blanks and capitals; None if it is none."""
    bare = re.sub(r"[:\s]", "", text.lower().removeprefix("sha256:"))
    return bare if _FINGERPRINT.fullmatch(bare) else None


def _load(path: Path) -> Signer:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(65_536)
    except OSError as error:
        raise KeyUnusableError(
            f"signing key {path}: {error.strerror}; give a file this user may read"
        ) from None
    if mode & 0o077:
        raise KeyUnusableError(
            f"signing key {path}: others may read it; run `chmod 600 {path}`, or make a new one"
        )
    try:
        key = load_pem_private_key(raw, None)
    except (ValueError, TypeError):  # TypeError: it has a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusableError(
            f"signing key {path}: no Ed25519 private key in PEM without a password; `openssl genpkey -algorithm ed25519` makes one"
        )
    return Signer(key)


def _make(path: Path) -> None:
    """Whole or not at all, and never in place of another's: two commands may come here at once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    handle, name = tempfile.mkstemp(dir=path.parent)  # for this user alone
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        made.unlink()
