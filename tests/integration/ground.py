"""The ground that pipeline tests stand on: destinations at a sink, events, and one process's firing, all of it real."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, text

from infra.catalogue import load_catalogue
from infra.store import destinations, releasing
from infra.store.destinations import Destinations
from infra.store.intake import IntakeResult
from schemas.destination import Contract, Destination, join
from workers.firing import Firing
from workers.intake import take_message
from workers.rendering import Renderer
from workers.rescuing import rescue

TOKEN = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."
LEASE_S = 15.0
TABLES = "conversions, clicks, clicks_waiting, matches, signals, postbacks, dedupe_keys, destination_versions, receipts, rejects, intents, attempts, hops, checks, replays, replay_runs, audit, stops"
TABLES += ", reports, report_rows, report_matches, report_findings, report_mappings, reconciled"
QUICK_RETRY = {"attempts": 3, "base": "100ms", "factor": 2.0, "cap": "1s", "horizon": "1m"}


def until(true: Callable[[], object], within_s: float = 15.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def contract(name: str, url: str, **table: Any) -> Contract:
    """A destination at the generic network, fired at once unless ``table`` says otherwise, that may use loopback."""
    network = table.pop("network", "generic")
    settings = {"url": url} | table.pop("settings", {})
    whole = {
        "network": network,
        "events": ["purchase"],
        "settings": settings,
        "retry": QUICK_RETRY,
        "allow_http": True,
        "allow_private": True,
        **table,
    }
    return join(name, Destination.model_validate(whole), load_catalogue()[network])


def generic_url(base: str, behaviour: str = "") -> str:
    """The generic network's endpoint at a sink; ``behaviour`` is one of the sink's."""
    prefix = f"/bad/{behaviour}" if behaviour else ""
    return f"{base}{prefix}/generic/p?click_id={{click_id}}&order_id={{order_id}}&value={{value}}"


def conversion(event_id: str, network: str = "generic", **fields: Any) -> dict[str, Any]:
    """A purchase of 49.90 EUR a minute ago, with a token of its own for ``network``."""
    return {
        "version": 1,
        "type": "conversion",
        "event_id": event_id,
        "source": "shop",
        "name": "purchase",
        "occurred_at": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
        "order_id": event_id.replace(":", "-"),
        "value": "49.90",
        "currency": "EUR",
        "click_ids": {network: f"{TOKEN}{event_id}"},
        **fields,
    }


def signal(kind: str, event_id: str, order_id: str | None, **fields: Any) -> dict[str, Any]:
    """A signal about an order, from billing, now."""
    named = {} if order_id is None else {"order_id": order_id}
    return {
        "version": 1,
        "type": kind,
        "event_id": event_id,
        "source": "billing",
        "occurred_at": datetime.now(UTC).isoformat(),
        **named,
        **fields,
    }


@dataclass
class Ground:
    """One database, and the moves that tests make in it."""

    engine: Engine
    messages: int = field(default=0)

    def apply(self, *contracts: Contract) -> None:
        destinations.apply(self.engine, {each.name: each for each in contracts}, who="test")

    def take(self, *events: object) -> IntakeResult:
        """One queue message, as a worker takes it."""
        self.messages += 1
        return self.take_message(list(events))

    def take_message(self, message: object) -> IntakeResult:
        return take_message(
            self.engine, Destinations(self.engine), f"message-{self.messages}", message, datetime.now(UTC)
        )

    def rows(self, query: str, **values: Any) -> Sequence[Row[Any]]:
        with self.engine.connect() as connection:
            return connection.execute(text(query), values).all()

    def one(self, query: str, **values: Any) -> Any:
        """The single value that ``query`` gives."""
        ((value,),) = self.rows(query, **values)
        return value

    def run(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def postback(self, event_id: str, destination: str | None = None) -> Row[Any]:
        (row,) = self.rows(
            """
            SELECT p.*, now() AS now, v.destination, v.number AS version_number FROM postbacks p
            JOIN conversions c ON c.id = p.conversion_id JOIN destination_versions v ON v.id = p.version_id
            WHERE c.event_id = :event_id AND v.destination = coalesce(CAST(:destination AS text), v.destination)""",
            event_id=event_id,
            destination=destination,
        )
        return row

    def attempts(self, event_id: str) -> Sequence[Row[Any]]:
        return self.rows(
            """
            SELECT a.* FROM attempts a JOIN postbacks p ON p.id = a.postback_id
            JOIN conversions c ON c.id = p.conversion_id WHERE c.event_id = :event_id ORDER BY a.id""",
            event_id=event_id,
        )

    def hops(self, event_id: str) -> Sequence[Row[Any]]:
        return self.rows(
            """
            SELECT h.* FROM hops h JOIN intents i ON i.attempt_id = h.attempt_id
            JOIN postbacks p ON p.id = i.postback_id JOIN conversions c ON c.id = p.conversion_id
            WHERE c.event_id = :event_id ORDER BY h.attempt_id, h.number""",
            event_id=event_id,
        )

    def states(self) -> dict[str, int]:
        found = self.rows("SELECT state, count(*) AS n FROM postbacks GROUP BY state")
        return {row.state: row.n for row in found}

    def signal(self, event_id: str) -> Row[Any]:
        (row,) = self.rows("SELECT * FROM signals WHERE event_id = :event_id", event_id=event_id)
        return row

    @contextmanager
    def firing(self, *, lease_s: float = LEASE_S) -> Iterator[Gun]:
        """One process's firing, drained and closed at the end."""
        renderer = Renderer(Destinations(self.engine))
        firing = Firing(self.engine, renderer, lease_s=lease_s)
        try:
            yield Gun(self, firing, renderer, lease_s)
        finally:
            firing.close()


@dataclass
class Gun:
    """Fires what is due."""

    ground: Ground
    firing: Firing
    renderer: Renderer
    lease_s: float

    def fire_due(self, limit: int = 1000) -> int:
        """One release pass, its hints taken up at once. Returns how many postbacks were leased."""
        leased = 0
        claimed = releasing.claim_all(self.ground.engine, limit=limit, lease_s=self.lease_s, per_lease=200)
        for lease in claimed.leases:
            self.firing.fire(lease.token, lease.version_id, lease.postback_ids)
            leased += len(lease.postback_ids)
        return leased

    def settle(self, within_s: float = 15.0) -> None:
        """Wait until nothing is on the wire."""
        until(lambda: not self.firing.in_flight, within_s)

    def fire(self, within_s: float = 15.0) -> None:
        """One release pass, fired and settled."""
        self.fire_due()
        self.settle(within_s)

    def fire_until_final(self, within_s: float = 20.0) -> None:
        """Go on like a clock and a worker until nothing is due any more."""
        deadline = time.monotonic() + within_s
        while self.ground.one("SELECT count(*) FROM postbacks WHERE due_at IS NOT NULL"):
            assert time.monotonic() < deadline, f"still not final: {self.ground.states()}"
            rescue(self.ground.engine, self.renderer)
            self.fire_due()
            time.sleep(0.01)
        self.settle()


def cleared(engine: Engine) -> Ground:
    """The module's database, emptied: only a superuser may switch off what refuses to empty the evidence."""
    ground = Ground(engine)
    ground.run(f"SET LOCAL session_replication_role = replica; TRUNCATE {TABLES} RESTART IDENTITY CASCADE")
    return ground
