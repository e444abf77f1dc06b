"""The form of an archive: gzip members of JSON lines, so that ``zcat`` reads it whole and we read a block of it.

In order: a header, the blocks (some hundred attempts each, in the order of their ids), the index of postbacks in
chunks, the directory that says where all that is, and a last empty member whose extra field says where the directory
stands. Every line is a list: what it is, then its values in the order that the header gives for it.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import orjson

FORM = 1
TABLES = ("intents", "attempts", "hops", "checks")
LEVEL = 6

Columns = Mapping[str, Mapping[str, str]]
"""By table: each column's type, as PostgreSQL calls it, in the order in which a line has them."""
Values = dict[str, Any]
"""One row of a table, by column."""

_POINTER = struct.Struct("<10sH2sHQQ")
_GZIP = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"
_EMPTY = b"\x03\x00" + bytes(8)
POINTER_BYTES = _POINTER.size + len(_EMPTY)


class DamagedArchiveError(ValueError):
    """A file that is no archive, or is one no longer: what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of attempts: where it stands, which ids are in it, and how many rows of each table."""

    offset: int
    length: int
    first_attempt: int
    last_attempt: int
    rows: dict[str, int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of the index of postbacks."""

    offset: int
    length: int
    first_postback: int
    last_postback: int


@dataclass(frozen=True, slots=True)
class Directory:
    """Where everything in a file stands."""

    header: Values
    blocks: list[Block] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def columns(self) -> Columns:
        found: Columns = self.header["tables"]
        return found

    def rows(self, table: str) -> int:
        return sum(block.rows[table] for block in self.blocks)


def pack(lines: Iterable[bytes]) -> bytes:
    """Lines as one gzip member."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    return packer.compress(b"".join(line + b"\n" for line in lines)) + packer.flush()


def unpack(member: bytes) -> list[Any]:
    """The lines of one gzip member, read. Raises DamagedArchiveError."""
    try:
        text = zlib.decompress(member, 31)
        return [orjson.loads(line) for line in text.splitlines()]
    except (zlib.error, orjson.JSONDecodeError) as error:
        raise DamagedArchiveError(f"a block cannot be read: {error}") from error


def row_line(table: str, columns: Columns, row: Mapping[str, Any]) -> bytes:
    """One row as a line; bytes are base64, and nothing is rounded or normalised."""
    values = [_put(row[name]) for name in columns[table]]
    return orjson.dumps([table, *values])


def read_row(columns: Columns, line: Sequence[Any]) -> tuple[str, Values]:
    """A line's table, and the row as it stood in there. Raises DamagedArchiveError."""
    table, *values = line
    if table not in columns or len(values) != len(columns[table]):
        raise DamagedArchiveError(f"a line of {table!r} does not have the columns that the header gives")
    types = columns[table]
    return table, {
        name: _take(value, type_) for (name, type_), value in zip(types.items(), values, strict=True)
    }


def pointer(offset: int, length: int) -> bytes:
    """The last member: nothing in it, and where the directory stands in its extra field."""
    return _POINTER.pack(_GZIP, 20, b"HF", 16, offset, length) + _EMPTY


def read_pointer(tail: bytes) -> tuple[int, int]:
    """Offset and length of the directory, from a file's last ``POINTER_BYTES``. Raises DamagedArchiveError."""
    if len(tail) != POINTER_BYTES or tail[_POINTER.size :] != _EMPTY:
        raise DamagedArchiveError("its end is missing: it was cut off")
    magic, length, mark, size, offset, directory = _POINTER.unpack(tail[: _POINTER.size])
    if (magic, length, mark, size) != (_GZIP, 20, b"HF", 16):
        raise DamagedArchiveError("its end is not that of an archive")
    return int(offset), int(directory)


def directory_lines(directory: Directory) -> list[bytes]:
    return [
        orjson.dumps(["header", directory.header]),
        *(orjson.dumps(["block", asdict(block)]) for block in directory.blocks),
        *(orjson.dumps(["chunk", asdict(chunk)]) for chunk in directory.chunks),
    ]


def read_directory(lines: Iterable[Any]) -> Directory:
    """Raises DamagedArchiveError for one of a later form, or none."""
    (kind, header), *rest = lines
    if kind != "header" or header.get("holdfire_archive") != FORM:
        raise DamagedArchiveError("it is not an archive of this version of Holdfire")
    return Directory(
        header,
        [Block(**value) for kind, value in rest if kind == "block"],
        [Chunk(**value) for kind, value in rest if kind == "chunk"],
    )


def _put(value: Any) -> Any:
    if isinstance(value, bytes | memoryview | bytearray):
        return b64encode(value).decode()
    return value


def _take(value: Any, type_: str) -> Any:
    if value is None:
        return None
    if type_ == "bytea":
        return b64decode(value)
    if type_ == "timestamp with time zone":
        return datetime.fromisoformat(value)
    return value
