"""Where the time of an attempt went, as bars: name resolution, connection, waiting, receiving, hop by hop. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from investigations.words import milliseconds
from schemas.exchange import Hop

WIDTH, ROW, TOP = 640.0, 22.0, 18.0
_LEFT, _RIGHT = 52.0, WIDTH - 76.0
PHASES = ("dns", "connect", "wait", "receive")


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of a hop, in units of the drawing."""

    x: float
    width: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """One hop."""

    y: float
    name: str
    phases: tuple[Phase, ...]
    total: str
    end_x: float


@dataclass(frozen=True, slots=True)
class Waterfall:
    """All hops of an attempt under each other; ``says`` is the text of it."""

    width: float
    height: float
    rows: tuple[Row, ...]
    says: str


def durations(hop: Hop) -> list[tuple[str, float]]:
    """A hop's phases in order with their milliseconds; what was not reached, or cost nothing, is left out.

    ``wait``: from the connection until the first byte of an answer; ``receive``: from then until the last one. Of a
    hop without an answer all that is left is waiting.
    """
    dns, connect = hop.dns_ms or 0.0, hop.connect_ms or 0.0
    total = hop.total_ms or 0.0
    first = total if hop.first_byte_ms is None else hop.first_byte_ms
    found = zip(PHASES, (dns, connect, max(first - dns - connect, 0.0), max(total - first, 0.0)), strict=True)
    return [(kind, length) for kind, length in found if length > 0]


def waterfall(hops: Sequence[Hop]) -> Waterfall | None:
    """The drawing, from the first hop's start on; None where nothing was timed."""
    timed = [hop for hop in hops if hop.total_ms]
    if not timed:
        return None
    start = timed[0].started_at
    offsets = [max((hop.started_at - start).total_seconds() * 1000, 0.0) for hop in timed]
    whole = max(offset + (hop.total_ms or 0.0) for offset, hop in zip(offsets, timed, strict=True))
    unit = (_RIGHT - _LEFT) / whole
    rows = [
        _row(hop, offset, unit, number)
        for number, (offset, hop) in enumerate(zip(offsets, timed, strict=True))
    ]
    return Waterfall(WIDTH, TOP + ROW * len(rows) + 4, tuple(rows), "; ".join(map(_says, timed)))


def _row(hop: Hop, offset: float, unit: float, number: int) -> Row:
    phases = tuple(_phases(hop, _LEFT + offset * unit, unit))
    end_x = _LEFT + (offset + (hop.total_ms or 0.0)) * unit
    return Row(TOP + number * ROW, f"hop {hop.number}", phases, milliseconds(hop.total_ms), end_x)


def _phases(hop: Hop, x: float, unit: float) -> Iterator[Phase]:
    for kind, length in durations(hop):
        yield Phase(x, max(length * unit, 1.0), kind, f"{kind} {milliseconds(length)}")
        x += length * unit


def _says(hop: Hop) -> str:
    parts = ", ".join(f"{kind} {milliseconds(length)}" for kind, length in durations(hop))
    return f"hop {hop.number}: {parts}, in all {milliseconds(hop.total_ms)}"
