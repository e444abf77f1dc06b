"""Three accounts held against each other: what was expected, what the sink counted, what the ledger says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, text

from infra.demo.sample import Sample


@dataclass(slots=True)
class Line:
    """One network's row of the table."""

    network: str
    stood: int = 0
    counted: int = 0
    delivered: int = 0
    voided: int = 0
    voided_fired: int = 0
    repeats: int = 0


@dataclass(slots=True)
class Comparison:
    """``faults`` is empty exactly when the promise held. ``repeats`` names every postback sent more than once."""

    lines: list[Line] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    repeats: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """By network and why."""


@dataclass(frozen=True, slots=True)
class _Booked:
    postback: str
    state: str
    release_at: datetime
    attempts: int
    why_again: str


def compare(
    expected: Sample, requests: Iterable[dict[str, Any]], credited: Iterable[dict[str, Any]], engine: Engine
) -> Comparison:
    """Hold the sink's own record against what was expected, conversion by conversion, and against the ledger."""
    seen: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for request in requests:
        seen[request["profile"], request["click_id"]].append(request)
    credits_ = {(one["profile"], one["click_id"]): one for one in credited}
    booked = _booked(engine)
    result = Comparison()
    for network in sorted({one.network for one in expected.postbacks}):
        line = Line(network)
        for one in expected.of(network, "counted"):
            key = (network, one.click_id)
            line.stood += 1
            credit, book = credits_.get(key), booked.get(key)
            times = 0 if credit is None else int(credit["times_credited"])
            line.counted += times == 1
            line.delivered += book is not None and book.state == "delivered"
            if times != 1:
                result.faults.append(f"{network} counted order {one.order_id} {times} times")
            if credit is not None and one.value is not None and Decimal(credit["value"]) != one.value:
                result.faults.append(
                    f"{network} got {credit['value']} for order {one.order_id}, not {one.value}"
                )
            if book is not None:
                _check_earliness(one.order_id, book, seen[key], result)
                line.repeats += _name_repeat(network, book, credit, result)
        for one in expected.of(network, "voided"):
            key = (network, one.click_id)
            book = booked.get(key)
            line.voided += book is not None and book.state == "voided"
            if seen.get(key):
                line.voided_fired += 1
                result.faults.append(f"order {one.order_id} was voided, and still fired to {network}")
            if book is None or book.state != "voided":
                result.faults.append(
                    f"order {one.order_id} at {network} is {book and book.state}, not voided"
                )
        strangers = {key for key in credits_ if key[0] == network} - {
            (network, one.click_id) for one in expected.of(network, "counted")
        }
        result.faults += [f"{network} counted {click_id}, which nobody expected" for _, click_id in strangers]
        result.lines.append(line)
    return result


def _check_earliness(
    order_id: str, book: _Booked, requests: list[dict[str, Any]], result: Comparison
) -> None:
    if (
        requests
        and (first := min(datetime.fromisoformat(one["received_at"]) for one in requests)) < book.release_at
    ):
        result.faults.append(f"order {order_id} fired {book.release_at - first} early")


def _name_repeat(network: str, book: _Booked, credit: dict[str, Any] | None, result: Comparison) -> bool:
    times = 0 if credit is None else int(credit["times_requested"])
    if times < 2:
        return False
    result.repeats.setdefault((network, book.why_again), []).append(book.postback)
    return True


def _booked(engine: Engine) -> dict[tuple[str, str], _Booked]:
    query = text("""
        SELECT v.contract->'destination'->>'network' AS network, p.id, p.state, p.release_at, p.attempts,
            c.event->'click_ids'->>(v.contract->'destination'->>'network') AS click_id,
            (SELECT string_agg(a.rule, ', ' ORDER BY a.number) FROM attempts a
             WHERE a.postback_id = p.id AND a.state = 'retrying') AS why_again
        FROM postbacks p JOIN conversions c ON c.id = p.conversion_id JOIN destination_versions v ON v.id = p.version_id
        WHERE p.state <> 'duplicate'""")
    with engine.connect() as connection:
        return {
            (row.network, row.click_id): _Booked(
                f"pb_{row.id}", row.state, row.release_at, row.attempts, row.why_again or "no attempt failed"
            )
            for row in connection.execute(query)
        }
