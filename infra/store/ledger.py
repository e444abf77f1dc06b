"""The ledger: every sum counted twice, in different tables, as of one instant.

Each entry is a statement with two sides that must be equal. The left side is what was written down when it
happened, the right side is what stands in the tables now; a row that vanished, came from nowhere or was moved by
hand makes them differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine, text

from infra.db.snapshot import snapshot
from schemas.lifecycle import State

LONGEST_COUNT_S = 1800.0
"""Counting all evidence takes its time; nobody waits for it but the reader."""


@dataclass(frozen=True, slots=True)
class Term:
    """One number of an equation, and what it counts."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Entry:
    """``left`` and the sum of ``right`` must be equal. ``key`` is stable, ``says`` is for people."""

    key: str
    says: str
    left: Term
    right: tuple[Term, ...]
    never: bool = False
    """Whether it counts what must not be: the left side is zero."""

    @property
    def difference(self) -> int:
        """Left less right: positive when something is missing on the right."""
        return self.left.count - sum(term.count for term in self.right)

    @property
    def balances(self) -> bool:
        return self.difference == 0


@dataclass(frozen=True, slots=True)
class Amount:
    """What the postbacks of one state are worth in one currency. ``net``: what is left of it to report:
    after partial refunds, and nothing once it is voided."""

    currency: str
    state: State
    postbacks: int
    value: Decimal
    net: Decimal


@dataclass(frozen=True, slots=True)
class Ledger:
    """The books as of ``at``, by the database's clock."""

    at: datetime
    entries: tuple[Entry, ...]
    states: tuple[tuple[State, int], ...]
    amounts: tuple[Amount, ...]

    @property
    def balances(self) -> bool:
        return all(entry.balances for entry in self.entries)


_ARRIVALS = """
    SELECT now() AS at,
        (SELECT coalesce(sum(events), 0) FROM receipts)::bigint AS events,
        c.conversions, c.routed, c.unrouted, c.planned,
        (SELECT count(*) FROM signals) AS signals,
        r.duplicates, r.rejected
    FROM (SELECT count(*) AS conversions, count(*) FILTER (WHERE routed > 0) AS routed,
            count(*) FILTER (WHERE unrouted_reason IS NOT NULL) AS unrouted,
            coalesce(sum(routed), 0)::bigint AS planned FROM conversions) c,
        (SELECT count(*) FILTER (WHERE code = 'duplicate') AS duplicates,
            count(*) FILTER (WHERE code <> 'duplicate') AS rejected FROM rejects) r"""

_POSTBACKS = (
    "SELECT state, count(*) AS postbacks, sum(attempts)::bigint AS attempts FROM postbacks GROUP BY state"
)

_AMOUNTS = """
    SELECT c.currency, p.state, count(*) AS postbacks, sum(c.value) AS value,
        sum(CASE WHEN p.state = 'voided' THEN 0 ELSE c.net_value END) AS net
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
    WHERE c.value IS NOT NULL GROUP BY c.currency, p.state"""

_ATTEMPTS = """
    SELECT (SELECT count(*) FROM intents) AS intents,
        (SELECT count(*) FROM attempts) AS settled,
        (SELECT count(*) FROM postbacks p JOIN intents i ON i.attempt_id = p.attempt_id AND i.postback_id = p.id
         WHERE p.state = 'firing'
            AND NOT EXISTS (SELECT FROM attempts a WHERE a.id = i.attempt_id AND a.intent_at = i.intent_at)) AS open"""

# Each counts what must not be.
_NEVER = (
    (
        "delivered_without_attempt",
        "delivered, but no attempt was answered so",
        """SELECT count(*) FROM postbacks p WHERE p.state = 'delivered' AND NOT EXISTS (
        SELECT FROM attempts a WHERE a.postback_id = p.id AND a.state = 'delivered')""",
    ),
    (
        "voided_but_delivered",
        "voided, but an attempt had delivered it",
        """SELECT count(*) FROM postbacks p WHERE p.state = 'voided' AND EXISTS (
        SELECT FROM attempts a WHERE a.postback_id = p.id AND (a.verdict = 'delivered' OR a.state = 'delivered'))""",
    ),
    (
        "fired_after_void",
        "fired after it was voided",
        """SELECT count(*) FROM postbacks p JOIN intents i ON i.postback_id = p.id
        WHERE p.state = 'voided' AND i.intent_at > p.settled_at""",
    ),
    (
        "fired_early",
        "fired before its window ended",
        "SELECT count(*) FROM intents i JOIN postbacks p ON p.id = i.postback_id WHERE i.intent_at < p.release_at",
    ),
    (
        "duplicate_fired",
        "duplicates that were fired",
        """SELECT count(*) FROM postbacks p WHERE p.state = 'duplicate' AND (p.attempts > 0 OR EXISTS (
        SELECT FROM attempts a WHERE a.postback_id = p.id))""",
    ),
)


def read_ledger(engine: Engine) -> Ledger:
    """Take the balance. It holds at every instant, also while everything runs."""
    with snapshot(engine, timeout_s=LONGEST_COUNT_S) as connection:
        arrivals = connection.execute(text(_ARRIVALS)).one()
        by_state = {State(row.state): row for row in connection.execute(text(_POSTBACKS))}
        states = tuple((state, by_state[state].postbacks if state in by_state else 0) for state in State)
        attempts_made = sum(row.attempts for row in by_state.values())
        events = Term("events taken in, by receipt", arrivals.events)
        kept = (
            Term("conversions", arrivals.conversions),
            Term("signals", arrivals.signals),
            Term("duplicates", arrivals.duplicates),
            Term("rejected", arrivals.rejected),
        )
        entries = (
            Entry("events", "every event is kept", events, kept),
            Entry(
                "conversions",
                "every conversion is routed, or says why not",
                Term("conversions", arrivals.conversions),
                (Term("routed", arrivals.routed), Term("unrouted", arrivals.unrouted)),
            ),
            Entry(
                "postbacks",
                "every postback that was planned stands in one state",
                Term("postbacks planned by routing", arrivals.planned),
                tuple(Term(state.value, count) for state, count in states),
            ),
            *_attempt_entries(connection, attempts_made),
            *(
                Entry(
                    key,
                    says,
                    Term("must be", 0),
                    (Term("found", connection.execute(text(query)).scalar_one()),),
                    never=True,
                )
                for key, says, query in _NEVER
            ),
        )
        return Ledger(arrivals.at, entries, states, _amounts(connection))


def _attempt_entries(connection: Connection, attempts_made: int) -> tuple[Entry, Entry]:
    row = connection.execute(text(_ATTEMPTS)).one()
    ended = (Term("recorded with their outcome", row.settled), Term("on the wire", row.open))
    return (
        Entry(
            "attempts",
            "every attempt is recorded",
            Term("attempts counted by postbacks", attempts_made),
            ended,
        ),
        Entry(
            "intents", "every intent has an outcome, or is on the wire", Term("intents", row.intents), ended
        ),
    )


def _amounts(connection: Connection) -> tuple[Amount, ...]:
    rows = [
        Amount(row.currency, State(row.state), row.postbacks, row.value, row.net)
        for row in connection.execute(text(_AMOUNTS))
    ]
    order = list(State)
    return tuple(sorted(rows, key=lambda amount: (amount.currency, order.index(amount.state))))
