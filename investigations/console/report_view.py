"""A report's buckets as bars beside the lines of 2 % and 5 %. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from investigations.reconcile.pages import bucket_name, percent
from schemas.reconciling.findings import Bucket
from schemas.reconciling.shares import NORMAL_BELOW, STRUCTURAL_ABOVE
from schemas.reconciling.summary import Summary

LEFT, RIGHT, ROW, TOP = 120.0, 560.0, 24.0, 18.0
_AXIS = Decimal("0.10")
"""What the axis reaches: both lines stand on it with room between, and what is beyond runs to its end and says so."""


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    y: float
    width: float
    standing: str
    share: str


@dataclass(frozen=True, slots=True)
class Chart:
    width: float
    height: float
    bars: tuple[Bar, ...]
    normal_x: float
    structural_x: float
    says: str


def chart(summary: Summary) -> Chart:
    """Disputed shares, a bar for each bucket that can be disputed."""
    buckets = [each for each in summary.buckets if each.bucket is not Bucket.MATCHED]
    bars = tuple(
        Bar(
            bucket_name(each.bucket),
            TOP + number * ROW,
            _x(each.disputed_share) - LEFT,
            each.standing.value,
            percent(each.disputed_share) + (" →" if each.disputed_share > _AXIS else ""),
        )
        for number, each in enumerate(buckets)
    )
    return Chart(
        RIGHT + 70,
        TOP + len(bars) * ROW + 4,
        bars,
        _x(NORMAL_BELOW),
        _x(STRUCTURAL_ABOVE),
        "Disputed shares: " + ", ".join(f"{bar.name} {bar.share}" for bar in bars),
    )


def _x(share: Decimal) -> float:
    return LEFT + float(min(share / _AXIS, Decimal(1))) * (RIGHT - LEFT)
