"""The sink's own report: what a network's interface would let its customer download, as of now."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from infra.sink.errors import SinkConfigError
from infra.sink.ledger import Book

COLUMNS = ("Click ID", "Order ID", "Payout", "Currency", "Conversion time")


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversion that the network counted, as it shows it; ``at`` in its own zone."""

    click_id: str
    order_id: str
    payout: Decimal
    currency: str
    at: datetime

    @property
    def row(self) -> tuple[str, ...]:
        return (
            self.click_id,
            self.order_id,
            f"{self.payout:f}",
            self.currency,
            f"{self.at:%Y-%m-%d %H:%M:%S}",
        )


def listed(
    book: Book, zone: str = "UTC", currency: str = "EUR", instants: Mapping[str, datetime] | None = None
) -> list[Listed]:
    """Every credit in the order in which it was given, once for each time it was given; what was taken back is not in it.

    Networks date a conversion by its own clock or as they are told: ``instants`` by click id, else when it was credited.
    Raises SinkConfigError for a zone that is none.
    """
    try:
        local = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SinkConfigError(
            "zone", f"{zone!r} is no time zone", "Use a name such as Europe/Berlin."
        ) from None
    credited = [
        each for each in book.conversions.values() if each.credited_at is not None and each.total is not None
    ]
    credited.sort(key=lambda each: each.credited_at or 0.0)
    rows = []
    for each in credited:
        at = (instants or {}).get(each.click_id) or datetime.fromtimestamp(each.credited_at or 0.0, UTC)
        share = (each.total or Decimal(0)) / each.times_credited
        shown = Listed(each.click_id, each.order_id, share, currency, at.astimezone(local))
        rows += [shown] * each.times_credited
    return rows


def report_csv(rows: Iterable[Listed]) -> str:
    """The report as the download would be."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows(each.row for each in rows)
    return out.getvalue()
