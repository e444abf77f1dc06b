"""A cell is what was said, and never what a spreadsheet runs."""

from __future__ import annotations

import csv
import io
import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from investigations.export.cells import csv_line, csv_safe, csv_text
from investigations.export.inert import inert_json
from investigations.page import print_json
from tests.integration.hostile import HOSTILE, steers

NUMBERS = ["0", "-1", "49.90", "-49.90", "-0.01", "1234567890123456789", "007"]
FORMULAS = ["=1", "+1+1", "-1+1", "-x", "@a", " =1", "\t1", "\rx", "\nx", '"=1', "''=1", "“=1", "\u00a0-x", "\ufeff@x", "＝1", "＋1", "－x", "＠x", "﹣x", "−x", "-", "=", "+49123"]  # fmt: skip  # noqa: RUF001 — forms that look alike are the point


def cells(text: str) -> list[str]:
    """As a reader of RFC 4180 reads the one record there is."""
    (row,) = csv.reader(io.StringIO(text, newline=""), strict=True)
    return row


def runs(cell: str) -> bool:
    """As a spreadsheet decides: by the first character that is neither blank nor quote, in its plain form."""
    bare = cell.lstrip(' \t\r\n"\u00a0\ufeff\u200b')
    return unicodedata.normalize("NFKC", bare)[:1] in set("=+-@\u2212")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_stays_a_number(number: str) -> None:
    """Negative amounts too: a report with apostrophes in it does not add up."""
    assert csv_safe(number) == number


@pytest.mark.parametrize("text", FORMULAS)
def test_what_could_be_a_formula_is_text(text: str) -> None:
    """An apostrophe in front, as spreadsheets want it."""
    assert csv_safe(text).startswith("'")


@pytest.mark.parametrize(
    "text", ["", "nym1CJjY-_~.", "a=b", "x-1", "https://a.example/?b=c&d=-1", "2026-11-22"]
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert csv_safe(text) == text


def test_a_semicolon_opens_no_cell_of_its_own() -> None:
    """Where the list separator is the semicolon, a spreadsheet ends our cells there."""
    assert csv_safe('a; "=1+1') == "a;' \"=1+1"
    assert csv_safe("a;b=c; path=/") == "a;b=c; path=/"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_inert_in_a_cell(text: str) -> None:
    """One line, nothing that steers, nothing that runs, whichever separator the reader has."""
    line = csv_line(["before", text, "after"])
    assert line.endswith("\r\n")
    assert steers(line.removesuffix("\r\n")) == []
    before, cell, after = cells(line)
    assert (before, after) == ("before", "after")
    assert "h0stile" in cell
    assert not runs(cell)
    assert not any(runs(piece) for piece in line.split(";"))


@given(st.text(max_size=40))
@example("\ud800")
def test_any_text_is_inert_and_survives_the_reader(text: str) -> None:
    """What a reader gets is the safe cell, and only plain numbers begin with a sign."""
    line = csv_line([text, "x"])
    assert cells(line) == [csv_safe(text), "x"]
    assert steers(line.removesuffix("\r\n")) == []
    assert not runs(cells(line)[0]) or csv_safe(text) == text


def test_a_whole_csv_has_its_header_first_and_ends_its_lines_by_the_rfc() -> None:
    whole = "".join(csv_text(["a", "b"], [["1", 'x "y", z'], ["-2", "=1"]]))
    assert whole == 'a,b\r\n1,"x ""y"", z"\r\n-2,\'=1\r\n'


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_inert_in_what_a_command_prints_as_json(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing steers the terminal, and a program reads what was said."""
    print_json([{"said": text}])
    printed = capsys.readouterr().out
    assert steers(printed.removesuffix("\n")) == []
    assert json.loads(printed) == {"said": text}
    assert json.loads(inert_json({"said": text})) == {"said": text}
