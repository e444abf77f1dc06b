"""Shares against the rule of the trade: below 2 % a discrepancy is normal, above 5 % that lasts it is structural."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum

NORMAL_BELOW = Decimal("0.02")
STRUCTURAL_ABOVE = Decimal("0.05")
SUSTAINED_REPORTS = 2
"""Reports in a row, this one included, that must lie above for it to be structural."""


class Standing(StrEnum):
    """What a share of disputed conversions means."""

    NORMAL = "normal"
    """Below 2 %: clocks, late reports and rounding alone come to that."""
    NOTICEABLE = "noticeable"
    """From 2 % to 5 %: worth a look at its causes."""
    HIGH = "high"
    """Above 5 %, for the first time."""
    STRUCTURAL = "structural"
    """Above 5 % in this report and in the one before: something is built wrong."""

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Standing.NORMAL: "normal, below 2 %",
    Standing.NOTICEABLE: "between 2 % and 5 %: look at the causes",
    Standing.HIGH: "above 5 %: structural if it lasts",
    Standing.STRUCTURAL: "above 5 % again: structural",
}
WORST_FIRST = (Standing.STRUCTURAL, Standing.HIGH, Standing.NOTICEABLE, Standing.NORMAL)


def share(part: int, whole: int) -> Decimal:
    """``part`` of ``whole``, to four places; all of it when there is nothing that it could be a part of."""
    if part == 0:
        return Decimal(0)
    return Decimal(1) if whole <= 0 else (Decimal(part) / whole).quantize(Decimal("0.0001"))


def standing(disputed: Decimal, earlier: Sequence[Decimal] = ()) -> Standing:
    """``disputed`` is this report's share, ``earlier`` those of the destination's reports before it, newest first."""
    if disputed < NORMAL_BELOW:
        return Standing.NORMAL
    if disputed <= STRUCTURAL_ABOVE:
        return Standing.NOTICEABLE
    before = list(earlier[: SUSTAINED_REPORTS - 1])
    lasts = len(before) == SUSTAINED_REPORTS - 1 and all(each > STRUCTURAL_ABOVE for each in before)
    return Standing.STRUCTURAL if lasts else Standing.HIGH
