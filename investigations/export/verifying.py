"""Whether a bundle is what was handed over: every file there and unchanged, nothing added, and signed by whom.

A bundle comes from outside, so nothing in it is believed before it is checked: names are never used as paths, and no more
is unpacked than the manifest, and a bound on it, allow.
"""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from investigations.export.manifest import KEY, MANIFEST, SIGNATURE, UNLISTED, Manifest, read_manifest
from investigations.export.signing import PublicKey, read_public_key
from investigations.words import visible

LARGEST_MANIFEST_BYTES = 256 << 20
LARGEST_RATIO = 400
"""How much more than the whole zip may be unpacked of it. Evidence is repetitive, but not so repetitive."""
FREE_BYTES = 64 << 20
"""Unpacked bytes that need no ratio: a small bundle of one large answer."""
_CHUNK_BYTES = 1 << 16
_LOCAL_HEADER_BYTES, _DIRECTORY_ENTRY_BYTES = 30, 46
_END_BYTES, _LOCATOR_BYTES, _LARGE_END_BYTES = 22, 20, 56
"""Of the records at a zip's end; the latter two are there in a large one only."""
_DESCRIPTOR_BYTES = (0, 12, 16, 20, 24)
"""What may stand between the end of one file and the next: the sizes of a data descriptor, or nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that holds, or does not, in plain words."""

    holds: bool
    words: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Everything that was looked at. ``manifest`` is None where it could not be read or is not signed as it stands."""

    findings: tuple[Finding, ...]
    manifest: Manifest | None = None
    fingerprint: str | None = None
    """Of the key whose signature was found good."""

    @property
    def holds(self) -> bool:
        return all(finding.holds for finding in self.findings)


class _BrokenError(Exception):
    """What makes looking further useless."""


def verify_bundle(source: BinaryIO, *, trusted: str | None = None, known: str | None = None) -> Verification:
    """Check a bundle; ``source`` must be seekable.

    ``trusted`` is the fingerprint that the reader asked for, ``known`` that of this installation's own key. Without
    either the signature is still checked, but the key that made it is unknown, and so the bundle does not hold.
    """
    findings: list[Finding] = []
    manifest, key = None, None
    try:
        with zipfile.ZipFile(source) as archive:
            _check_shape(archive, source)
            findings.append(Finding(True, "it is one whole zip, and every name in it is a plain one"))
            manifest, key = _signed_manifest(archive)
            findings.append(
                Finding(True, f"the manifest is signed by the key with fingerprint {key.fingerprint}")
            )
            findings.append(_whose(key.fingerprint, trusted, known))
            findings += _files(archive, manifest)
    except zipfile.BadZipFile as error:
        findings.append(Finding(False, f"it is no whole zip: {visible(str(error))}"))
    # NotImplementedError is zipfile's word for a way of packing that it does not know, RuntimeError for encryption.
    except (_BrokenError, NotImplementedError, zlib.error, OSError, EOFError, RuntimeError) as error:
        findings.append(Finding(False, visible(str(error))))
    return Verification(tuple(findings), manifest, key.fingerprint if key else None)


def _check_shape(archive: zipfile.ZipFile, source: BinaryIO) -> None:
    infos = archive.infolist()
    doubled = [name for name, count in Counter(info.filename for info in infos).items() if count > 1]
    if doubled:
        raise _BrokenError(f"it holds two files of the same name: {', '.join(map(visible, sorted(doubled)))}")
    alike = Counter(info.filename.casefold() for info in infos)
    if any(count > 1 for count in alike.values()):
        raise _BrokenError(
            "it holds names that differ in case only: on some machines one would replace the other"
        )
    for info in infos:
        _check_entry(info)
    if archive.comment:
        raise _BrokenError("it has a comment, which no manifest covers")
    _check_layout(archive, infos, source)
    _check_size(infos, source)


def _check_entry(info: zipfile.ZipInfo) -> None:
    name = info.filename
    if _climbs(name) or info.orig_filename != name:
        raise _BrokenError(
            f"it holds a name that leads elsewhere when unpacked: {visible(info.orig_filename)}"
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG} or info.is_dir():
        raise _BrokenError(f"{visible(name)} is no ordinary file")
    if info.flag_bits & 0x1:
        raise _BrokenError(f"{visible(name)} is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _BrokenError(f"{visible(name)} is packed in a way that no bundle uses")


def _climbs(name: str) -> bool:
    pieces = name.split("/")
    return (
        not name.isascii()
        or not name.isprintable()
        or any(char in name for char in '\\:*?"<>|')
        or any(piece.strip(" .") == "" or piece != piece.strip() or piece.endswith(".") for piece in pieces)
    )


def _check_layout(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], source: BinaryIO) -> None:
    """Files one after another from the first byte on: neither overlapping nor with room for what nobody lists."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    expected = {0}
    for info in ordered:
        if info.header_offset not in expected:
            raise _BrokenError(
                f"bytes before {visible(info.filename)} belong to no file, or to two: it was put together by other means"
            )
        source.seek(info.header_offset)
        header = source.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
            raise _BrokenError(f"the zip is damaged at {visible(info.filename)}")
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        end = info.header_offset + _LOCAL_HEADER_BYTES + lengths + info.compress_size
        expected = {end + size for size in _DESCRIPTOR_BYTES}
    if archive.start_dir not in expected or _end_of_directory(infos, archive.start_dir) != _end_of_files(
        source
    ):
        raise _BrokenError("bytes after the last file belong to no file: something was put there")


def _end_of_directory(infos: list[zipfile.ZipInfo], start: int) -> int:
    fields = (len(part) for info in infos for part in (info.filename, info.extra, info.comment))
    return start + _DIRECTORY_ENTRY_BYTES * len(infos) + sum(fields)


def _end_of_files(source: BinaryIO) -> int:
    """Where the records that end the zip begin, if they are the last bytes there are; -1 if they are not."""
    size = source.seek(0, 2)
    source.seek(max(0, size - _END_BYTES - _LOCATOR_BYTES))
    tail = source.read()
    locator, end = tail[:-_END_BYTES], tail[-_END_BYTES:]
    if end[:4] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        return -1
    large = locator[:4] == b"PK\x06\x07"
    return size - _END_BYTES - (_LOCATOR_BYTES + _LARGE_END_BYTES if large else 0)


def _check_size(infos: list[zipfile.ZipInfo], source: BinaryIO) -> None:
    packed = source.seek(0, 2)
    unpacked = sum(info.file_size for info in infos)
    if unpacked > max(FREE_BYTES, packed * LARGEST_RATIO):
        raise _BrokenError(
            f"its {packed} bytes claim to unpack to {unpacked}: that is a zip bomb, and was not unpacked"
        )


def _signed_manifest(archive: zipfile.ZipFile) -> tuple[Manifest, PublicKey]:
    """The manifest, once its signature by the bundle's own key was found good: only then is it read."""
    missing = [name for name in UNLISTED if name not in archive.namelist()]
    if missing:
        raise _BrokenError(f"{', '.join(missing)} is missing: without it nothing can be checked")
    raw = _read(archive, MANIFEST, LARGEST_MANIFEST_BYTES)
    try:
        key = read_public_key(_read(archive, KEY, 10_000))
    except ValueError:
        raise _BrokenError(f"{KEY} holds no Ed25519 key") from None
    if not key.signed(raw, _read(archive, SIGNATURE, 10_000)):
        raise _BrokenError(
            "the signature is wrong: the manifest was changed, or signed by another key than the one beside it"
        )
    try:
        manifest = read_manifest(raw)
    except (ValueError, RecursionError) as error:
        raise _BrokenError(f"the manifest is signed, but cannot be read: {visible(str(error))}") from None
    if manifest.fingerprint != key.fingerprint:
        raise _BrokenError("the manifest names another key than the one that signed it")
    return manifest, key


def _whose(fingerprint: str, trusted: str | None, known: str | None) -> Finding:
    if trusted is not None:
        if fingerprint == trusted:
            return Finding(True, "that is the key you asked for")
        return Finding(False, f"that is not the key you asked for, {trusted}")
    if known is not None and fingerprint == known:
        return Finding(True, "that is the key of this installation")
    return Finding(
        False,
        "that key is unknown here: anybody can sign with a key of their own. Compare its fingerprint with what the sender "
        "tells you by another way, and run this again with --key FINGERPRINT",
    )


def _files(archive: zipfile.ZipFile, manifest: Manifest) -> Iterator[Finding]:
    there = {info.filename: info for info in archive.infolist() if info.filename not in UNLISTED}
    for name in sorted(manifest.files.keys() - there.keys()):
        yield Finding(False, f"{visible(name)} is missing")
    for name in sorted(there.keys() - manifest.files.keys()):
        yield Finding(False, f"{visible(name)} was added: the manifest does not list it")
    wrong = 0
    for name in sorted(there.keys() & manifest.files.keys()):
        said = manifest.files[name]
        size, digest = _digest(archive, name, said.size)
        if (size, digest) != (said.size, said.sha256):
            wrong += 1
            yield Finding(False, f"{visible(name)} was changed: {_difference(size, said.size)}")
    whole = len(there.keys() & manifest.files.keys()) - wrong
    yield Finding(
        whole == len(manifest.files),
        f"{whole} of {len(manifest.files)} files are there with the size and SHA-256 that the manifest says",
    )


def _difference(size: int, said: int) -> str:
    if size < 0:
        return "it cannot be unpacked"
    if size == said:
        return "its SHA-256 is another"
    return f"it has more than its {said} bytes" if size > said else f"it has {size} bytes, not {said}"


def _read(archive: zipfile.ZipFile, name: str, cap: int) -> bytes:
    with archive.open(name) as member:
        raw = member.read(cap + 1)
    if len(raw) > cap:
        raise _BrokenError(f"{name} is larger than any bundle's")
    return raw


def _digest(archive: zipfile.ZipFile, name: str, said: int) -> tuple[int, str]:
    """Size and SHA-256; reading ends soon after the size that the manifest says."""
    digest, size = hashlib.sha256(), 0
    try:
        with archive.open(name) as member:
            while size <= said and (piece := member.read(_CHUNK_BYTES)):
                digest.update(piece)
                size += len(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError):
        return -1, ""
    return size, digest.hexdigest()
