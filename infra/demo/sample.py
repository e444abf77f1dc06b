"""The sample orders, and what must have become of each: written down beside them, not computed by Holdfire."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

HERE = Path(str(files("infra.demo")))
ORDERS = ("shop.ndjson", "lender.ndjson", "app.ndjson")
SIGNALS = "signals.ndjson"
LATE = "late.ndjson"


@dataclass(frozen=True, slots=True)
class Expected:
    """One order at one network. ``fate``: ``counted`` or ``voided``; ``value`` is what must be reported, if given."""

    order_id: str
    network: str
    click_id: str
    fate: str
    value: Decimal | None


@dataclass(frozen=True, slots=True)
class Sample:
    """``rejected_lines`` are the lines of the order files that no intake may take."""

    postbacks: tuple[Expected, ...]
    rejected_lines: int
    late_refunds: tuple[str, ...]

    @property
    def orders(self) -> int:
        return len({one.order_id for one in self.postbacks})

    def of(self, network: str, fate: str) -> list[Expected]:
        return [one for one in self.postbacks if one.network == network and one.fate == fate]


def path(name: str) -> Path:
    return HERE / "sample" / name


def load() -> Sample:
    raw: dict[str, Any] = json.loads(path("expected.json").read_text("utf-8"))
    postbacks = tuple(
        Expected(
            one["order_id"],
            one["network"],
            one["click_id"],
            one["fate"],
            Decimal(one["value"]) if "value" in one else None,
        )
        for one in raw["postbacks"]
    )
    return Sample(postbacks, raw["rejected_lines"], tuple(raw["late_refunds"]))
