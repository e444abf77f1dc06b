"""Opening a network's report: whatever it is written in, as a header and a stream of rows. What it holds is foreign."""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Final

from infra.delimited import DELIMITERS, Records, Stream
from infra.workbook import Workbook
from schemas.cells import MappingError
from schemas.reconciling.columns import (
    guess_columns,
    guess_dates,
    guess_numbers,
    looks_like_header,
    place_columns,
)
from schemas.reconciling.options import UTF_16, ReportOptions

SAMPLE_ROWS: Final = 1_000
"""Rows from which it is guessed how numbers and dates are written."""
PREAMBLE_LINES: Final = 40
"""Lines of titles that may stand above the header."""
_ZIP, _OLD_EXCEL, _GZIP = b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b"
_PART: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A report on disk, looked through once: its digest, and what it is written in."""

    path: Path
    name: str
    sha256: str
    bytes: int
    is_workbook: bool
    encoding: str
    """Of a text: what its first bytes or all of them say."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a network's reports: how it calls its click id, and the columns of the last one that was read."""

    click_parameters: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


NOTHING_KNOWN: Final = Known()


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row's cells as text, or why it has none."""

    line: int
    cells: Sequence[str]
    raw: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class OpenReport:
    """A report being read: ``options`` are decided, ``places`` says which column is which field."""

    options: ReportOptions
    header: tuple[str, ...]
    header_line: int
    places: dict[str, int]
    sample: list[RawRow]
    """The first rows."""
    rows: Iterator[RawRow]
    """All rows, the first ones included."""


class UnplacedError(MappingError):
    """It could be read, but not told which column is which: with what was read, for whoever can say."""

    def __init__(self, why: str, header: tuple[str, ...], header_line: int, sample: Sequence[RawRow]) -> None:
        super().__init__(why)
        self.header = header
        self.header_line = header_line
        self.sample = sample


def examine(path: Path, name: str | None = None) -> ReportFile:
    """Look through a file once. Raises MappingError for what is no report, OSError for what cannot be read."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    utf_8, size, first = True, 0, b""
    with path.open("rb") as source:
        while part := source.read(_PART):
            first = first or part[:4096]
            size += len(part)
            digest.update(part)
            if utf_8:
                try:
                    decoder.decode(part)
                except UnicodeDecodeError:
                    utf_8 = False
    if not size:
        raise MappingError(f"{name or path.name} is empty; export the report again")
    if first.startswith(_OLD_EXCEL):
        raise MappingError(f"{name or path.name} is an Excel file of the old kind; save it as .xlsx or CSV")
    if first.startswith(_GZIP):
        raise MappingError(f"{name or path.name} is compressed; unpack it first: gunzip")
    is_workbook = first.startswith(_ZIP)
    return ReportFile(
        path, name or path.name, digest.hexdigest(), size, is_workbook, _encoding(first, utf_8=utf_8)
    )


def _encoding(first: bytes, *, utf_8: bool) -> str:
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # Latin text in UTF-16 without its mark has a zero in every other place.
    if len(first) > 3 and first[1::2].count(0) > len(first) // 3:
        return "utf-16-le"
    if len(first) > 3 and first[::2].count(0) > len(first) // 3:
        return "utf-16-be"
    return "utf-8" if utf_8 else "cp1252"


@contextmanager
def open_report(
    file: ReportFile, options: ReportOptions, known: Known = NOTHING_KNOWN
) -> Iterator[OpenReport]:
    """Open a report for reading. What ``options`` leave open is guessed from its header and first rows.

    Raises MappingError where it cannot be told what is what, and for a file that is not what it seems.
    """
    if file.is_workbook:
        with Workbook(file.path, options.sheet) as book:
            yield _open_workbook(book, options, known)
        return
    with file.path.open("rb") as source:
        yield _open_text(file, source, options, known)


def _open_text(file: ReportFile, source: IO[bytes], options: ReportOptions, known: Known) -> OpenReport:
    encoding = options.encoding or file.encoding
    if encoding.lower().replace("_", "-") in UTF_16:
        source = io.BufferedReader(_Transcoded(source, encoding), _PART)
        inner = "utf-8"
    else:
        inner = encoding
    stream = Stream(source)
    _skip_preamble(source, stream, inner, options)
    records = Records(stream, encoding=inner, delimiter=options.delimiter)
    header, header_line = tuple(name.strip() for name in records.header), stream.number

    def rows() -> Iterator[RawRow]:
        for record in records:
            if record.cells is None or record.text is None:
                raw = record.raw.decode(inner, "backslashreplace")
                yield RawRow(record.number, (), raw, str(record.problem))
            else:
                yield RawRow(record.number, record.cells, record.text)

    decided = options.model_copy(update={"encoding": encoding, "delimiter": records.delimiter})
    return _decide(header, header_line, rows(), decided, known)


def _skip_preamble(source: IO[bytes], stream: Stream, encoding: str, options: ReportOptions) -> None:
    """Pass the titles above the header, if there are any."""
    start = source.tell()
    above = 0
    lines = [source.readline(65_536) for _ in range(PREAMBLE_LINES)]
    for number, line in enumerate(lines):
        text = line.decode(encoding, "replace").removeprefix("\ufeff")
        delimiter = options.delimiter or max(DELIMITERS, key=text.count)
        cells = [cell.strip().strip('"') for cell in text.rstrip("\r\n").split(delimiter)]
        if looks_like_header(cells, options.columns.values()):
            above = number
            break
    source.seek(start)
    for _ in range(above):
        stream.passed(stream.readline())


def _open_workbook(book: Workbook, options: ReportOptions, known: Known) -> OpenReport:
    rows = book.rows()
    first = list(islice(rows, PREAMBLE_LINES))
    place = next(
        (i for i, (_, cells) in enumerate(first) if looks_like_header(cells, options.columns.values())), 0
    )
    if not first:
        raise MappingError("the sheet has no rows; name another one with --sheet")
    header_line, cells = first[place]
    header = tuple(cell.strip() for cell in cells)
    width = len(header)

    def raw_rows() -> Iterator[RawRow]:
        for line, found in chain(first[place + 1 :], rows):
            if any(found):
                whole = [*found[:width], *[""] * (width - len(found))]
                yield RawRow(line, whole, "\t".join(found))

    # A workbook holds numbers as numbers, with a point.
    decided = options.model_copy(
        update={"decimal": options.decimal or ".", "encoding": None, "delimiter": None}
    )
    return _decide(header, header_line, raw_rows(), decided, known)


def _decide(
    header: tuple[str, ...],
    header_line: int,
    rows: Iterator[RawRow],
    options: ReportOptions,
    known: Known,
) -> OpenReport:
    columns = dict(options.columns)
    habit = {name: column for name, column in known.columns.items() if column in header}
    guessed = guess_columns(header, aggregated=options.aggregated, click_parameters=known.click_parameters)
    for source in (habit, guessed):
        # One column is one field, and what is said outweighs what is guessed.
        fitting = {name: column for name, column in source.items() if column not in columns.values()}
        columns = fitting | columns
    sample = list(islice(rows, SAMPLE_ROWS))
    try:
        places = place_columns(header, columns, aggregated=options.aggregated)
    except MappingError as error:
        raise UnplacedError(str(error), header, header_line, sample) from None
    update: dict[str, object] = {"columns": columns}
    if options.decimal is None or options.thousands is None:
        decimal, thousands = guess_numbers(_cells(sample, places.get("value")))
        decimal = options.decimal or decimal
        update["decimal"] = decimal
        if options.thousands is None:
            update["thousands"] = thousands if thousands != decimal else None
    if options.date_format is None:
        update["date_format"] = guess_dates(list(_cells(sample, places.get("occurred_at"))))
    return OpenReport(
        options.model_copy(update=update), header, header_line, places, sample, chain(sample, rows)
    )


def _cells(rows: Sequence[RawRow], place: int | None) -> Iterator[str]:
    if place is not None:
        for row in rows:
            if row.problem is None and place < len(row.cells) and row.cells[place].strip():
                yield row.cells[place].strip()


class _Transcoded(io.RawIOBase):
    """UTF-16 read as UTF-8, a part at a time: it cannot be split into lines byte by byte."""

    def __init__(self, source: IO[bytes], encoding: str) -> None:
        super().__init__()
        self._source, self._encoding = source, encoding
        self._start()

    def _start(self) -> None:
        self._source.seek(0)
        # What is no UTF-16 stays visible as such, in the row that it is in.
        self._decoder = codecs.getincrementaldecoder(self._encoding)("replace")
        self._waiting = b""
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Back to the beginning, which is all that anybody asks for."""
        if offset or whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only to the beginning")
        self._start()
        return 0

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # io's own buffer type has no name
        while not self._waiting:
            part = self._source.read(_PART)
            self._waiting = self._decoder.decode(part, final=not part).encode("utf-8", "replace")
            if not part:
                break
        count = min(len(buffer), len(self._waiting))
        buffer[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        self._at += count
        return count
