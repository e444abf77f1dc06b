"""Evidence as CSV: a row an attempt. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from zoneinfo import ZoneInfo

from investigations.export.cells import csv_line
from investigations.export.exhibit import Exhibit
from investigations.export.fields import shown

LINE = " ⏎ "
"""Stands for a line end inside a cell: a record is one line, whatever reads it."""


def csv_header(names: Sequence[str]) -> str:
    """The first line: the fields' names as they are in ``schemas.support.FIELDS``."""
    return csv_line(names)


def csv_rows(names: Sequence[str], exhibits: Iterable[Exhibit], zone: ZoneInfo) -> Iterator[str]:
    """A line an attempt."""
    for exhibit in exhibits:
        yield csv_line(
            value.replace("\r\n", "\n").replace("\n", LINE) for value in shown(names, exhibit, zone)
        )
