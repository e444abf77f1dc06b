"""Listings as columns: aligned and whole when piped, a table that fits when in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.store.records import ConversionRecord, FoundPostback, RejectRecord, SignalRecord
from investigations.page import STATE_STYLES
from investigations.words import clock, money, visible
from schemas.ids import show


@dataclass(frozen=True, slots=True)
class Columns:
    """A header and rows of printable cells, in reading order."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    minor: tuple[str, ...] = ()
    """Columns a narrow terminal goes without, the first of them first."""


def postback_columns(found: Sequence[FoundPostback]) -> Columns:
    """What corrects another and what is lost has a column where there is any."""
    header: tuple[str, ...] = (
        "postback", "conversion", "state", "destination", "received (UTC)", "due (UTC)", "attempts", "status",
        "verdict", "value", "order", "event", "reason",
    )  # fmt: skip
    rows = [_postback(each) for each in found]
    extra: dict[str, list[str]] = {
        "lost": [_lost(each) for each in found],
        "adjustment": [each.adjustment or "-" for each in found],
        # What no narrow terminal goes without: a correction is not taken for what it corrects.
        "corrects": ["-" if each.adjusts is None else show("pb", each.adjusts) for each in found],
    }
    for name, cells in extra.items():
        if any(cell != "-" for cell in cells):
            header = (*header[:3], name, *header[3:])
            rows = [(*row[:3], cell, *row[3:]) for row, cell in zip(rows, cells, strict=True)]
    minor = ["adjustment", "conversion", "verdict", "attempts", "value", "due (UTC)", "order"]
    if {"lost", "corrects"} & set(header):
        minor.append("received (UTC)")
    return Columns(header, rows, tuple(name for name in minor if name in header))


def _lost(each: FoundPostback) -> str:
    if each.lost_at is None:
        return "-"
    return "no amount" if each.lost is None else money(each.lost, each.currency)


def _postback(each: FoundPostback) -> tuple[str, ...]:
    return (
        show("pb", each.postback_id), show("cv", each.conversion_id), each.state.value, each.destination,
        clock(each.received_at)[:19], clock(each.due_at)[:19] if each.due_at else "-", str(each.attempts_made),
        str(each.status_code or "-"), each.verdict.value if each.verdict else "-",
        "-" if each.net_value is None else money(each.net_value, each.currency), visible(each.order_id or "-"),
        visible(each.event_id), visible(each.reason or "-"),
    )  # fmt: skip


def unrouted_columns(found: Sequence[ConversionRecord]) -> Columns:
    header = ("conversion", "received (UTC)", "name", "order", "event", "source", "reason")
    rows = [
        (
            show("cv", each.id), clock(each.received_at)[:19], visible(each.event.name),
            visible(each.event.order_id or "-"), visible(each.event.event_id), each.event.source,
            visible(each.unrouted_reason or "-"),
        )
        for each in found
    ]  # fmt: skip
    return Columns(header, rows)


def signal_columns(found: Sequence[SignalRecord]) -> Columns:
    header = (
        "signal",
        "received (UTC)",
        "type",
        "status",
        "order",
        "conversion event",
        "event",
        "source",
        "outcome",
    )
    rows = [
        (
            show("sg", each.id), clock(each.received_at)[:19], each.event.type, each.status,
            visible(each.event.order_id or "-"), visible(each.event.conversion_event_id or "-"),
            visible(each.event.event_id), each.event.source, visible(each.outcome),
        )
        for each in found
    ]  # fmt: skip
    return Columns(header, rows)


def reject_columns(found: Sequence[RejectRecord]) -> Columns:
    header = ("reject", "received (UTC)", "code", "source", "event", "reason")
    rows = [
        (
            str(each.id), clock(each.received_at)[:19], each.code, visible(each.source or "-"),
            visible(each.event_id or "-"), visible("; ".join(map(str, each.problems))),
        )
        for each in found
    ]  # fmt: skip
    return Columns(header, rows)


ROOM_FOR_THE_LAST = 24
"""Characters that the last column, which gives reasons, has at least in a terminal."""


def show_columns(console: Console, columns: Columns) -> tuple[str, ...]:
    """A table that fits for people, one unbroken line a row for pipes. Returns the columns that found no room."""
    if not console.is_terminal:
        for text in _aligned([columns.header, *columns.rows]):
            console.print(text, soft_wrap=True)
        return ()
    left_out: tuple[str, ...] = ()
    rows = [columns.header, *columns.rows]
    for name in columns.minor:
        if sum(widths(rows)[:-1]) + 2 * len(rows[0]) + ROOM_FOR_THE_LAST <= console.width:
            break
        place = rows[0].index(name)
        rows = [row[:place] + row[place + 1 :] for row in rows]
        left_out += (name,)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
    console.print(table)
    return left_out


def widths(rows: Sequence[tuple[str, ...]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    sizes = widths(rows)
    return [
        "  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip() for row in rows
    ]
