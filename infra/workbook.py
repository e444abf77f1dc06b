"""Reading a workbook (XLSX, ECMA-376) row by row, in bounded memory, whatever it claims to be.

openpyxl keeps all shared strings and takes a minute for a million rows, calamine keeps the whole sheet (docs/benchmarks.md).
Here the sheet is parsed as it is unpacked and its shared strings wait on disk. It is foreign: no document type is
accepted, so no entity can expand, and what unpacks to more than it could be is refused.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, Final, Self
from xml.parsers import expat

from schemas.cells import MappingError

MAX_PART_BYTES: Final = 2 << 30
"""Of one unpacked part: a full sheet of a million rows with twenty columns comes to about one."""
MAX_RATIO: Final = 200
"""To which a part larger than ``RATIO_FROM_BYTES`` may unpack; sheets come to some twenty."""
RATIO_FROM_BYTES: Final = 32 << 20
MAX_SMALL_PART_BYTES: Final = 16 << 20
"""Of the parts that say where the others are."""
MAX_COLUMNS: Final = 500
MAX_ROWS: Final = 1_048_576
"""In a sheet, by the format's own limit."""
MAX_TEXT: Final = 32_767
"""Characters in a cell, by the format's own limit."""
_PART: Final = 1 << 18
_STRINGS_PIECE: Final = 1 << 12
_BUILT_IN_DATES: Final = frozenset({*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)})
_EPOCHS: Final = {False: datetime(1899, 12, 30), True: datetime(1904, 1, 1)}  # noqa: DTZ001 — a sheet's dates have no zone
_REL: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


class Workbook:
    """One sheet of a workbook, to be read once. Raises MappingError for a file that is none."""

    def __init__(self, path: Path, sheet: str | None = None) -> None:
        self._path, self._wanted = path, sheet

    def __enter__(self) -> Self:
        try:
            self._zip = zipfile.ZipFile(self._path)
        except (zipfile.BadZipFile, OSError) as error:
            raise MappingError(f"the file is no workbook: {error}; save it as .xlsx or CSV") from None
        try:
            self._open()
        except BaseException:
            self._zip.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        strings = getattr(self, "_strings", None)
        if strings is not None:
            strings.close()

    def _open(self) -> None:
        self._1904 = False
        sheets: list[tuple[str, str]] = []

        def workbook(name: str, attributes: dict[str, str]) -> None:
            if name == "sheet":
                relation = next(
                    (value for key, value in attributes.items() if key == _REL or key.endswith(":id")), ""
                )
                sheets.append((attributes.get("name", ""), relation))
            elif name == "workbookPr":
                self._1904 = attributes.get("date1904", "0") in {"1", "true"}

        targets: dict[str, tuple[str, str]] = {}

        def relations(name: str, attributes: dict[str, str]) -> None:
            if name == "Relationship":
                kind = attributes.get("Type", "").rpartition("/")[2]
                targets[attributes.get("Id", "")] = (kind, attributes.get("Target", ""))

        self._small("xl/workbook.xml", workbook)
        self._small("xl/_rels/workbook.xml.rels", relations)
        if not sheets:
            raise MappingError("the workbook has no sheet; save it as .xlsx or CSV again")
        names = [name for name, _ in sheets]
        if self._wanted is not None and self._wanted not in names:
            raise MappingError(
                f"--sheet: there is no sheet {self._wanted!r}; there are {', '.join(map(repr, names))}"
            )
        relation = sheets[0 if self._wanted is None else names.index(self._wanted)][1]
        self._sheet = _part_name(targets.get(relation, ("", ""))[1])
        by_kind = {kind: _part_name(target) for kind, target in targets.values()}
        self._dates = self._styles(by_kind.get("styles"))
        self._strings = _Strings()
        shared = by_kind.get("sharedStrings")
        if shared is not None:
            self._read_strings(shared)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Each row with its number, its cells as text: dates in ISO 8601, whole numbers without a point."""
        reader = _Sheet(self._strings.get, self._dates, self._1904)
        for part in self._unpack(self._sheet, MAX_PART_BYTES):
            reader.feed(part)
            yield from reader.take()
        reader.feed(b"", last=True)
        yield from reader.take()

    def _styles(self, part: str | None) -> frozenset[int]:
        """Places of the cell formats that show a number as a date."""
        custom: set[int] = set()
        formats: list[int] = []
        inside = False

        def style(name: str, attributes: dict[str, str]) -> None:
            nonlocal inside
            if name == "numFmt" and _is_date(attributes.get("formatCode", "")):
                custom.add(_whole(attributes.get("numFmtId", "0")))
            elif name in {"cellXfs", "cellStyleXfs", "cellStyles", "dxfs"}:
                inside = name == "cellXfs"
            elif name == "xf" and inside:
                formats.append(_whole(attributes.get("numFmtId", "0")))

        if part is not None:
            self._small(part, style)
        dates = custom | _BUILT_IN_DATES
        return frozenset(place for place, number in enumerate(formats) if number in dates)

    def _read_strings(self, part: str) -> None:
        """Put the shared strings on disk, without their phonetic hints."""
        texts: list[str] = []
        reading, phonetic, room = False, False, MAX_TEXT

        def start(name: str, _: dict[str, str]) -> None:
            nonlocal reading, phonetic
            local = name if ":" not in name else _local(name)
            phonetic = phonetic or local == "rPh"
            reading = local == "t" and not phonetic

        def end(name: str) -> None:
            nonlocal reading, phonetic, room
            local = name if ":" not in name else _local(name)
            reading = False
            if local == "rPh":
                phonetic = False
            elif local == "si":
                self._strings.add("".join(texts))
                texts.clear()
                room = MAX_TEXT

        def text(data: str) -> None:
            nonlocal room
            if reading and room > 0:
                texts.append(data[:room])
                room -= len(data)

        parser = _parser(start, end, text)
        for piece in self._unpack(part, MAX_PART_BYTES):
            _feed(parser, piece)
        _feed(parser, b"", last=True)
        self._strings.flush()

    def _small(self, part: str, start: Callable[[str, dict[str, str]], None]) -> None:
        parser = _parser(lambda name, attributes: start(_local(name), attributes), None, None)
        for piece in self._unpack(part, MAX_SMALL_PART_BYTES):
            _feed(parser, piece)
        _feed(parser, b"", last=True)

    def _unpack(self, part: str, limit: int) -> Iterator[bytes]:
        """The bytes of a part, counted as they come: what its directory claims is not believed."""
        try:
            info = self._zip.getinfo(part)
            if info.flag_bits & 1:
                raise MappingError("the workbook is encrypted; save it without a password")
            size = 0
            with self._zip.open(info) as source:
                while piece := source.read(_PART):
                    size += len(piece)
                    if size > limit or (
                        size > RATIO_FROM_BYTES and size > MAX_RATIO * max(1, info.compress_size)
                    ):
                        raise MappingError(
                            f"{part} of the workbook unpacks to more than a report could hold; save it as CSV"
                        )
                    yield piece
        except KeyError:
            raise MappingError(
                f"the file is no workbook: it has no {part or 'such sheet'}; save it as .xlsx or CSV"
            ) from None
        # NotImplementedError is zipfile's word for a way of packing that it does not know.
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise MappingError(f"{part} of the workbook is damaged: {error}; save it again") from None


class _Strings:
    """Texts on disk, by number. Sheets mostly name them in their order, so a piece of the file is read at a time."""

    def __init__(self) -> None:
        self._file: IO[bytes] = TemporaryFile(prefix="holdfire-strings-")  # noqa: SIM115 — closed with the workbook
        self._starts = array("Q", [0])
        self._buffer = bytearray()
        self._end = 0
        self._piece, self._from, self._to = b"", 0, 0
        self.get = lru_cache(maxsize=4_096)(self._get)

    def add(self, text: str) -> None:
        encoded = text[:MAX_TEXT].encode("utf-8", "surrogatepass")
        self._buffer += encoded
        self._end += len(encoded)
        self._starts.append(self._end)
        if len(self._buffer) > _PART:
            self.flush()

    def flush(self) -> None:
        self._file.write(self._buffer)
        self._buffer.clear()
        self._file.flush()

    def _get(self, number: int) -> str:
        if not 0 <= number < len(self._starts) - 1:
            return ""
        start, end = self._starts[number], self._starts[number + 1]
        if not self._from <= start <= end <= self._to:
            self._piece = os.pread(self._file.fileno(), max(_STRINGS_PIECE, end - start), start)
            self._from, self._to = start, start + len(self._piece)
        return self._piece[start - self._from : end - self._from].decode("utf-8", "replace")

    def close(self) -> None:
        self._file.close()


class _Sheet:
    """The rows of a sheet, from its XML as it comes."""

    def __init__(self, string: Callable[[int], str], dates: frozenset[int], from_1904: bool) -> None:
        self._string, self._dates, self._1904 = string, dates, from_1904
        self._rows: list[tuple[int, list[str]]] = []
        self._cells: list[str] = []
        self._number = self._column = self._room = 0
        self._kind = self._style = ""
        self._reading = False
        self._texts: list[str] = []
        self._parser = _parser(self._start, self._end, self._text)

    def feed(self, part: bytes, *, last: bool = False) -> None:
        _feed(self._parser, part, last=last)

    def take(self) -> list[tuple[int, list[str]]]:
        rows, self._rows = self._rows, []
        return rows

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "c":
            place = attributes.get("r")
            self._column = len(self._cells) if place is None else _column(place)
            self._kind = attributes.get("t", "n")
            self._room = MAX_TEXT
            self._style = attributes.get("s", "")
        elif name in {"v", "t"}:
            self._reading = True
        elif name == "row":
            # Never twice and never backwards, whatever it says: rows are told by their numbers.
            given = _whole(attributes.get("r", ""))
            self._number = given if self._number < given <= MAX_ROWS else self._number + 1
            self._cells = []
        elif ":" in name:
            self._start(_local(name), attributes)

    def _text(self, data: str) -> None:
        if self._reading and self._room > 0:
            self._texts.append(data[: self._room])
            self._room -= len(data)

    def _end(self, name: str) -> None:
        if name == "c":
            value = "".join(self._texts) if len(self._texts) != 1 else self._texts[0]
            self._texts.clear()
            if value and self._column < MAX_COLUMNS:
                while len(self._cells) < self._column:
                    self._cells.append("")
                self._cells.append(self._shown(value))
        elif name in {"v", "t"}:
            self._reading = False
        elif name == "row":
            self._rows.append((self._number, self._cells))
        elif ":" in name:
            self._end(_local(name))

    def _shown(self, value: str) -> str:
        match self._kind:
            case "s":
                return self._string(_whole(value))
            case "n":
                return self._number_shown(value)
            case "b":
                return "true" if value == "1" else "false"
        return value

    def _number_shown(self, value: str) -> str:
        if self._style and _whole(self._style) in self._dates:
            try:
                return _date(float(value), self._1904)
            except (ValueError, OverflowError):
                return value
        if value.isdigit():
            return value
        try:
            number = float(value)
        except ValueError:
            return value
        # Excel writes 49.9 as 49.899999999999999: the shortest number that is the same one is what was meant.
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _date(serial: float, from_1904: bool) -> str:
    at = _EPOCHS[from_1904] + timedelta(seconds=round(serial * 86_400))
    return at.date().isoformat() if serial == int(serial) else at.isoformat(" ")


def _is_date(code: str) -> bool:
    """Whether a number format shows a date: letters of one outside of quotes, escapes and brackets."""
    bare = re.sub(r'"[^"]*"|\\.|\[(?![hms]+\])[^\]]*\]|General', "", code, flags=re.IGNORECASE)
    return re.search(r"[ymdhs]", bare, re.IGNORECASE) is not None


@lru_cache(maxsize=2 * MAX_COLUMNS)
def _column_of(letters: str) -> int:
    number = 0
    for letter in letters[:4].upper():
        number = number * 26 + ord(letter) - 64
    return number - 1


def _column(place: str) -> int:
    return max(0, _column_of(place.rstrip("0123456789")))


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _part_name(target: str) -> str:
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}" if target else ""


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _parser(
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None] | None,
    text: Callable[[str], None] | None,
) -> Any:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    return parser


def _refuse_doctype(*_: object) -> None:
    raise MappingError("the workbook has a document type in it, as no workbook has; save it as CSV")


def _feed(parser: Any, part: bytes, *, last: bool = False) -> None:
    try:
        parser.Parse(part, last)
    except expat.ExpatError as error:
        raise MappingError(f"the workbook is damaged: {error}; save it again") from None
