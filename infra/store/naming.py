"""Which signals and conversions name each other: by the conversion's event id, or by the order id. By index alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, text

from infra.db.engine import as_json
from schemas.event import ConversionEvent, Signal, read_stored
from schemas.signals import Outcome, Standing, confirmed_by


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion as the store has it: what signals name it by, and what it was worth."""

    id: int
    source: str
    event_id: str
    order_id: str | None
    sequence: int | None
    name: str
    occurred_at: datetime
    value: Decimal | None
    net_value: Decimal | None
    currency: str | None
    outcomes: frozenset[Outcome]


@dataclass(frozen=True, slots=True)
class Received:
    """A signal as the store has it; ``waiting``: nothing has been written down yet of what it came to."""

    id: int
    waiting: bool
    event: Signal


@dataclass(frozen=True, slots=True)
class Case:
    """A conversion, all signals that name it, and what they come to."""

    conversion: Conversion
    signals: list[Received]
    result: Standing
    arrives: bool
    """Whether the conversion has just been taken in: then every signal is new to it, also one that was acted on before
    for another conversion of its order."""

    @property
    def differs(self) -> bool:
        """Whether something else stands than before."""
        before = self.conversion
        return (self.result.net_value, self.result.outcomes) != (before.net_value, before.outcomes)

    @property
    def confirmed(self) -> list[Outcome]:
        """Confirmations that have just come."""
        new = [signal for signal in self.signals if signal.waiting or self.arrives]
        return [found for signal in new if (found := confirmed_by(signal.event))]


def signals_about(
    connection: Connection, orders: Iterable[str | None], events: Iterable[str]
) -> list[Received]:
    """Signals about these orders, or about the conversions of these events, oldest first."""
    rows = connection.execute(
        SIGNALS_ABOUT,
        {
            "orders": as_json(sorted({order for order in orders if order})),
            "events": as_json(sorted(set(events))),
        },
    )
    received = []
    for row in rows:
        event = read_stored(row.event)
        assert not isinstance(event, ConversionEvent)
        received.append(Received(row.id, row.status == "waiting", event))
    return received


SIGNALS_ABOUT = text("""
    SELECT id, status, event::text AS event FROM signals
    WHERE order_id = ANY(ARRAY(SELECT json_array_elements_text(:orders))) AND conversion_event_id IS NULL
    UNION ALL
    SELECT id, status, event::text FROM signals
    WHERE conversion_event_id = ANY(ARRAY(SELECT json_array_elements_text(:events)))
    ORDER BY id""")

_COLUMNS = """id, source, event_id, order_id, (event->>'sequence')::int AS sequence, name, occurred_at, value, net_value, currency,
        outcomes"""
CONVERSIONS_NAMED = text(f"""
    SELECT {_COLUMNS} FROM conversions
    WHERE order_id = ANY(ARRAY(SELECT json_array_elements_text(:orders)))
    UNION
    SELECT {_COLUMNS} FROM conversions
    WHERE event_id = ANY(ARRAY(SELECT json_array_elements_text(:events)))
    ORDER BY id""")  # noqa: S608 — literals of ours


def conversions_named(connection: Connection, signals: Iterable[Signal]) -> list[Conversion]:
    """Conversions that any of these signals may name, in the order of their ids."""
    by_event = {s.conversion_event_id for s in signals if s.conversion_event_id is not None}
    by_order = {s.order_id for s in signals if s.order_id is not None and s.conversion_event_id is None}
    rows = connection.execute(
        CONVERSIONS_NAMED, {"orders": as_json(sorted(by_order)), "events": as_json(sorted(by_event))}
    )
    return [
        Conversion(
            row.id, row.source, row.event_id, row.order_id, row.sequence, row.name, row.occurred_at, row.value,
            row.net_value, row.currency, frozenset(row.outcomes),
        )
        for row in rows
    ]  # fmt: skip
