"""Reading CSV: records of any dialect, each turned into an event by a mapping, and kept so that it can be fed back."""

from __future__ import annotations

import csv
import io
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import orjson

from producers.imports import MAX_LINE_BYTES, Line, Stream, is_too_long, too_long
from producers.mapping import LINE_COLUMN, REASON_COLUMN, ColumnMap, Columns, MappingError
from schemas.problem import Problem

DELIMITERS: Final = ",;\t|"
MAX_RECORD_LINES: Final = 100
"""Lines that one record may go over (and MAX_LINE_BYTES); beyond that its quote was never meant to be opened."""
REMEMBERED_IDS: Final = 100_000
MAX_SHOWN_BYTES: Final = 1_000
"""Kept of a line that is too long to be one."""
_BOM: Final = b"\xef\xbb\xbf"


class Table:
    """One file of CSV being read. Its header is read at once; then iterate over it."""

    def __init__(self, stream: Stream, mapping: ColumnMap) -> None:
        """Raises MappingError where the header and the mapping do not go together."""
        self.mapping = mapping
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self.delimiter, self.header = self._read_header()
        self._columns = Columns(mapping, [name.strip() for name in self.header])
        self._kept = [
            place
            for place, name in enumerate(self.header)
            if name.strip() not in {LINE_COLUMN, REASON_COLUMN}
        ]
        self._seen: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def __iter__(self) -> Iterator[Line]:
        """Every record but the empty ones, with its event or what is wrong with it. Raises nothing of its own."""
        while lines := self._record():
            for each in lines:
                self._stream.passed(each)
            number = self._stream.number - len(lines) + 1
            raw = b"".join(lines).rstrip(b"\r\n")
            record = self._read(Line(number, self._stream.offset, raw), lines)
            if record is not None:
                yield record

    def unconfirmed_header(self) -> bytes:
        """What a file of this one's records has to begin with."""
        return self._written(self.header)

    def rejects_header(self) -> bytes:
        """The file's own columns, then the line and the reason."""
        return self._written([*(self.header[place] for place in self._kept), LINE_COLUMN, REASON_COLUMN])

    def reject(self, line: Line, problems: list[Problem]) -> bytes:
        """A bad record with its line and reason. One that could not be split has no cells: it stands in the reason."""
        reason = " | ".join(map(str, problems))
        if line.cells is None:
            text = line.raw.decode(self.mapping.encoding, "backslashreplace")
            return self._written([*("" for _ in self._kept), str(line.number), f"{reason} | It was: {text}"])
        return self._written([*(line.cells[place] for place in self._kept), str(line.number), reason])

    def _read_header(self) -> tuple[str, list[str]]:
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
            text = given.decode(self.mapping.encoding).rstrip("\r\n")
        except UnicodeDecodeError:
            raise MappingError(
                f"its header is not {self.mapping.encoding}; say what it is with --encoding, such as cp1252"
            ) from None
        delimiter = self.mapping.delimiter or found or max(DELIMITERS, key=text.count)
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
            self._split(b"".join(lines).decode(self.mapping.encoding, "replace"))
        except csv.Error as error:
            return "unexpected end of data" in str(error)
        return False

    def _split(self, text: str) -> list[str]:
        # As one piece: the reader would take a carriage return outside quotes for the record's end, and drop the rest.
        return next(csv.reader([text], delimiter=self.delimiter, strict=True), [])

    def _read(self, line: Line, lines: list[bytes]) -> Line | None:
        """The record with its event or problems; None for an empty one."""
        if is_too_long(lines[0]):
            return replace(line, raw=line.raw[:MAX_SHOWN_BYTES], problems=[too_long()])
        try:
            text = line.raw.decode(self.mapping.encoding)
        except UnicodeDecodeError as error:
            reason = f"byte 0x{line.raw[error.start]:02x} at place {error.start + 1} is not {self.mapping.encoding}"
            return replace(
                line, problems=[Problem("encoding", "line", reason, "Say with --encoding what the file is")]
            )
        if "\0" in text:
            reason = "holds a NUL, which no text does"
            return replace(line, problems=[Problem("malformed", "line", reason, "Export it again as text")])
        try:
            cells = self._split(text)
        except csv.Error as error:
            return replace(line, problems=[_odd_quotes(error, len(lines))])
        if not any(cell.strip() for cell in cells):
            return None
        return self._map(line, cells, len(lines))

    def _map(self, line: Line, cells: list[str], lines: int) -> Line:
        width = len(self.header)
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            return replace(line, problems=[_wrong_width(len(cells), width, lines)])
        if not any(cells[place].strip() for place in self._kept):
            reason = "has no cells but line and reason, as it was kept"
            return replace(
                line,
                problems=[Problem("malformed", "line", reason, "Write the mended record into its cells")],
            )
        event, problems = self._columns.read(cells)
        if not problems and (problem := self._repeats(line.number, event)):
            problems = [problem]
        return replace(line, event=event, problems=problems, cells=tuple(cells[:width]))

    def _repeats(self, number: int, event: dict[str, object]) -> Problem | None:
        """Whether a nearby row had the same event_id and said something else: intake would take only the first."""
        key = str(event.get("source")), str(event.get("event_id"))
        said = hash(orjson.dumps(event, default=str, option=orjson.OPT_SORT_KEYS))
        first, before = self._seen.setdefault(key, (number, said))
        if len(self._seen) > REMEMBERED_IDS:
            self._seen.popitem(last=False)
        if before == said:
            return None
        return Problem(
            "repeated_event_id",
            "event_id",
            f"{key[1]!r} is that of line {first} too, which says something else, and one id is taken once",
            "Name with --id the columns that tell the rows apart, or sum up the lines of an order",
        )

    def _written(self, cells: list[str]) -> bytes:
        """One record, quoted as need be, without its line end."""
        out = io.StringIO(newline="")
        # The writer quotes a line end in a cell only if the character is one of its own line's end.
        csv.writer(out, delimiter=self.delimiter, lineterminator="\r\n").writerow(cells)
        encoding = (
            "utf-8"
            if self.mapping.encoding.lower().replace("_", "-") == "utf-8-sig"
            else self.mapping.encoding
        )
        return out.getvalue().removesuffix("\r\n").encode(encoding, "backslashreplace")


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
