"""Holdfire as a contestant: the real workers and clock, firing what intake committed, with full evidence."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import parse_qs, urlsplit

import psycopg2
from sqlalchemy import Engine, text

from infra.catalogue import load_catalogue
from infra.db.engine import open_engine
from infra.db.migrate import migrate
from infra.store import destinations, intake
from infra.store.intake import Taken
from schemas.destination import Contract, Destination
from schemas.event import MAX_EVENTS_PER_MESSAGE, read_event
from tests.benchmarks.peers import celery_tuning, ground, processes

TABLES = (
    "receipts, rejects, signals, conversions, clicks, clicks_waiting, matches, postbacks, dedupe_keys, intents, attempts, hops, "
    "destination_versions, audit, stops"
)
CONCURRENCY = 50


class Holdfire:
    """Two worker processes and one clock, as ``holdfire up`` starts them."""

    name = "Holdfire"

    def __init__(self, hold: dict[str, str] | None = None, workers: int = 2) -> None:
        self.hold = hold or {"kind": "none"}
        self._workers = workers
        self._children: list[processes.Child] = []
        self._folder = Path(mkdtemp(prefix="holdfire-bench-"))
        self.engine: Engine

    def prepare(self, database_url: str, broker_url: str, urls: Sequence[str] = ()) -> None:
        """Make the tables, empty them and the queues, and enqueue a postback for each URL."""
        self._urls = {"HOLDFIRE_DATABASE_URL": database_url, "HOLDFIRE_BROKER_URL": broker_url}
        self.engine = open_engine(database_url)
        migrate(self.engine)
        with self.engine.begin() as connection:
            # Evidence refuses to be emptied, but for a superuser who says that no trigger shall fire.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY"))
        for queue in ("holdfire.events", "holdfire.fire", "holdfire.clock"):
            celery_tuning.empty_queue(broker_url, queue)
        if urls:
            self.enqueue(urls)

    def enqueue(self, urls: Sequence[str]) -> None:
        """Commit a conversion for each URL, in bulk, as intake does; its postback is due at once."""
        now = datetime.now(UTC)
        self.aim(urls[0].partition("?")[0])
        applied = destinations.Destinations(self.engine)
        run = secrets.token_hex(4)
        for start in range(0, len(urls), MAX_EVENTS_PER_MESSAGE):
            raws = [
                self._event(f"{run}:{start + place}", url, now)
                for place, url in enumerate(urls[start : start + MAX_EVENTS_PER_MESSAGE])
            ]
            taken = [Taken(read_event(raw, now), raw) for raw in raws]
            intake.commit_message(self.engine, f"{run}:{start}", taken, [], applied)
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE postbacks, conversions"))

    def aim(self, url: str) -> None:
        """Apply one Xandr destination whose pixel is at ``url``."""
        destination = Destination.model_validate(
            {
                "network": "xandr",
                "events": ["purchase"],
                "settings": {"id": "25619", "url": url},
                "hold": self.hold,
                "limits": {"concurrency": CONCURRENCY},
                "allow_private": True,
                "allow_http": True,
            }
        )
        contract = Contract(name="bench", destination=destination, network=load_catalogue()["xandr"])
        destinations.apply(self.engine, {"bench": contract}, who="benchmark")

    def start(self) -> list[processes.Child]:
        """Start the clock and the workers, and wait until they are ready."""
        roles = ["clock"] + ["work"] * self._workers
        self._children = [
            processes.Child(
                "tests.benchmarks.process", role, str(self._folder / f"{number}.log"), environment=self._urls
            )
            for number, role in enumerate(roles)
        ]
        for child in self._children:
            child.wait_ready()
        return self._children

    def worker_pids(self) -> list[int]:
        return [child.pid for child in self._children[1:]]

    def wait_done(self, rows: int, timeout_s: float) -> None:
        """Wait until that many attempts are committed since ``prepare``."""
        connection = psycopg2.connect(ground.libpq_url(self._urls["HOLDFIRE_DATABASE_URL"]))
        connection.autocommit = True
        with connection.cursor() as cursor:

            def count() -> int:
                cursor.execute("SELECT count(*) FROM attempts")
                return int(cursor.fetchone()[0])

            ground.wait_for_count(count, rows, timeout_s)
        connection.close()

    def stop(self) -> None:
        """End the processes; the tables stay until the next ``prepare``."""
        for child in self._children:
            child.stop(grace_s=30)
        self._children = []
        self.engine.dispose()
        for log in self._folder.glob("*.log"):
            log.unlink()

    @staticmethod
    def _event(event_id: str, url: str, now: datetime) -> dict[str, object]:
        fields = parse_qs(urlsplit(url).query)
        return {
            "version": 1,
            "type": "conversion",
            "event_id": event_id,
            "source": "bench",
            "name": "purchase",
            "occurred_at": now.isoformat(),
            "order_id": fields["order_id"][0],
            "value": fields["value"][0],
            "currency": "EUR",
            "click_ids": {"xandr": fields["sspdata"][0]},
        }
