"""What a report came to, in numbers: per bucket and per cause, with shares, value at stake, and what the shares mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from schemas.money import plain
from schemas.reconciling.findings import Bucket, Cause, Finding, Side
from schemas.reconciling.shares import WORST_FIRST, Standing, share, standing

NO_CURRENCY = "-"
"""Under which amounts are summed whose currency nobody names."""
Amounts = Mapping[str, Decimal]
"""By currency."""


@dataclass(frozen=True, slots=True)
class CauseSummary:
    """One cause within one bucket, with one example."""

    bucket: Bucket
    cause: Cause
    side: Side
    count: int
    amounts: Amounts
    example_line: int | None
    example_postback: int | None
    example: str


@dataclass(frozen=True, slots=True)
class BucketSummary:
    """One bucket. ``share`` is of ``whole``; ``disputed`` counts what is nobody's to settle out."""

    bucket: Bucket
    count: int
    share: Decimal
    disputed: int
    disputed_share: Decimal
    standing: Standing
    amounts: Amounts
    stakes: Amounts = field(default_factory=dict)
    """Of what is disputed alone: the value at stake."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole report. ``told`` is how many of our postbacks of its days were delivered, ``listed`` its counted rows."""

    told: int
    listed: int
    buckets: tuple[BucketSummary, ...]
    causes: tuple[CauseSummary, ...]
    notes: tuple[str, ...] = ()
    """What was noticed of the report as a whole."""
    marked: int = 0
    """Postbacks that it marks as counted."""
    unmarked: int = 0
    """Marks of earlier reports that it takes back."""

    @property
    def standing(self) -> Standing:
        """The worst of its buckets."""
        found = {each.standing for each in self.buckets}
        return next((each for each in WORST_FIRST if each in found), Standing.NORMAL)

    def bucket(self, bucket: Bucket) -> BucketSummary:
        """One of its buckets; every report has all of them."""
        return next(each for each in self.buckets if each.bucket is bucket)


@dataclass(slots=True)
class Tally:
    """Counts findings as they come; the bulk that matched is counted elsewhere and added at the end."""

    counts: Counter[Bucket] = field(default_factory=Counter)
    disputed: Counter[Bucket] = field(default_factory=Counter)
    amounts: dict[Bucket, dict[str, Decimal]] = field(default_factory=dict)
    stakes: dict[Bucket, dict[str, Decimal]] = field(default_factory=dict)
    causes: dict[tuple[Bucket, Cause, Side], list[Any]] = field(default_factory=dict)

    def add(self, found: Finding, line: int | None, postback_id: int | None, times: int = 1) -> None:
        """Count a finding; the first of its cause is the example."""
        self.counts[found.bucket] += times
        self.disputed[found.bucket] += times if found.disputed else 0
        self.add_amount(found.bucket, found.currency, found.stake)
        if found.disputed and found.stake is not None:
            sums = self.stakes.setdefault(found.bucket, {})
            sums[found.currency or NO_CURRENCY] = (
                sums.get(found.currency or NO_CURRENCY, Decimal(0)) + found.stake
            )
        if found.cause is None:
            return
        key = (found.bucket, found.cause, found.side)
        kept = self.causes.setdefault(key, [0, {}, line, postback_id, found.explanation])
        kept[0] += times
        if found.stake is not None:
            currency = found.currency or NO_CURRENCY
            kept[1][currency] = kept[1].get(currency, Decimal(0)) + found.stake

    def add_amount(self, bucket: Bucket, currency: str | None, amount: Decimal | None) -> None:
        """Add to what is at stake in a bucket."""
        if amount is not None:
            sums = self.amounts.setdefault(bucket, {})
            sums[currency or NO_CURRENCY] = sums.get(currency or NO_CURRENCY, Decimal(0)) + amount


def summarise(
    tally: Tally,
    *,
    told: int,
    listed: int,
    earlier: Mapping[Bucket, Sequence[Decimal]],
    notes: Sequence[str] = (),
) -> Summary:
    """``earlier``: per bucket the disputed shares of the destination's reports before this one, newest first."""
    paired = sum(tally.counts[each] for each in (Bucket.MATCHED, Bucket.VALUE_MISMATCH, Bucket.DAY_SHIFT))
    whole = {
        # What was never told is in our log all the same: a share must not pass the whole.
        Bucket.OURS_ONLY: max(told, paired)
        + tally.counts[Bucket.OURS_ONLY]
        - tally.disputed[Bucket.OURS_ONLY],
        Bucket.THEIRS_ONLY: listed,
        Bucket.DUPLICATE: listed,
        Bucket.VALUE_MISMATCH: paired,
        Bucket.DAY_SHIFT: paired,
        Bucket.MATCHED: max(told, paired),
    }
    buckets = []
    for bucket in Bucket:
        count, disputed = tally.counts[bucket], tally.disputed[bucket]
        # Disputes are measured against what was told, of which they are a part; what never fired is none of it.
        base = max(told, disputed) if bucket is Bucket.OURS_ONLY else whole[bucket]
        part = min(share(disputed, base), Decimal(1))
        means = Standing.NORMAL if bucket is Bucket.MATCHED else standing(part, earlier.get(bucket, ()))
        buckets.append(
            BucketSummary(
                bucket, count, min(share(count, whole[bucket]), Decimal(1)), disputed, part, means,
                dict(sorted(tally.amounts.get(bucket, {}).items())),
                dict(sorted(tally.stakes.get(bucket, {}).items())),
            )
        )  # fmt: skip
    causes = [
        CauseSummary(bucket, cause, side, count, dict(sorted(sums.items())), line, postback_id, words)
        for (bucket, cause, side), (count, sums, line, postback_id, words) in tally.causes.items()
    ]
    order = list(Bucket)
    causes.sort(key=lambda each: (order.index(each.bucket), -each.count, each.cause))
    return Summary(told, listed, tuple(buckets), tuple(causes), tuple(notes))


def wire_summary(summary: Summary) -> dict[str, Any]:
    """JSON-ready: counts as numbers, money and shares as text."""
    return {
        "told": summary.told,
        "listed": summary.listed,
        "standing": summary.standing.value,
        "buckets": [
            {
                "bucket": each.bucket.value,
                "count": each.count,
                "share": plain(each.share),
                "disputed": each.disputed,
                "disputed_share": plain(each.disputed_share),
                "standing": each.standing.value,
                "amounts": _wire_amounts(each.amounts),
                "stakes": _wire_amounts(each.stakes),
            }
            for each in summary.buckets
        ],
        "causes": [
            {
                "bucket": each.bucket.value,
                "cause": each.cause.value,
                "side": each.side.value,
                "count": each.count,
                "amounts": _wire_amounts(each.amounts),
                "example_line": each.example_line,
                "example_postback": each.example_postback,
                "example": each.example,
            }
            for each in summary.causes
        ],
        "notes": list(summary.notes),
        "marked": summary.marked,
        "unmarked": summary.unmarked,
    }


def read_summary(stored: Mapping[str, Any]) -> Summary:
    """What ``wire_summary`` made."""
    return Summary(
        told=stored["told"],
        listed=stored["listed"],
        buckets=tuple(
            BucketSummary(
                Bucket(each["bucket"]), each["count"], Decimal(each["share"]), each["disputed"],
                Decimal(each["disputed_share"]), Standing(each["standing"]), _read_amounts(each["amounts"]),
                _read_amounts(each.get("stakes", {})),
            )
            for each in stored["buckets"]
        ),
        causes=tuple(
            CauseSummary(
                Bucket(each["bucket"]), Cause(each["cause"]), Side(each["side"]), each["count"],
                _read_amounts(each["amounts"]), each["example_line"], each["example_postback"], each["example"],
            )
            for each in stored["causes"]
        ),
        notes=tuple(stored["notes"]),
        marked=stored["marked"],
        unmarked=stored["unmarked"],
    )  # fmt: skip


def _wire_amounts(amounts: Amounts) -> dict[str, str]:
    return {currency: plain(amount) for currency, amount in amounts.items()}


def _read_amounts(stored: Mapping[str, str]) -> dict[str, Decimal]:
    return {currency: Decimal(amount) for currency, amount in stored.items()}
