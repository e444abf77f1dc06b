"""Cells of a CSV that a spreadsheet shows and never runs. Pure.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and what we write into cells was
said by strangers. Such a cell gets an apostrophe in front, which spreadsheets take for "this is text". What cannot be
printed is written out as in ``investigations.words.visible``, so a cell is always one line.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

from investigations.words import visible

BOM = "\ufeff"
"""In front of a CSV it tells Excel that the text is UTF-8."""
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_FORMULA = frozenset("=+-@\u2212")
_STEERING = frozenset("\t\r\n")
# A spreadsheet whose list separator is the semicolon ends our cells there, quotes or no quotes.
_AFTER_SEMICOLON = re.compile(r";(?=(?P<lead>[\s\"'`]*)(?P<first>[^\s\"'`]))")


def csv_safe(text: str) -> str:
    """``text`` as a cell: printable, on one line, and inert. A plain number, negative ones too, stays as it is."""
    if _NUMBER.fullmatch(text):
        return text
    shown = visible(text)
    shown = _AFTER_SEMICOLON.sub(lambda found: ";'" if _is_formula(found["first"]) else ";", shown)
    return f"'{shown}" if _begins_formula(text) or _begins_formula(shown) else shown


def csv_line(cells: Iterable[str]) -> str:
    """One record by RFC 4180, with its CRLF; every cell goes through ``csv_safe``."""
    target = io.StringIO()
    csv.writer(target, lineterminator="\r\n").writerow([csv_safe(cell) for cell in cells])
    return target.getvalue()


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """The lines of a whole CSV, header first."""
    yield csv_line(header)
    yield from map(csv_line, rows)


def _begins_formula(text: str) -> bool:
    if text[:1] in _STEERING and text:
        return True
    first = next((char for char in text if not _is_skipped(char)), "")
    return bool(first) and _is_formula(first)


def _is_formula(char: str) -> bool:
    """Also in its full-width, small and raised forms, which some spreadsheets take for the plain one."""
    return unicodedata.normalize("NFKC", char)[:1] in _FORMULA


def _is_skipped(char: str) -> bool:
    """What a spreadsheet may pass over in front of a formula: blanks, quotes and what cannot be seen."""
    return char.isspace() or not char.isprintable() or char in "\"'`´‘’‚‛“”„‟«»‹›＂＇"  # noqa: RUF001 — quotes of every kind
