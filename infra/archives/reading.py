"""Reading an archive: by attempt or postback a few blocks of it, or all of it to see whether it is whole."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from infra.archives.form import (
    POINTER_BYTES,
    TABLES,
    Block,
    DamagedArchiveError,
    Directory,
    Values,
    read_directory,
    read_pointer,
    read_row,
    unpack,
)

Rows = dict[str, list[Values]]
"""Rows by table."""

ID_COLUMNS = {"intents": "attempt_id", "attempts": "id", "hops": "attempt_id", "checks": "id"}
"""By table: which column has the id of the attempt or check."""


class ArchiveReader:
    """One file, open. Raises DamagedArchiveError for one that is none, and OSError for one that cannot be read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            offset, length = read_pointer(self._piece(max(0, self.size - POINTER_BYTES), POINTER_BYTES))
            self.directory: Directory = read_directory(unpack(self._piece(offset, length)))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def attempts_of(self, postback_ids: Iterable[int]) -> list[int]:
        """Ids of the attempts and checks of these postbacks that are in the file, ascending."""
        wanted = set(postback_ids)
        found = []
        for chunk in self.directory.chunks:
            if any(chunk.first_postback <= each <= chunk.last_postback for each in wanted):
                ((_, postbacks, attempts),) = unpack(self._piece(chunk.offset, chunk.length))
                found += [a for p, a in zip(postbacks, attempts, strict=True) if p in wanted]
        return sorted(found)

    def postbacks(self) -> Iterator[tuple[int, int]]:
        """Every attempt and check as ``(postback id, its id)``, in the order of the postbacks."""
        for chunk in self.directory.chunks:
            ((_, postbacks, attempts),) = unpack(self._piece(chunk.offset, chunk.length))
            yield from zip(postbacks, attempts, strict=True)

    def rows_of(self, attempt_ids: Iterable[int]) -> Rows:
        """All rows of these attempts and checks."""
        wanted = set(attempt_ids)
        rows: Rows = defaultdict(list)
        for block in self.directory.blocks:
            if any(block.first_attempt <= each <= block.last_attempt for each in wanted):
                for table, row in self._some(block, wanted):
                    rows[table].append(row)
        return rows

    def _some(self, block: Block, wanted: set[int]) -> Iterator[tuple[str, Values]]:
        """Of a block the rows of some attempts: the others are not decoded."""
        columns = self.directory.columns
        places = {table: 1 + list(columns[table]).index(ID_COLUMNS[table]) for table in columns}
        for line in unpack(self.packed(block)):
            if line[0] in places and line[places[line[0]]] in wanted:
                yield read_row(columns, line)

    def count(self, block: Block) -> dict[str, int]:
        """How many rows of each table a block has. Raises DamagedArchiveError."""
        counts, columns = dict.fromkeys(TABLES, 0), self.directory.columns
        for table, *values in unpack(self.packed(block)):
            if table not in columns or len(values) != len(columns[table]):
                raise DamagedArchiveError(
                    f"a line of {table!r} does not have the columns that the header gives"
                )
            counts[table] += 1
        return counts

    def rows(self, block: Block) -> Rows:
        """All rows of a block. Raises DamagedArchiveError."""
        rows: Rows = {table: [] for table in TABLES}
        for line in unpack(self.packed(block)):
            table, row = read_row(self.directory.columns, line)
            rows[table].append(row)
        return rows

    def packed(self, block: Block) -> bytes:
        """A block as it stands in the file."""
        return self._piece(block.offset, block.length)

    def _piece(self, offset: int, length: int) -> bytes:
        piece = os.pread(self._file.fileno(), length, offset)
        if len(piece) != length:
            raise DamagedArchiveError("it is shorter than it was: it was cut off")
        return piece


def id_of(table: str, row: Values) -> int:
    """The id of the attempt or check that a row belongs to."""
    number: int = row[ID_COLUMNS[table]]
    return number


def verify(path: Path, digest: bytes) -> dict[str, int]:
    """Read all of a file: its rows by table. Raises DamagedArchiveError if it is not what was written, to the byte."""
    seen = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            seen.update(piece)
    if seen.digest() != digest:
        raise DamagedArchiveError("its SHA-256 is not the one that was recorded")
    counts = dict.fromkeys(TABLES, 0)
    with ArchiveReader(path) as reader:
        for block in reader.directory.blocks:
            found = reader.count(block)
            if found != block.rows:
                raise DamagedArchiveError(f"a block has {found} rows, and says {block.rows}")
            counts = {table: counts[table] + found[table] for table in TABLES}
    return counts
