"""Small charts as geometry: what stands where in a drawing of fixed size. Pure; colours are the stylesheet's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.verdict import VerdictKind

WIDTH, HEIGHT = 480, 72
"""Of every chart, in its own units; the page stretches it."""
GAP = 0.18
"""Of a bar's place, left free between bars."""
CLASSES: dict[str, tuple[VerdictKind, ...]] = {
    "good": (VerdictKind.DELIVERED, VerdictKind.DUPLICATE),
    "again": (VerdictKind.RETRY, VerdictKind.UNKNOWN),
    "bad": (VerdictKind.REJECTED, VerdictKind.IN_DOUBT),
}
"""How verdicts are drawn, from the bottom up: it is there, it is tried again, it is lost or needs a person."""
NAMES = {"good": "delivered", "again": "to be tried again", "bad": "rejected or in doubt"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle. ``kind`` is a key of ``CLASSES``."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """One span of time: its counts by kind, and the words that say them."""

    at: datetime
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars over time. ``words`` says for those who do not see it what there is to see."""

    bars: tuple[Bar, ...]
    columns: tuple[Column, ...]
    peak: int
    words: str


def attempts_chart(spans: Sequence[tuple[datetime, Mapping[VerdictKind, int]]], span_s: int) -> Chart:
    """Attempts by verdict over consecutive spans of ``span_s`` seconds. The highest column fills the height."""
    columns = tuple(Column(at, _classed(counts)) for at, counts in spans)
    peak = max((column.total for column in columns), default=0)
    place = WIDTH / max(len(columns), 1)
    bars = []
    for number, column in enumerate(columns):
        y = float(HEIGHT)
        for kind, count in column.counts.items():
            if not count:
                continue
            # What is there must be seen, however little it is beside the rest.
            height = max(count / peak * HEIGHT, 1.5)
            y -= height
            x = number * place + place * GAP / 2
            bars.append(
                Bar(kind, round(x, 2), round(max(y, 0), 2), round(place * (1 - GAP), 2), round(height, 2))
            )
    return Chart(tuple(bars), columns, peak, _words(columns, peak, span_s))


def _classed(counts: Mapping[VerdictKind, int]) -> dict[str, int]:
    return {kind: sum(counts.get(each, 0) for each in verdicts) for kind, verdicts in CLASSES.items()}


def _words(columns: Sequence[Column], peak: int, span_s: int) -> str:
    total = sum(column.total for column in columns)
    if not total:
        return "No attempt in this time."
    sums = {kind: sum(column.counts[kind] for column in columns) for kind in CLASSES}
    parts = [f"{count:,} {NAMES[kind]}" for kind, count in sums.items() if count]
    busiest = next(column for column in columns if column.total == peak)
    return (
        f"{total:,} attempts: {', '.join(parts)}. Most, {peak:,}, in the {_span(span_s)} from "
        f"{busiest.at:%Y-%m-%d %H:%M} UTC."
    )


def _span(seconds: int) -> str:
    minutes = timedelta(seconds=seconds) // timedelta(minutes=1)
    return f"{minutes // 60} hours" if minutes >= 120 else "hour" if minutes == 60 else f"{minutes} minutes"
