"""Packing a zip front to back: what is gathered on the way, and what goes in. Nothing is held in memory whole."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import BinaryIO, Self

from investigations.export.manifest import FileRecord

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The instant of every file in the zip: a zip knows none before it, and none may depend on when it was made."""
_CHUNK_CHARACTERS = _CHUNK_BYTES = 1 << 16


class Spool:
    """Text on its way into the zip: in memory while there is little, in a file of its own after that."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=1 << 20, mode="w+", encoding="utf-8", newline="")  # noqa: SIM115 — closed by who gathers

    def put(self, *pieces: str) -> None:
        self._file.writelines(pieces)

    def lines(self) -> Iterator[str]:
        self._file.seek(0)
        return (line.removesuffix("\n") for line in self._file)

    def pieces(self) -> Iterator[str]:
        self._file.seek(0)
        return iter(lambda: self._file.read(_CHUNK_CHARACTERS), "")

    def close(self) -> None:
        self._file.close()


class _Forward:
    """A target that cannot be sought in, whatever it could: a zip then is the same bytes in a file and in a pipe."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target

    def write(self, data: bytes) -> int:
        self._target.write(data)
        return len(data)

    def flush(self) -> None:
        self._target.flush()


class Archive:
    """A zip that is written front to back, and what went into it."""

    def __init__(self, target: BinaryIO) -> None:
        self.files: dict[str, FileRecord] = {}
        self._zip = zipfile.ZipFile(_Forward(target), "w", zipfile.ZIP_DEFLATED, compresslevel=6)  # type: ignore[call-overload]  # only write and flush are used

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._zip.close()
        else:
            # Its end would be written when it is forgotten, too: nobody shall take half of it for the whole.
            self._zip.fp = None

    def add(self, name: str, pieces: Iterable[str]) -> None:
        self._put(name, (piece.encode("utf-8", "backslashreplace") for piece in pieces))

    def add_bytes(self, name: str, raw: bytes) -> None:
        self._put(name, (raw,))

    def _put(self, name: str, pieces: Iterable[bytes]) -> None:
        info = zipfile.ZipInfo(name, _EPOCH)
        info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
        digest, size = hashlib.sha256(), 0
        with self._zip.open(info, "w", force_zip64=True) as member:
            for piece in _in_chunks(pieces):
                member.write(piece)
                digest.update(piece)
                size += len(piece)
        self.files[name] = FileRecord(size, digest.hexdigest())


def _in_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces: a line at a time would cost more than what is done with it."""
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)
