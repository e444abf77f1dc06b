"""The real side of the model's world: one PostgreSQL, the store's own functions, and a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import Engine, Row, text

from infra.store import destinations, firing, releasing
from infra.store.by_hand import Signature
from infra.store.destinations import Destinations
from infra.store.ledger import read_ledger
from infra.store.replays import replay_back, replaying
from infra.store.replays.doubts import settle_by_hand
from infra.store.replays.replay_look import Options
from infra.store.searching.search import Criteria
from infra.store.selection import Selection
from schemas.exchange import Answer, Failure, FailureKind, Hop
from schemas.postback import Gated, Lease, LostAttempt, Prepared, SettledAttempt, Stopped
from schemas.replaying import Said, Settled
from tests.model.places import PLACES, contract
from tests.model.rules import NEVER, Conversion, Signal
from workers.intake import take_message
from workers.rendering import Renderer
from workers.rendering import prepare as render_postback
from workers.settling import settle_answer, settle_lost
from workers.wire import Answered

LEASE_MINUTES = 20
WORKER = "node-a:4711"
STATUS = {"delivered": 200, "rejected": 400, "retry": 500}

EMPTIED = (
    "replays", "replay_runs", "audit", "hops", "attempts", "intents", "checks", "dedupe_keys", "postbacks", "signals", "conversions", "rejects", "receipts", "stops",
)  # fmt: skip

# Deleting a few dozen rows is many times quicker than truncating; only a superuser may switch off what refuses it.
_EMPTY = "SET LOCAL session_replication_role = replica;" + ";".join(
    f"DELETE FROM {table}" for table in EMPTIED
)

# Time passes by moving everything that has an instant back. What is evidence stays where it is.
_PASS = text("""
    WITH p AS (
        UPDATE postbacks SET release_at = release_at - :by, due_at = due_at - :by, expires_at = expires_at - :by,
            first_attempt_at = first_attempt_at - :by, asked_since = asked_since - :by,
            confirmed_at = confirmed_at - :by, retracted_at = retracted_at - :by, lost_at = lost_at - :by),
    r AS (
        UPDATE replays SET before = before || jsonb_build_object(
            'expires_at', (before->>'expires_at')::timestamptz - :by,
            'first_attempt_at', (before->>'first_attempt_at')::timestamptz - :by) WHERE before IS NOT NULL),
    s AS (UPDATE stops SET drains_at = drains_at - :by),
    c AS (
        UPDATE conversions SET occurred_at = occurred_at - :by, received_at = received_at - :by,
            event = jsonb_set(event::jsonb, '{occurred_at}', to_jsonb(occurred_at - :by))::json)
    UPDATE signals SET occurred_at = occurred_at - :by, received_at = received_at - :by,
        event = jsonb_set(event::jsonb, '{occurred_at}', to_jsonb(occurred_at - :by))::json""")

_POSTBACKS = text("""
    SELECT p.id, p.freed, p.falls_back, p.budget_from, c.event_id, v.destination, p.adjustment, p.adjusts, p.state, p.void_reason, p.attempts,
        p.duplicate_of, p.adjustments, p.lost, p.lost_at IS NOT NULL AS is_lost, p.retracted_at IS NOT NULL AS retracted,
        coalesce(p.reported, c.value) AS reported,
        extract(epoch FROM p.release_at - now())::float8 / 60 AS release_in,
        CASE WHEN p.due_at = 'infinity' THEN :never ELSE extract(epoch FROM p.due_at - now())::float8 / 60 END AS due_in
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
        JOIN destination_versions v ON v.id = p.version_id ORDER BY p.id""")

_CONVERSIONS = text("SELECT event_id, net_value, outcomes FROM conversions")


@dataclass
class Sent:
    """An attempt on the wire, and how much time had passed when it left."""

    prepared: Prepared
    at: int


@dataclass
class Bench:
    """The store under test. ``passed`` is how many minutes were let pass since the story began."""

    engine: Engine
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    passed: int = 0
    messages: int = 0

    def __post_init__(self) -> None:
        destinations.apply(self.engine, {place.name: contract(place) for place in PLACES}, who="model")
        self.destinations = Destinations(self.engine)
        self.renderer = Renderer(self.destinations)

    def empty(self) -> None:
        """Begin a story."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(_EMPTY)
        self.started_at, self.passed = datetime.now(UTC), 0

    def wire(self, event: Conversion | Signal) -> dict[str, Any]:
        """The event as a producer sends it now."""
        occurred_at = self.started_at + timedelta(minutes=event.occurred_at - self.passed)
        raw: dict[str, Any] = {
            "version": 1,
            "event_id": event.event_id,
            "source": "shop" if isinstance(event, Conversion) else "billing",
            "occurred_at": occurred_at.isoformat(),
            "order_id": event.order_id,
            "sequence": event.sequence,
            "currency": event.currency,
        }
        if isinstance(event, Conversion):
            raw |= {
                "type": "conversion",
                "name": "purchase",
                "value": None if event.value is None else str(event.value),
                "click_ids": event.clicks,
                "partner_id": event.partner_id,
            }
        else:
            raw |= {
                "type": event.kind,
                "conversion_event_id": event.conversion_event_id,
                "outcome": event.outcome or None,
                "amount": None if event.amount is None else str(event.amount),
                "amount_is": "cumulative" if event.cumulative else None,
            }
        return {name: value for name, value in raw.items() if value is not None}

    def take(self, events: Sequence[Conversion | Signal]) -> None:
        self.messages += 1
        raw = [self.wire(event) for event in events]
        result = take_message(
            self.engine, self.destinations, f"message-{self.messages}", raw, datetime.now(UTC)
        )
        assert not result.rejected, f"the story has an invalid event: {raw}"

    def pass_time(self, minutes: int) -> None:
        with self.engine.begin() as connection:
            connection.execute(_PASS, {"by": timedelta(minutes=minutes)})
        self.passed += minutes

    def claim(self, limit: int) -> list[Lease]:
        return releasing.claim(self.engine, limit=limit, lease_s=LEASE_MINUTES * 60, per_lease=200)

    def gate(self, token: int, version_id: int, ids: Sequence[int]) -> list[Sent]:
        account = self.renderer.account(version_id)

        def prepare(gated: Gated) -> Prepared | Stopped:
            return render_postback(gated, account)

        gate = firing.gate(self.engine, token, ids, WORKER, prepare, lease_s=LEASE_MINUTES * 60)
        return [Sent(prepared, self.passed) for prepared in gate.prepared]

    def give_back(self, token: int, ids: Sequence[int], minutes: int) -> None:
        firing.give_back(self.engine, token, ids, minutes * 60)

    def settle(self, answers: Sequence[tuple[Sent, str]]) -> None:
        firing.settle(self.engine, [self._settled(sent, verdict) for sent, verdict in answers])

    def _settled(self, sent: Sent, verdict: str) -> SettledAttempt:
        """The attempt answered, as the firing worker would settle it. Its own instants are of when it left."""
        prepared, since = sent.prepared, timedelta(minutes=self.passed - sent.at)
        gated = prepared.gated
        moved = replace(
            gated,
            first_attempt_at=(gated.first_attempt_at or gated.now) - since,
            expires_at=gated.expires_at and gated.expires_at - since,
        )
        account = self.renderer.account(gated.version_id)
        answer = _answer(prepared.request.url, verdict)
        return settle_answer(
            Answered(replace(prepared, gated=moved), account, answer), WORKER, datetime.now(UTC), 0.5
        )

    def rescue(self) -> None:
        releasing.rescue_leased(self.engine)

        def judge(lost: LostAttempt) -> SettledAttempt:
            return settle_lost(lost, self.renderer.contract(lost.version_id), 0.5)

        firing.settle_lost(self.engine, judge)

    def let_go(self, destination: str | None) -> None:
        releasing.let_go(self.engine, destination)

    def replay(self, postback_id: int | None, *, force: bool) -> tuple[int, dict[int, str | None]]:
        """A run over one postback or all of them, at a rate that no clock of minutes sees. Returns its id, and why each of
        those that it looked at was refused, None if it fires again."""
        selection = Selection(Criteria(postback_id=postback_id))
        run_id = replaying.begin(
            self.engine, selection, Options(force=force, per_second=1000), Signature("anna", "a story")
        )
        while replaying.advance(self.engine, run_id).ended_at is None:
            pass
        with self.engine.connect() as connection:
            query = text("SELECT postback_id, refused FROM replays WHERE run_id = :run")
            rows = connection.execute(query, {"run": run_id}).all()
        return run_id, {row.postback_id: row.refused for row in rows}

    def put_back(self, run_id: int) -> int:
        return replay_back.stop(self.engine, run_id, Signature("anna", "a story"))

    def settle_by_hand(self, postback_id: int, said: str) -> bool:
        (answer,) = settle_by_hand(self.engine, [postback_id], Said(said), Signature("anna", "a story"))
        return isinstance(answer.decision, Settled)

    def read(self) -> tuple[Sequence[Row[Any]], dict[str, tuple[Decimal | None, set[str]]]]:
        """Every postback, and net value and outcomes of every conversion."""
        with self.engine.connect() as connection:
            rows = connection.execute(_POSTBACKS, {"never": NEVER}).all()
            conversions = connection.execute(_CONVERSIONS).all()
        return rows, {row.event_id: (row.net_value, set(row.outcomes)) for row in conversions}

    def unbalanced(self) -> list[str]:
        return [entry.says for entry in read_ledger(self.engine).entries if not entry.balances]


def value_in(url: str) -> Decimal | None:
    """What a request tells its network: a total, or a change of it."""
    found = parse_qs(urlsplit(url).query)
    told = found.get("value") or found.get("delta")
    return Decimal(told[0]) if told else None


def _answer(url: str, verdict: str) -> Answer:
    hop = Hop(
        number=1, url=url, method="GET", started_at=datetime.now(UTC), request_head=b"GET / HTTP/1.1\r\n"
    )
    if verdict == "unknown":
        failure = Failure(
            FailureKind.TIMEOUT, sent=True, error_class="TimeoutError", message="no answer came"
        )
        return Answer((replace(hop, failure=failure),), failure)
    status = STATUS[verdict]
    head = f"HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\n".encode()
    return Answer((replace(hop, status_code=status, response_head=head),))
