"""Opening a file of events: plain or compressed, NDJSON or CSV, from a path or standard input."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

from infra.delimited import Stream
from producers.imports import Line, ndjson_reject, read_ndjson
from producers.mapping import ColumnMap
from producers.tables import Table
from schemas.problem import Problem

Format = Literal["ndjson", "csv"]
DAMAGED: Final = (EOFError, gzip.BadGzipFile, zlib.error)
"""What reading raises where a compressed file is cut short or broken."""

_GZIP: Final = b"\x1f\x8b"
_TABLES: Final = {".csv": None, ".tsv": "\t", ".tab": "\t"}


def open_bytes(file: str, stack: ExitStack) -> tuple[IO[bytes], int | None]:
    """The file's bytes, decompressed if they are gzip's, and how many there are, None where there is no telling.

    Raises OSError.
    """
    size = None
    if file == "-":
        source: Any = sys.stdin.buffer
    else:
        path = Path(file)
        source = stack.enter_context(path.open("rb"))
        size = path.stat().st_size if path.is_file() else None
    # Whatever the name: what is piped in has none.
    buffered = source if isinstance(source, io.BufferedReader) else io.BufferedReader(source)
    if buffered.peek(2)[:2] == _GZIP:
        return cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=buffered))), None
    return cast("IO[bytes]", buffered), size


def suffix_of(file: str) -> str:
    """The name's last suffix but that of compression, in lower case."""
    return Path(file.lower().removesuffix(".gz")).suffix


def is_table(file: str) -> bool:
    """Whether the name is that of a CSV file."""
    return suffix_of(file) in _TABLES


def delimiter_of(file: str) -> str | None:
    """The delimiter that the name says, such as the tab of ``.tsv``."""
    return _TABLES.get(suffix_of(file))


@dataclass(frozen=True, slots=True)
class Reading:
    """A file that is being read: its lines, and how those that do not get in are kept so that they can be fed back."""

    kind: Format
    stream: Stream
    lines: Iterable[Line]
    fingerprint: str
    """Tells how lines are read; the same under another name."""
    as_reject: Callable[[Line, list[Problem]], bytes] = ndjson_reject
    rejects_header: bytes | None = None
    unconfirmed_header: bytes | None = None


def read_file(source: IO[bytes], mapping: ColumnMap | None) -> Reading:
    """Read CSV by the mapping, or without one NDJSON. Raises MappingError where the header does not fit."""
    stream = Stream(source)
    if mapping is None:
        return Reading("ndjson", stream, read_ndjson(stream), "ndjson")
    table = Table(stream, mapping)
    return Reading(
        "csv",
        stream,
        table,
        hashlib.sha256(repr(mapping).encode()).hexdigest(),
        table.reject,
        table.rejects_header(),
        table.unconfirmed_header(),
    )
