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


def postback_columns(found: Sequence[FoundPostback]) -> Columns:
    header = (
        "postback", "conversion", "state", "destination", "received (UTC)", "due (UTC)", "attempts", "status",
        "verdict", "value", "order", "event", "reason",
    )  # fmt: skip
    return Columns(header, [_postback(each) for each in found])


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


def show_columns(console: Console, columns: Columns) -> None:
    """A folded table for people, one unbroken line a row for pipes."""
    if not console.is_terminal:
        for text in _aligned([columns.header, *columns.rows]):
            console.print(text, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns.header:
        table.add_column(name, overflow="fold")
    for row in columns.rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    console.print(table)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _style(cell: str) -> str:
    return STATE_STYLES.get(cell, "")
