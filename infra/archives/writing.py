"""Writing an archive: under a name of its own until it is whole, then synced, read back, and given its name."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from infra.archives.form import (
    FORM,
    TABLES,
    Block,
    Chunk,
    Columns,
    Directory,
    directory_lines,
    pack,
    pointer,
    row_line,
)

CHUNK = 8192
"""Pairs of postback and attempt in one chunk of the index."""
UNFINISHED = ".writing"


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is whole and on the disk under its own name."""

    path: Path
    sha256: bytes
    bytes: int
    directory: Directory
    first_postback: int
    last_postback: int


class ArchiveWriter:
    """Takes blocks in the order of their attempts. Without ``finish`` nothing of it stays under the file's name."""

    def __init__(self, path: Path, about: Mapping[str, Any], columns: Columns) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._unfinished = path.with_name(path.name + UNFINISHED)
        self._columns = columns
        header = {"holdfire_archive": FORM, **about, "tables": columns}
        self._directory = Directory(header)
        self._postbacks, self._attempts = array("q"), array("q")
        self._digest = sha256()
        self._offset = 0
        self._file = os.fdopen(os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        self._put(pack([orjson.dumps(["header", header])]))

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self._file.close()
        with suppress(FileNotFoundError):
            self._unfinished.unlink()

    def add(
        self,
        heads: Sequence[tuple[int, int]],
        rows: Mapping[str, Iterable[Mapping[str, Any]]],
    ) -> None:
        """One block: ``heads`` are its attempts and checks as ``(id, postback id)``, ascending; ``rows`` by table."""
        lines, counts = [], {}
        for table in TABLES:
            found = [row_line(table, self._columns, row) for row in rows[table]]
            lines += found
            counts[table] = len(found)
        self.add_packed(heads, pack(lines), counts)

    def add_packed(self, heads: Sequence[tuple[int, int]], member: bytes, counts: dict[str, int]) -> None:
        """A block that is packed already, as another file has it."""
        for attempt, postback in heads:
            self._attempts.append(attempt)
            self._postbacks.append(postback)
        block = Block(self._offset, len(member), heads[0][0], heads[-1][0], counts)
        self._directory.blocks.append(block)
        self._put(member)

    def finish(self) -> Written:
        """Index, directory and end; then the file is synced and takes its name, over one that was there."""
        self._put_index()
        offset, directory = self._offset, pack(directory_lines(self._directory))
        self._put(directory)
        self._put(pointer(offset, len(directory)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._unfinished.replace(self._path)
        sync_folder(self._path.parent)
        return Written(
            self._path, self._digest.digest(), self._offset, self._directory, min(self._postbacks),
            max(self._postbacks),
        )  # fmt: skip

    def _put_index(self) -> None:
        pairs = sorted(zip(self._postbacks, self._attempts, strict=True))
        for start in range(0, len(pairs), CHUNK):
            some = pairs[start : start + CHUNK]
            member = pack([orjson.dumps(["postbacks", *map(list, zip(*some, strict=True))])])
            self._directory.chunks.append(Chunk(self._offset, len(member), some[0][0], some[-1][0]))
            self._put(member)

    def _put(self, member: bytes) -> None:
        self._file.write(member)
        self._digest.update(member)
        self._offset += len(member)


def sync_folder(folder: Path) -> None:
    """So that a name in it outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
