"""The sink's own count: what was requested, what it would have credited, and why the rest was not.

A book keeps one profile's count. Two balances hold at any time and are tested:
requests = credited + Σ not credited + redirected + corrected, and credited = Σ over conversions of times credited.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from infra.sink.judgement import Judgement


def iso(at: float) -> str:
    """An instant in seconds since the epoch as ISO 8601 in UTC, to the microsecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Conversion:
    """What a profile knows of one key."""

    click_id: str
    order_id: str
    value: str
    first_at: float
    last_at: float
    times_requested: int = 0
    """Requests that began a fire for it, badly answered ones counted in; a followed redirect is not one more."""
    times_judged: int = 0
    """Requests that reached the network's decision: above 1, the network was told twice."""
    times_credited: int = 0
    credited_at: float | None = None
    total: Decimal | None = None
    """What it is worth to the network, every credit counted and every correction made; None when it was taken back."""

    def credit(self, value: str, at: float) -> None:
        """Count it once more, at ``value``; one that was taken back starts anew."""
        self.times_credited += 1
        self.credited_at = at if self.credited_at is None else self.credited_at
        self.total = (self.total or Decimal(0)) + (amount_of(value) or Decimal(0))


def amount_of(text: str) -> Decimal | None:
    """The bare number that ``text`` is, or None."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return None
    bare = amount.is_finite() and not text.startswith("+") and "e" not in text.lower()
    return amount if bare else None


class Issued:
    """The click ids a network has given out, and what a stranger to the list looks like."""

    def __init__(self, click_ids: Iterable[str] = ()) -> None:
        self._exact: set[str] = set()
        self.add(click_ids)

    def __bool__(self) -> bool:
        return bool(self._exact)

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, click_ids: Iterable[str]) -> None:
        """Give out more click ids."""
        self._exact.update(click_ids)
        self._folded = {click_id.casefold() for click_id in self._exact}
        self._sorted = sorted(self._exact)

    def objection(self, click_id: str) -> str:
        """Why ``click_id`` is not one of those given out; empty when it is, or when no list was given."""
        if not self._exact or click_id in self._exact:
            return ""
        if click_id + "." in self._exact:
            return "trailing-period-lost"
        if click_id.casefold() in self._folded:
            return "case-changed"
        if "%" in click_id:
            return "encoded-twice"
        at = bisect_left(self._sorted, click_id)
        if click_id and at < len(self._sorted) and self._sorted[at].startswith(click_id):
            return "truncated"
        return "click-id-unknown"


class Book:
    """One profile's count. Judging reads it; only ``enter`` writes."""

    def __init__(self, issued: Iterable[str] = ()) -> None:
        self.issued = Issued(issued)
        self.clear()

    def clear(self) -> None:
        """Forget all requests; the click ids that were given out stay."""
        self.requests = 0
        self.credited = 0
        self.redirected = 0
        self.corrected = 0
        self.not_credited: Counter[str] = Counter()
        self.awaiting: Counter[str] = Counter()
        self.conversions: dict[tuple[str, ...], Conversion] = {}

    def is_credited(self, key: tuple[str, ...]) -> bool:
        """Whether ``key`` was credited before."""
        found = self.conversions.get(key)
        return found is not None and found.times_credited > 0

    def is_requested(self, key: tuple[str, ...]) -> bool:
        """Whether a fire for ``key`` was seen before."""
        return key in self.conversions

    def awaits(self, target: str) -> bool:
        """Whether a redirect to ``target`` was answered and not followed yet."""
        return self.awaiting[target] > 0 if target in self.awaiting else False

    def enter(self, judgement: Judgement, at: float, *, reached: bool = True) -> None:
        """Count one request. ``reached`` is False when a bad answer kept it from the network's decision."""
        self.requests += 1
        if judgement.opens and reached:
            self.redirected += 1
            self.awaiting[judgement.opens] += 1
        elif judgement.credited:
            self.credited += 1
        elif judgement.corrects:
            self.corrected += 1
        else:
            self.not_credited[judgement.reason] += 1
        if judgement.closes and reached:
            self.awaiting[judgement.closes] -= 1
            if self.awaiting[judgement.closes] <= 0:
                del self.awaiting[judgement.closes]
        for key in judgement.corrects:
            self.conversions[key].total = judgement.total
        if judgement.key:
            self._enter_conversion(judgement, at, reached)

    def _enter_conversion(self, judgement: Judgement, at: float, reached: bool) -> None:
        found = self.conversions.get(judgement.key)
        if found is None:
            found = Conversion(judgement.click_id, judgement.order_id, judgement.value, at, at)
            self.conversions[judgement.key] = found
        found.last_at = at
        if not judgement.closes:
            found.times_requested += 1
        if reached and not judgement.opens:
            found.times_judged += 1
        if judgement.credited:
            found.credit(judgement.value, at)

    def counts(self) -> dict[str, Any]:
        """The count as JSON: totals, reasons, and every conversion the network was told of twice."""
        return {
            "requests": self.requests,
            "credited": self.credited,
            "credited_conversions": sum(1 for found in self.conversions.values() if found.times_credited),
            "redirected": self.redirected,
            "corrected": self.corrected,
            "awaiting_redirect": sum(self.awaiting.values()),
            "not_credited": dict(sorted(self.not_credited.items())),
            "duplicates": [
                {
                    "click_id": found.click_id,
                    "order_id": found.order_id,
                    "times_requested": found.times_requested,
                    "times_judged": found.times_judged,
                    "times_credited": found.times_credited,
                }
                for found in self.conversions.values()
                if found.times_judged > 1
            ],
        }

    def credits(self, profile: str) -> list[dict[str, Any]]:
        """Every credited conversion, in the order in which it was first credited."""
        found = [found for found in self.conversions.values() if found.credited_at is not None]
        found.sort(key=lambda conversion: conversion.credited_at or 0.0)
        return [
            {
                "profile": profile,
                "click_id": conversion.click_id,
                "order_id": conversion.order_id,
                "value": conversion.value,
                "at": iso(conversion.credited_at or 0.0),
                "last_requested_at": iso(conversion.last_at),
                "times_requested": conversion.times_requested,
                "times_credited": conversion.times_credited,
            }
            for conversion in found
        ]

    def credited_keys(self, fits: Callable[[Conversion], bool]) -> tuple[tuple[str, ...], ...]:
        """Keys of the credited conversions that ``fits``, also of those that were taken back."""
        return tuple(key for key, found in self.conversions.items() if found.times_credited and fits(found))

    def totals(self) -> dict[str, Decimal | None]:
        """By click id, what its conversions are worth to the network after all corrections: None when all of them were
        taken back, 0 for one without a value."""
        totals: dict[str, Decimal | None] = {}
        for found in self.conversions.values():
            if found.times_credited:
                before = totals.get(found.click_id)
                both = [each for each in (before, found.total) if each is not None]
                totals[found.click_id] = sum(both, Decimal(0)) if both else None
        return totals
