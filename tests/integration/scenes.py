"""Scenes for the investigator: conversions brought to every end through the store itself, with no socket in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Engine, text

from infra.store import destinations, firing, intake, releasing
from infra.store.destinations import Destinations
from schemas.conversion import click_id_for
from schemas.destination import Contract, Destination
from schemas.event import read_event
from schemas.exchange import Failure, FailureKind, Hop, OutboundRequest
from schemas.lifecycle import State
from schemas.network import Network
from schemas.postback import Gated, LostAttempt, Prepared, SettledAttempt
from schemas.problem import InvalidInputError
from schemas.verdict import VerdictKind

TOKEN = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."
WORKER = "node-a:4711"


def contract(name: str, *, wait: str | None = None, dedupe: str = "rejected") -> Contract:
    """A destination at a network of the same make for every scene; without ``wait`` it fires at once."""
    network = Network.model_validate(
        {
            "slug": name.partition("-")[0],
            "title": name,
            "docs": "https://example.com/docs",
            "url": f"https://{name}.example.com/postback",
            "parameters": [{"name": "click", "value": "{click_id}"}],
            "dedupe": dedupe,
            "dedupe_basis": "as the scene needs it",
        }
    )
    hold = {"kind": "refund", "wait": wait} if wait else {"kind": "none"}
    destination = Destination.model_validate({"network": network.slug, "events": ["purchase"], "hold": hold})
    return Contract(name=name, destination=destination, network=network)


def conversion(event_id: str, network: str, **fields: Any) -> dict[str, Any]:
    """A purchase of 49.90 EUR an hour ago, whose token for ``network`` is its own."""
    return {
        "version": 1,
        "type": "conversion",
        "event_id": event_id,
        "source": "shop",
        "name": "purchase",
        "occurred_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
        "order_id": f"order-{event_id}",
        "value": "49.90",
        "currency": "EUR",
        "click_ids": {network: f"{TOKEN}{event_id}"},
        **fields,
    }


def refund(event_id: str, order_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "type": "refund",
        "event_id": event_id,
        "source": "billing",
        "occurred_at": datetime.now(UTC).isoformat(),
        "order_id": order_id,
        **fields,
    }


def hop(number: int = 1, **fields: Any) -> Hop:
    """A hop that was answered with 200 and a few bytes, but for ``fields``."""
    host = "push-eu.example.com"
    whole = Hop(
        number=number,
        url=f"https://{host}/postback?click={TOKEN}",
        method="GET",
        started_at=datetime.now(UTC),
        request_head=b"GET /postback?click="
        + TOKEN.encode()
        + b" HTTP/1.1\r\nHost: "
        + host.encode()
        + b"\r\n",
        addresses=("203.0.113.7", "203.0.113.8"),
        peer="203.0.113.7:443",
        local="10.0.0.2:51234",
        tls_version="TLSv1.3",
        reused=False,
        dns_ms=1.25,
        connect_ms=12.5,
        first_byte_ms=40.125,
        total_ms=45.5,
        status_code=200,
        response_head=b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
        body=b"success=true\n",
        body_length=13,
        body_sha256=sha256(b"success=true\n").hexdigest(),
    )
    return replace(whole, **fields)


TIMED_OUT = Failure(
    FailureKind.TIMEOUT, sent=True, error_class="TimeoutError", message="no answer within 10.0 s"
)


@dataclass
class Scene:
    """One database and the moves that can be made in it."""

    engine: Engine

    def apply(self, *contracts: Contract) -> None:
        destinations.apply(self.engine, {each.name: each for each in contracts}, who="scene")

    def take(self, *events: dict[str, Any]) -> None:
        """Commit events as intake does: what is invalid is kept with its reasons."""
        taken, refused = [], []
        for raw in events:
            try:
                taken.append(intake.Taken(read_event(raw, datetime.now(UTC)), raw))
            except InvalidInputError as error:
                refused.append(intake.Refused(raw, error.problems))
        intake.commit_message(self.engine, "message", taken, refused, Destinations(self.engine))

    def fire(self, *, lease_s: float = 60.0) -> list[Prepared]:
        """Claim everything due and pass it through the gate: the intents are recorded, nothing is settled."""
        prepared: list[Prepared] = []
        versions = Destinations(self.engine)
        for lease in releasing.claim(self.engine, limit=100, lease_s=lease_s, per_lease=100):
            version = versions.version(lease.version_id)

            def prepare(gated: Gated, version: Any = version) -> Prepared:
                token = click_id_for(version.contract, gated.event)
                url = f"{version.contract.network.url}?click={token}"
                return Prepared(gated, version, OutboundRequest("GET", url), url, token, ())

            gate = firing.gate(self.engine, lease.token, lease.postback_ids, WORKER, prepare, lease_s=lease_s)
            prepared += gate.prepared
        return prepared

    def settle(
        self,
        prepared: Prepared,
        state: State = State.DELIVERED,
        verdict: VerdictKind = VerdictKind.DELIVERED,
        rule: str = "status 200",
        hops: Sequence[Hop] | None = None,
        **fields: Any,
    ) -> firing.Settlement:
        """Settle one attempt, as answered with 200 but for what is given."""
        gated = prepared.gated
        hops = (hop(),) if hops is None else tuple(hops)
        attempt = SettledAttempt(
            postback_id=gated.postback_id,
            token=gated.token,
            attempt_id=gated.attempt_id,
            number=gated.number,
            version_id=gated.version_id,
            trigger=gated.trigger,
            worker=WORKER,
            intent_at=gated.now,
            ended_at=gated.now + timedelta(milliseconds=50),
            verdict=verdict,
            rule=rule,
            state=state,
            reason=rule,
            status_code=hops[-1].status_code if hops else None,
            click_id=prepared.click_id,
            hops=hops,
        )
        return firing.settle(self.engine, [replace(attempt, **fields)])

    def lose(self) -> list[SettledAttempt]:
        """Rescue attempts whose lease ran out: their outcome is unknown, and they are tried again."""

        def judge(lost: LostAttempt) -> SettledAttempt:
            return SettledAttempt(
                postback_id=lost.postback_id,
                token=lost.token,
                attempt_id=lost.attempt_id,
                number=lost.number,
                version_id=lost.version_id,
                trigger=lost.trigger,
                worker=lost.worker,
                intent_at=lost.intent_at,
                ended_at=lost.now,
                verdict=VerdictKind.UNKNOWN,
                rule="the worker fell silent",
                state=State.RETRYING,
                reason="the worker fell silent",
                next_attempt_at=lost.now + timedelta(hours=1),
                delay_s=3600.0,
                error_class="WorkerLost",
                error_message=f"worker {lost.worker} did not settle this attempt within its lease",
            )

        return firing.settle_lost(self.engine, judge)

    def make_due(self, postback_id: int) -> None:
        """Let time pass for one postback that waits for its next attempt."""
        self.run("UPDATE postbacks SET due_at = now() WHERE id = :id", id=postback_id)

    def run(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def postback_of(self, event_id: str) -> int:
        query = text(
            "SELECT p.id FROM postbacks p JOIN conversions c ON c.id = conversion_id WHERE c.event_id = :id"
        )
        with self.engine.connect() as connection:
            number: int = connection.execute(query, {"id": event_id}).scalar_one()
            return number

    def fire_one(self, event_id: str, **how: Any) -> Prepared:
        """Fire what is due, which must be this event's postback alone."""
        (prepared,) = self.fire(**how)
        assert prepared.gated.event.event_id == event_id
        return prepared
