"""Reading delimited text: the records of any dialect, each with its cells or what is wrong with it."""

from __future__ import annotations

import csv
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

from schemas.cells import MappingError
from schemas.problem import Problem

MAX_LINE_BYTES: Final = 1_000_000
"""Far above the largest sensible record; a file without line ends must not be read into memory."""
DELIMITERS: Final = ",;\t|"
MAX_RECORD_LINES: Final = 100
"""Lines that one record may go over (and MAX_LINE_BYTES); beyond that its quote was never meant to be opened."""
MAX_SHOWN_BYTES: Final = 1_000
"""Kept of a line that is too long to be one."""
_BOM: Final = b"\xef\xbb\xbf"
_SKIP_BYTES: Final = 1 << 20


class Stream:
    """The bytes of a file, read forward once. Knows how much of it was passed, and the digest of that."""

    def __init__(self, source: IO[bytes]) -> None:
        """``source`` stands at its beginning."""
        self.offset = 0
        self.number = 0
        self._source = source
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of everything passed, in hex."""
        return self._digest.hexdigest()

    def readline(self) -> bytes:
        """The next line with its line end, or the first ``MAX_LINE_BYTES + 1`` bytes of one that is longer; empty at
        the end. It does not count as passed yet.
        """
        return self._source.readline(MAX_LINE_BYTES + 1)

    def passed(self, line: bytes) -> None:
        """Count a line that was read. One that is too long is read to its end."""
        self._count(line)
        self.number += 1
        while is_too_long(line):
            line = self._source.readline(MAX_LINE_BYTES + 1)
            self._count(line)

    def skip_to(self, offset: int, number: int) -> bool:
        """Pass everything up to ``offset``, after which ``number`` lines were passed. False: the file ends before."""
        while self.offset < offset:
            part = self._source.read(min(offset - self.offset, _SKIP_BYTES))
            if not part:
                return False
            self._count(part)
        self.number = number
        return self.offset == offset

    def _count(self, part: bytes) -> None:
        self.offset += len(part)
        self._digest.update(part)


def is_too_long(line: bytes) -> bool:
    """Whether ``readline`` gave the beginning of a line only."""
    return len(line) > MAX_LINE_BYTES and not line.endswith(b"\n")


def too_long() -> Problem:
    """What is wrong with a line beyond the limit."""
    return Problem(
        "too_long", "line", f"is longer than {MAX_LINE_BYTES} bytes", "Write one event a line, with line ends"
    )


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a table: the number of its first line (from 1), the offset at which it ends, and its bytes without
    the line end; its cells, as many as the header has, or what is wrong with it.
    """

    number: int
    end: int
    raw: bytes
    cells: tuple[str, ...] | None = None
    problem: Problem | None = None
    text: str | None = None
    """The bytes as text, of a record that has cells."""


class Records:
    """One delimited file being read. Its header is read at once; then iterate over it."""

    def __init__(self, stream: Stream, *, encoding: str, delimiter: str | None = None) -> None:
        """Without a ``delimiter`` it is guessed from the header. Raises MappingError where there is no header."""
        self.encoding = encoding
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self.delimiter, self.header = self._read_header(delimiter)
        self._blank = f"{self.delimiter} \t\u00a0"

    def __iter__(self) -> Iterator[Record]:
        """Every record but the empty ones. Raises nothing of its own."""
        while lines := self._record():
            for each in lines:
                self._stream.passed(each)
            number = self._stream.number - len(lines) + 1
            raw = b"".join(lines).rstrip(b"\r\n")
            record = self._read(number, raw, lines)
            if record is not None:
                yield record

    def _read_header(self, wanted: str | None) -> tuple[str, list[str]]:
        given = self._stream.readline()
        self._stream.passed(given)
        if given.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise MappingError("the file is UTF-16; convert it first: iconv -f utf-16 -t utf-8 IN > OUT")
        given = given.removeprefix(_BOM)
        if given[:4].lower() == b"sep=" and len(given.strip()) == 5:
            # Excel's own way to say which delimiter a file has.
            found, given = given[4:5].decode("latin-1"), self._stream.readline()
            self._stream.passed(given)
        else:
            found = ""
        if is_too_long(given) or b"\0" in given:
            raise MappingError(
                "its first line is no header: it is not text with line ends; give a CSV file with a header"
            )
        try:
            text = given.decode(self.encoding).rstrip("\r\n")
        except UnicodeDecodeError:
            raise MappingError(
                f"its header is not {self.encoding}; say what it is with --encoding, such as cp1252"
            ) from None
        delimiter = wanted or found or max(DELIMITERS, key=text.count)
        try:
            header = next(csv.reader([text], delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            raise MappingError(
                f"its header cannot be read: {error}; it must be one line with line ends"
            ) from None
        if not any(name.strip() for name in header):
            raise MappingError("it has no header; the first line must name the columns")
        return delimiter, header

    def _record(self) -> list[bytes]:
        """The lines of the next record: more than one where a quoted cell holds line ends. Empty at the end.

        A quote that is never closed takes nothing with it: its line alone is the record.
        """
        lines = [first] if (first := self._next()) else []
        size, still_open = len(first), bool(lines) and self._is_open(lines)
        while still_open:
            line = self._next()
            size += len(line)
            if not line or len(lines) == MAX_RECORD_LINES or size > MAX_LINE_BYTES:
                self._waiting.extendleft(reversed([*lines[1:], line] if line else lines[1:]))
                return lines[:1]
            lines.append(line)
            # A line without a quote closes none: a stray one must not cost a look at everything after every line.
            still_open = b'"' not in line or self._is_open(lines)
        return lines

    def _next(self) -> bytes:
        return self._waiting.popleft() if self._waiting else self._stream.readline()

    def _is_open(self, lines: list[bytes]) -> bool:
        """Whether the last of these lines ends inside a quoted cell."""
        if b'"' not in lines[0] or is_too_long(lines[0]):
            return False
        try:
            self._split(b"".join(lines).decode(self.encoding, "replace"))
        except csv.Error as error:
            return "unexpected end of data" in str(error)
        return False

    def _split(self, text: str) -> list[str]:
        if '"' not in text and "\r" not in text:
            return text.split(self.delimiter)  # what the reader would do, in a third of the time
        # As one piece: the reader would take a carriage return outside quotes for the record's end, and drop the rest.
        return next(csv.reader([text], delimiter=self.delimiter, strict=True), [])

    def _read(self, number: int, raw: bytes, lines: list[bytes]) -> Record | None:
        """The record with its cells or its problem; None for an empty one."""
        end = self._stream.offset
        if is_too_long(lines[0]):
            return Record(number, end, raw[:MAX_SHOWN_BYTES], problem=too_long())
        text = self._text(raw)
        if isinstance(text, Problem):
            return Record(number, end, raw, problem=text)
        try:
            cells = self._split(text)
        except csv.Error as error:
            return Record(number, end, raw, problem=_odd_quotes(error, len(lines)))
        if not text.strip(self._blank) or not any(cell.strip() for cell in cells):
            return None
        width = len(self.header)
        if len(cells) != width and (len(cells) < width or any(cell.strip() for cell in cells[width:])):
            return Record(number, end, raw, problem=_wrong_width(len(cells), width, len(lines)))
        return Record(number, end, raw, tuple(cells[:width]), text=text)

    def _text(self, raw: bytes) -> str | Problem:
        try:
            text = raw.decode(self.encoding)
        except UnicodeDecodeError as error:
            reason = f"byte 0x{raw[error.start]:02x} at place {error.start + 1} is not {self.encoding}"
            return Problem("encoding", "line", reason, "Say with --encoding what the file is")
        if "\0" in text:
            return Problem("malformed", "line", "holds a NUL, which no text does", "Export it again as text")
        return text


def _odd_quotes(error: csv.Error, lines: int) -> Problem:
    if "unexpected end of data" in str(error):
        reason = "opens a quote that is never closed"
    elif "new-line" in str(error):
        reason = "has a carriage return inside a cell that is not quoted"
    else:
        reason = f"has quotes that do not fit: {error}"
    if lines > 1:
        reason += f"; by its quotes it goes over {lines} lines"
    return Problem("malformed", "line", reason, 'Put the cell in quotes, and write a quote inside it as ""')


def _wrong_width(found: int, wanted: int, lines: int) -> Problem:
    over = f", by its quotes over {lines} lines" if lines > 1 else ""
    reason = f"has {found} cells where the header has {wanted}{over}"
    return Problem(
        "columns", "line", reason, "Put cells that hold the delimiter in quotes, and fill in what is missing"
    )
