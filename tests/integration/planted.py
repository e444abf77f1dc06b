"""The planted set: conversions of every fate through the real pipeline to the sink, and the sink's own report on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from infra.sink.report import Listed, listed, report_csv
from infra.sink.thread import SinkThread
from infra.store.reports.reports import FindingRecord, ReportRecord, all_findings
from investigations.reconcile.running import run
from schemas.reconciling.options import read_options
from tests.integration.ground import Ground, contract, conversion, generic_url

DESTINATION = "net"
DAY = datetime.now(UTC).date() - timedelta(days=8)
NOON = datetime.combine(DAY, time(12), UTC)
PLAIN = 30
"""Conversions of no interest: enough to tell what a click id of the network looks like."""


def token(name: str) -> str:
    """A click id as networks make them: letters of both cases, and a period at its end. Told by its name."""
    return f"nym1CJjYiJ3oq6LkMxACGIHey7vM0vG{sha256(name.encode()).hexdigest()[:12]}DRyIJMTAuMS4xMi42KAE."


@dataclass
class Planted:
    """One database, one sink, and what the network is to report."""

    ground: Ground
    sink: SinkThread
    folder: Path
    instants: dict[str, datetime] = field(default_factory=dict)

    def apply(self, **table: Any) -> None:
        """The destination, and one whose answers are spoilt in each way under test."""
        self.ground.apply(
            contract(
                DESTINATION,
                generic_url(self.sink.url),
                events=["purchase", "lease"],
                holds=[{"events": ["lease"], "hold": {"kind": "refund", "wait": "90d"}}],
                dedupe="harmless",
                **table,
            )
        )

    def event(self, of: str, at: datetime = NOON, **fields: Any) -> dict[str, Any]:
        """A purchase of 49.90 EUR at noon of the day, whose click id the network gave out."""
        click_id = fields.pop("click_id", token(of))
        self.instants[click_id] = at
        return conversion(
            of, occurred_at=at.isoformat(), click_ids={"generic": click_id}, order_id=f"order-{of}", **fields
        )

    def rows(self, zone: str = "UTC") -> list[Listed]:
        """What the network counted, dated by when the conversion happened, in its own zone."""
        return listed(self.sink.sink.books["generic"], zone, instants=self.instants)

    def reconcile(
        self, rows: list[Listed], damage: Callable[[str], str] = lambda text: text, **options: Any
    ) -> ReportRecord:
        """The report as a file, reconciled."""
        path = self.folder / "report.csv"
        path.write_text(damage(report_csv(rows)), newline="")
        return run(self.engine, DESTINATION, path, read_options(options), "test")

    @property
    def engine(self) -> Engine:
        return self.ground.engine

    def found(self, record: ReportRecord) -> list[FindingRecord]:
        return list(all_findings(self.engine, record.id))


def changed(rows: list[Listed], name: str, **fields: Any) -> list[Listed]:
    """The report with the row of one conversion changed."""
    assert any(each.order_id == f"order-{name}" for each in rows), name
    return [replace(each, **fields) if each.order_id == f"order-{name}" else each for each in rows]


def without(rows: list[Listed], *names: str) -> list[Listed]:
    """The report without the rows of some."""
    gone = {f"order-{name}" for name in names}
    assert gone <= {each.order_id for each in rows}
    return [each for each in rows if each.order_id not in gone]


def extra(name: str, click_id: str, at: datetime = NOON) -> Listed:
    """A row that the network has from somewhere else."""
    return Listed(click_id, f"order-{name}", Decimal("49.90"), "EUR", at)
