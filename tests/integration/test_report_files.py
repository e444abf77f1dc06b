"""Reading reports from files: any encoding and dialect, titles above the header, bad rows kept, and hostile workbooks."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from infra.report_files import Known, examine, open_report
from infra.workbook import MAX_COLUMNS, Workbook
from investigations.reconcile.reading import decided, read_row, writing
from schemas.cells import MappingError
from schemas.reconciling.options import read_options
from schemas.reconciling.rows import ReadRow, RowReader

HEADER = "Click ID;Order ID;Betrag;Datum"
ROWS = 'Aé.;1;"1.234,50";20.11.2026\nB.;2;3,00;21.11.2026\n'


def read(path: Path, known: Known | None = None, **options: Any) -> list[ReadRow]:
    """Every row as it would be kept."""
    with open_report(examine(path), read_options(options), known or Known()) as opened:
        reader = RowReader(opened.places, writing(decided(opened)))
        return [read_row(reader, row) for row in opened.rows]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes | str], Path]:
    def write_file(content: bytes | str) -> Path:
        path = tmp_path / "report"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


@pytest.mark.parametrize(
    "encoded",
    [
        f"{HEADER}\n{ROWS}".encode(),
        f"\ufeff{HEADER}\n{ROWS}".encode(),
        f"{HEADER}\n{ROWS}".encode("cp1252"),
        f"\ufeff{HEADER}\n{ROWS}".encode("utf-16-le"),
        f"\ufeff{HEADER}\n{ROWS}".encode("utf-16-be"),
        f"{HEADER}\n{ROWS}".encode("utf-16-le"),
        f"{HEADER}\n{ROWS}".replace("\n", "\r\n").encode(),
        f"{HEADER}\n{ROWS}".replace(";", "\t").encode(),
        f"Conversion report\nfrom 1 to 30 November\n\n{HEADER}\n{ROWS}".encode(),
        f"sep=;\n{HEADER}\n{ROWS}".encode(),
    ],
)
def test_a_report_is_read_however_it_is_written(write: Callable[[bytes], Path], encoded: bytes) -> None:
    """Encoding, delimiter, numbers and dates are told by the report itself."""
    first, second = read(write(encoded), currency="EUR")
    assert (first.click_id, first.order_id, first.value, first.day) == ("Aé.", "1", "1234.50", "2026-11-20")
    assert (second.value, second.currency, second.problem) == ("3.00", "EUR", None)


def test_what_is_told_outweighs_what_is_guessed(write: Callable[[str], Path]) -> None:
    """A column by its name, and days that could be either way round."""
    path = write('a,b,c,d\nT.,9,"1,234",01/02/2026\n')
    columns = {"click_id": "a", "value": "c", "occurred_at": "d"}
    with pytest.raises(MappingError, match="could be"):
        read(path, columns=columns)
    (row,) = read(path, columns=columns, date_format="%d/%m/%Y", decimal=",", thousands="")
    assert (row.click_id, row.value, row.day) == ("T.", "1.234", "2026-02-01")


def test_columns_of_the_last_report_are_taken_where_they_are(write: Callable[[str], Path]) -> None:
    path = write("token,Payout\nT.,1\n")
    assert read(path, Known(columns={"click_id": "token", "value": "gone"}))[0].click_id == "T."


def test_bad_rows_are_kept_with_their_reason(write: Callable[[bytes], Path]) -> None:
    """None is dropped: each stands at its line with what is wrong, and the good ones beside it are read."""
    lines = [b"Click ID,Payout,Date", b"a.,1.00,2026-11-20", b"b.,many,2026-11-20", b"c.,1.00", b"d.,\xff\x00,2026-11-20",
             b'"e.,1.00,2026-11-20', b",2.00,2026-11-20", b"f.,1.00,soon", b"Total,9.00,", b"g.,1.00,2026-11-21"]  # fmt: skip
    rows = read(write(b"\n".join(lines)), encoding="utf-8")
    assert [row.line for row in rows if row.problem is None] == [2, 10]
    assert {row.line: (row.problem or "").split(".")[0] for row in rows if row.problem is not None} == {
        3: "value: 'many' is no amount such as 1,234",
        4: "line: has 2 cells where the header has 3",
        5: "line: byte 0xff at place 4 is not utf-8",
        6: "line: opens a quote that is never closed",
        7: "click_id: is empty, and so is the order id",
        8: "occurred_at: 'soon' is not written like 2026-11-22 or 2026-11-22 10:00:00",
        9: "line: is a total, not a conversion",
    }
    assert all(row.raw for row in rows)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "save it as .xlsx"),
        (b"\x1f\x8b\x08\0", "unpack it first"),
        (b"PK\x03\x04 and nothing else", "is no workbook"),
        (b"nothing,of,this\nis,a,report\n", "no column is known to be click_id"),
    ],
)
def test_what_is_no_report_is_refused_in_words(
    write: Callable[[bytes], Path], content: bytes, words: str
) -> None:
    with pytest.raises(MappingError, match=words):
        read(write(content))


def workbook(path: Path, *rows: list[Any], title: str = "Report") -> Path:
    """A real workbook, made by a library of its own."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = title
    for row in rows:
        sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_is_read_like_a_text(tmp_path: Path) -> None:
    """Numbers as numbers, dates as dates, whole numbers without a point; titles above and gaps between are passed."""
    at = datetime(2026, 11, 20, 13, 45, 30)  # noqa: DTZ001 — a sheet's dates have no zone
    path = workbook(
        tmp_path / "r.xlsx",
        ["Conversion report"],
        [],
        ["Click ID", "Order ID", "Payout", "Conversion time"],
        ["Aé <&>.", 1234567890, 49.9, at],
        [],
        ["B.", None, 3, datetime(2026, 11, 21)],  # noqa: DTZ001 — as above
    )
    first, second = read(path, time_zone="Europe/Berlin")
    assert (first.click_id, first.order_id, first.value) == ("Aé <&>.", "1234567890", "49.9")
    assert (first.line, first.at, first.day) == (4, "2026-11-20T13:45:30+01:00", "2026-11-20")
    assert (second.order_id, second.value, second.day) == (None, "3", "2026-11-21")


def test_a_sheet_is_chosen_by_name(tmp_path: Path) -> None:
    path = workbook(tmp_path / "r.xlsx", ["Click ID", "Payout"], ["A.", 1], title="November")
    assert len(read(path, sheet="November")) == 1
    with pytest.raises(MappingError, match="there is no sheet 'May'; there are 'November'"):
        read(path, sheet="May")


def respun(path: Path, **parts: str | bytes) -> Path:
    """The workbook with parts of it replaced."""
    target = path.with_name("hostile.xlsx")
    names = {
        "sheet": "xl/worksheets/sheet1.xml",
        "book": "xl/workbook.xml",
        "strings": "xl/sharedStrings.xml",
    }
    changed = {names[name]: content for name, content in parts.items()}
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for info in source.infolist():
            out.writestr(info.filename, changed.pop(info.filename, source.read(info)))
        for name, content in changed.items():
            out.writestr(name, content)
    return target


MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
LAUGHS = (
    '<!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
    f'<worksheet xmlns="{MAIN}"><sheetData><row><c t="str"><v>&c;</v></c></row></sheetData></worksheet>'
)
FILE_ENTITY = (
    '<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    f'<worksheet xmlns="{MAIN}"><sheetData><row><c t="str"><v>&x;</v></c></row></sheetData></worksheet>'
)


def test_a_workbook_with_entities_is_refused(tmp_path: Path) -> None:
    """None expands, and none reads a file of ours."""
    path = workbook(tmp_path / "r.xlsx", ["Click ID"], ["A."])
    for hostile in (LAUGHS, FILE_ENTITY):
        with pytest.raises(MappingError, match="document type"):
            read(respun(path, sheet=hostile))


def test_a_workbook_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    """By what comes out of it, whatever its directory says."""
    path = workbook(tmp_path / "r.xlsx", ["Click ID"], ["A."])
    bomb = f'<worksheet xmlns="{MAIN}"><sheetData>'.encode() + b" " * (40 << 20)
    with pytest.raises(MappingError, match="unpacks to more than a report could hold"):
        read(respun(path, sheet=bomb))


@pytest.mark.parametrize(
    "sheet",
    [
        "<worksheet><sheetData><row>",
        "not xml at all",
        f'<worksheet xmlns="{MAIN}"/>',
    ],
)
def test_a_damaged_workbook_is_refused_in_words(tmp_path: Path, sheet: str) -> None:
    path = workbook(tmp_path / "r.xlsx", ["Click ID"], ["A."])
    with pytest.raises(MappingError, match=r"damaged|no rows"):
        read(respun(path, sheet=sheet))


def test_odd_cells_are_bounded(tmp_path: Path) -> None:
    """A place far to the right, a string number that is none, and a text beyond the format's limit."""
    path = workbook(tmp_path / "r.xlsx", ["Click ID"], ["A."])
    sheet = (
        f'<x:worksheet xmlns:x="{MAIN}"><x:sheetData><x:row r="1"><x:c r="A1" t="inlineStr"><x:is><x:t>Click ID</x:t></x:is></x:c>'
        f'<x:c r="XFD1"><x:v>7</x:v></x:c></x:row><x:row r="2"><x:c r="A2" t="s"><x:v>99999</x:v></x:c></x:row>'
        f'<x:row r="3"><x:c r="A3" t="str"><x:v>{"z" * 50_000}</x:v></x:c></x:row></x:sheetData></x:worksheet>'
    )
    with Workbook(respun(path, sheet=sheet)) as book:
        rows = list(book.rows())
    assert [number for number, _ in rows] == [1, 2, 3]
    assert rows[0][1] == ["Click ID"]
    assert not any(rows[1][1])
    assert len(rows[2][1][0]) == 32_767
    assert max(len(cells) for _, cells in rows) <= MAX_COLUMNS


def test_rows_are_numbered_once_whatever_they_say(tmp_path: Path) -> None:
    path = workbook(tmp_path / "r.xlsx", ["Click ID"], ["A."])
    rows = "".join(
        f'<row r="{number}"><c t="str"><v>x</v></c></row>'
        for number in ("5", "5", "2", "99999999999", "", "9")
    )
    with Workbook(
        respun(path, sheet=f'<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>')
    ) as book:
        assert [number for number, _ in book.rows()] == [5, 6, 7, 8, 9, 10]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as book:
        book.writestr("hello.txt", "no workbook")
    path = tmp_path / "r.xlsx"
    path.write_bytes(out.getvalue())
    with pytest.raises(MappingError, match=r"it has no xl/workbook\.xml"):
        read(path)
